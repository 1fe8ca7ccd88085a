"""The sections of a spec together, and the amounts that follow from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from sweeps.spec import values
from sweeps.spec.data_settings import DataSettings
from sweeps.spec.evaluation import EvaluationSettings
from sweeps.spec.ranges import Range
from sweeps.spec.resources import ResourceSettings
from sweeps.spec.section import Settings, section, setting
from sweeps.spec.settings import (
    GRACED,
    BaseSettings,
    BudgetSettings,
    ControlSettings,
    FinalistSettings,
    ObjectiveSettings,
    RetrySettings,
    SamplerSettings,
    StoppingSettings,
    StorageSettings,
    TrackingSettings,
    TrialSettings,
)
from tli.planning.injection import Injection

LEARNING_RATE = "recipe.learning_rate"
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"  # of a sweep

_MEASURING = 0.25  # of a trial's time, that its measurements may take
_FEWEST, _MOST = 6, 16  # measurements after the one before training


class SpecFields(Settings):
    """What a user writes of one sweep, section by section; `Spec` is the whole."""

    name: str = setting(
        "1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or a digit",
        example="my-sweep",
        pattern=NAME,
    )
    base: BaseSettings = section(BaseSettings, {"model": "builtin:tiny-llama"})
    data: DataSettings = section(DataSettings, {"source": "builtin:stdlib"})
    trial: TrialSettings = section(TrialSettings)
    search: dict[str, Range] = Field(
        {}, description="a mapping from dotted paths in trial to ranges", examples=[None]
    )
    objective: ObjectiveSettings = section(ObjectiveSettings)
    sampler: SamplerSettings = section(SamplerSettings)
    warm_start: list[str] = setting("a list of names of finished sweeps", [], example=["my-first-sweep"])
    budget: BudgetSettings = section(BudgetSettings, {"trials": 24})
    stopping: StoppingSettings = section(StoppingSettings)
    control: ControlSettings = section(ControlSettings)
    finalists: FinalistSettings = section(FinalistSettings)
    evaluation: EvaluationSettings = section(EvaluationSettings)
    resources: ResourceSettings = section(ResourceSettings)
    retries: RetrySettings = section(RetrySettings)
    storage: StorageSettings = section(StorageSettings)
    tracking: TrackingSettings | None = section(TrackingSettings)

    @property
    def steps(self) -> int:
        """Optimizer steps of every trial but compute-matched controls."""
        return self.trial.to_recipe().steps

    @property
    def control_rates(self) -> int:
        """Learning rates that the control is trained at: `control.rates`, and at most a quarter of the
        budget's trials. One where the rate is not searched.
        """
        searched = LEARNING_RATE in self.search
        return min(self.control.rates, max(1, self.budget.trials // 4)) if searched else 1

    @property
    def in_bf16(self) -> bool:
        """Whether trials may compute in bfloat16."""
        searched = self.search.get("recipe.precision")
        return "bf16" in (searched.ends if searched else (self.trial.recipe.precision,))

    @property
    def grace_step(self) -> int:
        """The first step at which the stopping rule may give a trial up."""
        return max(1, math.ceil(self.stopping.grace * self.steps))

    @property
    def replicates(self) -> int:
        """Most runs on top of the budget: finalists, control and baseline under fresh seeds, and under the
        same ones the control with the winner's FLOPs.
        """
        return (self.most_finalists + 2 + self.control.matched) * self.finalists.seeds

    @property
    def rung_runs(self) -> int:
        """Most runs of the ladder: all finalists and the control, at each longer budget."""
        return (self.most_finalists + 1) * len(self.budget.ladder)

    @property
    def cost(self) -> str:
        """What a model costs: what the objective names, or FLOPs per token."""
        return self.objective.cost or "flops_per_token"

    @property
    def spread(self) -> str | None:
        """What the finalists are spread over: the values of a setting, by its dotted path, or the front of
        losses against a cost or a task's score, by its name; None where they are the best of all.
        """
        return self.objective.cost or self.objective.score or self.finalists.per

    @property
    def most_finalists(self) -> int:
        """As many as there may be, of all values together; the original model is none."""
        per, top = self.finalists.per, self.finalists.top
        if per is None:
            return top
        method = self.search.get("injection.method")
        methods = set(method.ends if method else (self.trial.injection.method,)) - {"none"}
        section, _, name = per.partition(".")
        # Of methods that do not read the setting, the best are a group of their own.
        idle = section == "injection" and not all(
            Injection(each).read_by_method(name.partition(".")[0]) for each in methods
        )
        values = methods if per == "injection.method" else self.search[per].ends
        return top * (len(values) + idle)

    def report_steps(self, steps: int | None = None) -> tuple[int, ...]:
        """Steps at which the held-out loss is measured, in order.

        0, then evenly, as often as a quarter of the training's time allows: a token costs a third of one that
        is trained on. That is 6 times at least and 16 at most; and at the end of the stopping rule's grace.

        Parameters
        ----------
        steps : int, optional
            Of the trial; those of the baseline where left out.

        Returns
        -------
        tuple of int
            From 0 to `steps`.
        """
        steps = self.steps if steps is None else steps
        trained = steps * self.trial.recipe.batch_tokens
        affordable = math.floor(_MEASURING * 3 * trained / self.data.eval_tokens)
        times = min(max(affordable, _FEWEST), _MOST, steps)
        marks = {round(steps * time / times) for time in range(times + 1)}
        if self.stopping.rule in GRACED:
            marks.add(max(1, math.ceil(self.stopping.grace * steps)))
        return tuple(sorted(marks))

    def value(self, path: str) -> Any:
        """The baseline's value of a setting.

        Parameters
        ----------
        path : str
            Dotted, in ``trial``.

        Returns
        -------
        object
            A plain value or a section.
        """
        found: Any = self.trial
        for part in path.split("."):
            found = getattr(found, part)
        return found

    def settings_for(self, params: Mapping[str, Any]) -> TrialSettings:
        """The baseline with some settings replaced.

        Parameters
        ----------
        params : mapping
            Values by dotted path in ``trial``.

        Returns
        -------
        TrialSettings
            Whole and checked.

        Raises
        ------
        InputError
            A path that is no trial setting, or a value that no trial can run with.
        """
        return values.settings_for(self.trial, params)
