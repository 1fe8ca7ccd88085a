"""What a sweep would cost, before anything runs: sizes, arithmetic, memory and, once measured, hours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from sweeps.checks.budget import Reach, enough_for, reaches
from sweeps.checks.measured import measured_tokens, tokens_of_the_test
from sweeps.checks.placement import slots, this_machine
from sweeps.checks.runs import Runs, planned_runs
from sweeps.checks.scoring import Passes, Scoring
from sweeps.checks.shapes import (
    Shape,
    control_layers,
    plan_of,
    searched_shapes,
    setting_of,
    shape_of,
)
from sweeps.checks.speeds import Traffic, traffic
from sweeps.checks.totals import Climb, Total, expected_share
from sweeps.spec import Spec
from tli.growth.cost import cost
from tli.models.base import Base

if TYPE_CHECKING:
    from tli.tasks.sizes import TaskSize


@dataclass(frozen=True)
class Estimate:
    """What a sweep would cost.

    Attributes:
        name: of the sweep.
        base: the base model as the user wrote it.
        shapes: every depth in play, the control first.
        trials: of the budget, the controls and the baseline included.
        controls: of these, the original trained on, each at a learning rate of its own.
        reaches: how far each setting of the budget takes the search.
        replicates: most runs that come on top, under fresh seeds.
        steps: optimizer steps of one whole trial.
        trial_tokens: training tokens of one whole trial.
        eval_tokens: held-out tokens that one whole trial is measured on, over all its measurements.
        rule: the stopping rule.
        at_most: were no trial stopped, and all as deep as the deepest; up to what the budget allows.
        expected: if the stopping rule keeps its share at every rung, and all depths are tried alike.
        parallel: trials at once.
        ranks: processes that train one trial together.
        checkpointing: every how many layers one is calculated again; 0: none.
        control_layers: of the original that the control trains; empty where it trains all.
        traffic: what the largest trial sends, stores and reaches.
        compiled: whether layers are.
        flops_per_second: of one trial, as measured; None when it was not.
        ladder: the rungs, were all finalists as deep as the deepest; part of `at_most` and `expected`.
        runs: how many there are of each kind at most, in the order in which they begin.
        scoring: on downstream tasks, likewise, its FLOPs and hours a part of the totals; None without tasks.
    """

    name: str
    base: str
    shapes: tuple[Shape, ...]
    trials: int
    controls: int
    reaches: tuple[Reach, ...]
    replicates: int
    steps: int
    trial_tokens: int
    eval_tokens: int
    rule: str
    at_most: Total
    expected: Total
    parallel: int
    ranks: int
    checkpointing: int
    control_layers: tuple[int, ...]
    traffic: Traffic
    compiled: bool
    flops_per_second: float | None
    ladder: tuple[Climb, ...] = ()
    runs: tuple[Runs, ...] = ()
    scoring: Scoring | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        labels = [shape.label for shape in self.shapes]
        plain = asdict(self)
        shapes = [{"label": label, **shape} for label, shape in zip(labels, plain["shapes"], strict=True)]
        return {**plain, "shapes": shapes}

    def text(self) -> str:
        """As lines for a terminal."""
        from sweeps.checks.estimate_text import estimate_lines

        return "\n".join(estimate_lines(self))


def estimate(
    spec: Spec,
    base: Base,
    *,
    flops_per_second: float | None = None,
    parallel: int | None = None,
    heldout: int | None = None,
    auto: bool = False,
    tasks: Sequence[TaskSize] = (),
) -> Estimate:
    """The cost of a sweep on a base that was found and fits the spec.

    Args:
        spec: a checked spec.
        base: its base model; only headers and configuration are read.
        flops_per_second: speed of one trial on its cpus and gpus, as measured in a few steps.
        parallel: trials at once; None takes what the spec allows and this machine has.
        heldout: tokens of held-out text that are there, where that is known; of test text there are as many.
        auto: whether activation checkpointing was left to what memory there is.
        tasks: what goes through a model that is scored on each downstream task, where that is known.
    """
    shapes = tuple(shape_of(spec, base, injection) for injection in (None, *searched_shapes(spec)))
    at_once = parallel or slots(spec, [this_machine()])
    recipe = spec.trial.recipe
    measured = measured_tokens(spec, heldout)
    trial_tokens = spec.steps * recipe.batch_tokens
    trained = _work_of(shapes, [shape.cost.flops_per_token * trial_tokens for shape in shapes])
    worked = _work_of(shapes, [_work(spec, base, shape, trial_tokens, measured) for shape in shapes])
    tested = measured + tokens_of_the_test(spec, heldout)
    fresh = _work_of(shapes, [_work(spec, base, shape, trial_tokens, tested) for shape in shapes])
    reached, most = _reaches(spec, trained, worked, flops_per_second, at_once)
    fixed, seeds, share = 1 + spec.control_rates, spec.finalists.seeds, expected_share(spec)
    least, likely = enough_for(reached, fixed=fixed)
    passes = Passes(spec, base, shapes, tasks)

    def total(of: Callable[[Sequence[float]], float], searched: float, of_tokens: float) -> Total:
        """Of so many whole searched trials, and of finalists that cost what `of` makes of all sizes."""
        # The matched control has the winner's FLOPs, and so many more tokens.
        ratio = of(worked.each) / worked.control if spec.control.matched else 0.0
        again = spec.most_finalists + (ratio > 1)
        flops = worked.first(spec.control_rates) + of(worked.each) * searched
        flops += seeds * (fresh.first(1) + of(fresh.each) * again)
        whole = fixed + of_tokens + seeds * (2 + spec.most_finalists + ratio * (ratio > 1))
        climbs = [climb(rung, of) for rung in spec.budget.ladder]
        flops += sum(each.flops for each in climbs) + passes.flops(of)
        tokens = round(whole * trial_tokens) + sum(each.tokens for each in climbs)
        return Total(tokens, flops, in_hours(flops))

    def climb(rung: int, of: Callable[[Sequence[float]], float]) -> Total:
        """Of one rung: its trials train so many times longer, and are measured about as much more often."""
        longer = -(-rung // recipe.batch_tokens) * recipe.batch_tokens
        flops = longer / trial_tokens * (worked.control + of(worked.each) * spec.most_finalists)
        return Total(longer * (1 + spec.most_finalists), flops, in_hours(flops))

    def in_hours(flops: float) -> float | None:
        return flops / flops_per_second / at_once / 3600 if flops_per_second else None

    expected = total(fmean, likely * share, likely * share)
    return Estimate(
        name=spec.name,
        base=base.name,
        shapes=shapes,
        trials=spec.budget.trials,
        controls=spec.control_rates,
        reaches=reached,
        replicates=spec.replicates,
        steps=spec.steps,
        trial_tokens=trial_tokens,
        eval_tokens=measured,
        rule=spec.stopping.rule,
        at_most=total(max, least, most),
        expected=expected,
        parallel=at_once,
        ranks=setting_of(spec, base, None).ranks,
        checkpointing=setting_of(spec, base, None).checkpointing,
        control_layers=control_layers(spec, base),
        traffic=traffic(spec, base, shapes, expected.flops, auto=auto),
        compiled=spec.trial.recipe.compile,
        flops_per_second=flops_per_second,
        ladder=tuple(Climb(rung, 1 + spec.most_finalists, climb(rung, max)) for rung in spec.budget.ladder),
        runs=planned_runs(spec, trial_tokens, _matched_tokens(spec, shapes)),
        scoring=passes.scoring(in_hours),
    )


@dataclass(frozen=True)
class _Work:
    """FLOPs of a whole trial: of a control, of the baseline, and of each searched size."""

    control: float
    baseline: float
    each: tuple[float, ...]

    def first(self, controls: int) -> float:
        """Of so many controls and the baseline together."""
        return controls * self.control + self.baseline


def _matched_tokens(spec: Spec, shapes: Sequence[Shape]) -> int:
    """Of the original with the FLOPs of the deepest grown model, to a batch; no fewer than a trial's."""
    control, *grown = (shape.cost.flops_per_token for shape in shapes)
    steps = max(spec.steps, round(spec.steps * max(grown, default=control) / control))
    return steps * spec.trial.recipe.batch_tokens


