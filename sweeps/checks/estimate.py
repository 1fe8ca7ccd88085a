"""What a sweep would cost, before anything runs: sizes, arithmetic, memory and, once measured, hours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from sweeps.checks.budget import Reach, enough_for, reaches
from sweeps.checks.estimated import Estimate
from sweeps.checks.measured import measured_tokens, tokens_of_the_test
from sweeps.checks.placement import slots, this_machine
from sweeps.checks.runs import planned_runs
from sweeps.checks.scoring import Passes
from sweeps.checks.shapes import (
    Shape,
    control_layers,
    plan_of,
    searched_shapes,
    setting_of,
    shape_of,
)
from sweeps.checks.speeds import traffic
from sweeps.checks.totals import Climb, Total, expected_share
from sweeps.spec import Spec
from tli.growth.cost import cost
from tli.models.base import Base

if TYPE_CHECKING:
    from tli.tasks.sizes import TaskSize


__all__ = ["Estimate", "estimate"]


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
        matched = _matched_tokens(spec, shapes, of) if spec.control.matched else 0
        again = spec.most_finalists + (matched > 0)
        flops = worked.first(spec.control_rates) + of(worked.each) * searched
        flops += seeds * (fresh.first(1) + of(fresh.each) * again)
        whole = fixed + of_tokens + seeds * (2 + spec.most_finalists)
        climbs = [climb(rung, of) for rung in spec.budget.ladder]
        flops += sum(each.flops for each in climbs) + passes.flops(of)
        tokens = round(whole * trial_tokens) + seeds * matched + sum(each.tokens for each in climbs)
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
        runs=planned_runs(spec, trial_tokens, _matched_tokens(spec, shapes, max)),
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


def _matched_tokens(spec: Spec, shapes: Sequence[Shape], of: Callable[[Sequence[float]], float]) -> int:
    """Of the original with the FLOPs of what `of` makes of all grown models, to a batch, as runs have them; 0
    where those spend no more than a trial of the original, which no run is made for then.
    """
    control, *grown = (shape.cost.flops_per_token for shape in shapes)
    steps = round(spec.steps * of(grown or [control]) / control)
    return steps * spec.trial.recipe.batch_tokens if steps > spec.steps else 0


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
