"""What scoring on downstream tasks adds to a sweep: how many models, and what goes through them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweeps.checks.shapes import Shape, plan_of
from sweeps.checks.totals import Total
from sweeps.errors import InputError
from sweeps.spec import Spec
from tli.growth.cost import cost
from tli.models.base import Base

if TYPE_CHECKING:
    from tli.tasks.sizes import TaskSize

Of = Callable[[Sequence[float]], float]


@dataclass(frozen=True)
class Scoring:
    """What is scored, at most.

    Attributes:
        models: how many, by what they are: `finalists` (with the baseline), `control`, `base`, and `search`,
            whose models are scored on the task alone that the search goes by.
        tasks: each with its documents, sequences and tokens; empty where those are not known.
        sequences: that go through all models together; None where they are not known.
        total: of all: tokens that go forward, FLOPs and hours; part of the totals of the sweep but for the
            tokens, which are trained there. None where the sizes of the tasks are not known.
    """

    models: Mapping[str, int]
    tasks: tuple[TaskSize, ...] = ()
    sequences: int | None = None
    total: Total | None = None

    @property
    def count(self) -> int:
        """Models in all."""
        return sum(self.models.values())


def models_scored(spec: Spec) -> dict[str, int]:
    """How many models a sweep scores at most, by what they are; none without tasks."""
    if not spec.evaluation.tasks:
        return {}
    on, seeds = spec.evaluation.on, spec.finalists.seeds
    found = {
        "finalists": (spec.most_finalists + 1) * seeds * ("finalists" in on),
        "control": (1 + spec.control.matched) * seeds * ("control" in on),
        "base": int("base" in on),
        "search": spec.budget.trials * (spec.objective.scored is not None),
    }
    return {name: number for name, number in found.items() if number}


def task_sizes(spec: Spec, base: Base) -> tuple[TaskSize, ...]:
    """What goes through a model that is scored on each task; empty without tasks, and where the base has no
    tokenizer on this machine.

    The harness is loaded, which takes it seconds.

    Args:
        spec: checked, so its tasks are known and their data is there.
        base: whose tokenizer every model of the sweep has.
    """
    if not spec.evaluation.tasks:
        return ()
    from tli.models.loading import load_tokenizer
    from tli.tasks.harness import Harness
    from tli.tasks.sizes import size_of

    try:
        tokenizer = load_tokenizer(base.folder)
    except InputError:
        return ()
    wanted = spec.evaluation.to_tli()
    harness = Harness(wanted, "evaluation.tasks")
    return tuple(size_of(harness, tokenizer, name, base.facts.context) for name in wanted.names)


class Passes:
    """FLOPs of the forward passes of scoring one model, by its size."""

    def __init__(self, spec: Spec, base: Base, shapes: Sequence[Shape], tasks: Sequence[TaskSize]) -> None:
        """Count them.

        Args:
            spec: of the sweep.
            base: its base; only headers and configuration are read.
            shapes: every size of its models, the control's first.
            tasks: each with its sequences and tokens.
        """
        aim = spec.objective.scored[0] if spec.objective.scored is not None else ""
        self._spec, self._tasks, self._models = spec, tuple(tasks), models_scored(spec)
        self._aimed = [each for each in tasks if each.task == aim]
        self._each = forward_flops(base, shapes, tasks)
        self._searched = forward_flops(base, shapes, self._aimed)
        self._baseline = next((place for place, shape in enumerate(shapes) if shape.baseline), 0)

    def flops(self, of: Of) -> float:
        """Of all models.

        Args:
            of: what grown models cost of what each size does: `max`, or their mean.
        """
        if not self._tasks:
            return 0.0
        seeds, found, grown = self._spec.finalists.seeds, self._models, self._grown
        flops = (found.get("control", 0) + found.get("base", 0)) * self._each[0]
        if "finalists" in found:
            flops += seeds * (self._each[self._baseline] + self._spec.most_finalists * of(grown(self._each)))
        if "search" in found:
            controls = self._spec.control_rates
            flops += controls * self._searched[0] + self._searched[self._baseline]
            flops += (found["search"] - controls - 1) * of(grown(self._searched))
        return flops

    def scoring(self, in_hours: Callable[[float], float | None]) -> Scoring | None:
        """All of it, were all grown models as deep as the deepest; None where nothing is scored.

        Args:
            in_hours: how long FLOPs take.
        """
        if not self._models:
            return None
        if not self._tasks:
            return Scoring(self._models)
        searched = self._models.get("search", 0)
        others = sum(self._models.values()) - searched
        tokens = others * _tokens(self._tasks) + searched * _tokens(self._aimed)
        sequences = others * _sequences(self._tasks) + searched * _sequences(self._aimed)
        flops = self.flops(max)
        return Scoring(self._models, self._tasks, sequences, Total(tokens, flops, in_hours(flops)))

    @staticmethod
    def _grown(flops: Sequence[float]) -> Sequence[float]:
        """Of the sizes that grown models have; of the control's where there is no other."""
        return flops[1:] or flops


def forward_flops(base: Base, shapes: Sequence[Shape], tasks: Sequence[TaskSize]) -> list[float]:
    """FLOPs of one model of each size on all tasks: forward only is a third of training everything."""
    tokens, sequences = _tokens(tasks), _sequences(tasks)
    if not tokens:
        return [0.0] * len(shapes)
    mean = max(1, round(tokens / max(1, sequences)))
    plans = (plan_of(shape.injection, base.facts.depth) for shape in shapes)
    return [cost(base, plan, sequence_length=mean).flops_per_token / 3 * tokens for plan in plans]


def _tokens(tasks: Sequence[TaskSize]) -> int:
    return sum(each.tokens for each in tasks)


def _sequences(tasks: Sequence[TaskSize]) -> int:
    return sum(each.sequences for each in tasks)