def _work_of(shapes: Sequence[Shape], flops: Sequence[float]) -> _Work:
    control, *each = flops  # the control is the first shape
    baseline = next((one for one, shape in zip(flops, shapes, strict=True) if shape.baseline), control)
    return _Work(control, baseline, tuple(each) or (control,))


def _reaches(
    spec: Spec, trained: _Work, worked: _Work, flops_per_second: float | None, at_once: int
) -> tuple[tuple[Reach, ...], float]:
    """How far each setting of the budget takes the search, and the most searched trials, were all shallow.

    Args:
        spec: of the sweep.
        trained: of training alone, which is what limits of FLOPs and GPU-hours count.
        worked: of training and measuring, which takes time.
        flops_per_second: of one trial; None when it is not known.
        at_once: trials.
    """
    tokens, share = spec.steps * spec.trial.recipe.batch_tokens, expected_share(spec)

    def spends(trials: float, training: float, working: float) -> dict[str, float]:
        known = {"tokens": trials * tokens, "flops": training}
        if flops_per_second:
            known["gpu_hours"] = training / flops_per_second * spec.resources.all_gpus / 3600
            known["wall"] = working / flops_per_second / at_once
        return known

    controls = spec.control_rates
    first = spends(1 + controls, trained.first(controls), worked.first(controls))
    mean = spends(share, share * fmean(trained.each), share * fmean(worked.each))
    deepest = spends(1, max(trained.each), max(worked.each))
    shallowest = spends(1, min(trained.each), min(worked.each))
    fixed = 1 + controls
    most, _ = enough_for(reaches(spec.budget, first, shallowest, mean, fixed=fixed), fixed=fixed)
    return reaches(spec.budget, first, deepest, mean, fixed=fixed), most


def _work(spec: Spec, base: Base, shape: Shape, trained: int, measured: int) -> float:
    """FLOPs of one whole trial. Measuring goes forward only: a third of training everything."""
    plan, sequence = plan_of(shape.injection, base.facts.depth), spec.data.sequence_length
    whole = cost(base, plan, sequence_length=sequence)
    return shape.cost.flops_per_token * trained + whole.flops_per_token / 3 * measured
