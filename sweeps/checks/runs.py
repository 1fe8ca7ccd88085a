"""The runs of a sweep by what they are for: how many there are at most, and how long one of them trains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sweeps.records import Role
from sweeps.spec import Spec
from sweeps.text import counted, short

# Roles of which a spec says nothing: long runs are asked for by `sweeps promote`, others by other programs.
NOT_PLANNED = frozenset({Role.PROMOTION, Role.PROMOTED_CONTROL, Role.OTHER})


@dataclass(frozen=True)
class Runs:
    """Runs of one kind.

    Attributes:
        role: as records have it.
        what: what they are for, in words.
        count: at most.
        tokens: that one of them trains on, at most.
    """

    role: Role
    what: str
    count: int
    tokens: int


def planned_runs(spec: Spec, trial_tokens: int, matched_tokens: int) -> tuple[Runs, ...]:
    """Every run that a sweep makes, in the order in which they begin; kinds of which there are none left out.

    Args:
        spec: of the sweep.
        trial_tokens: of a whole trial, in whole batches.
        matched_tokens: of the original with the FLOPs of the deepest grown model, likewise; 0 where no run is
            made for that.
    """
    return tuple(each for each in _runs(spec, trial_tokens, matched_tokens) if each.count)


def _runs(spec: Spec, tokens: int, matched: int) -> Iterator[Runs]:
    controls, seeds, top = spec.control_rates, spec.finalists.seeds, spec.most_finalists
    at = f", at {controls} learning rates" if controls > 1 else ""
    yield Runs(Role.CONTROL, f"the original, trained on{at}", controls, tokens)
    yield Runs(Role.BASELINE, "the baseline, the spec's trial as it is", 1, tokens)
    yield Runs(Role.SEARCH, "searched trials", max(0, spec.budget.trials - controls - 1), tokens)
    fresh = f"again under {counted(seeds, 'fresh seed')}"
    yield Runs(Role.REPLICATE, f"{counted(top, 'finalist')}, {fresh}", top * seeds, tokens)
    yield Runs(Role.REPLICATE, f"the control and the baseline, {fresh}", 2 * seeds, tokens)
    if spec.control.matched and matched:
        under = f"under {counted(seeds, 'fresh seed')}"
        yield Runs(Role.MATCHED, f"the original with the winner's FLOPs, {under}", seeds, matched)
    batch = spec.trial.recipe.batch_tokens
    for rung in spec.budget.ladder:
        whole = -(-rung // batch) * batch
        yield Runs(Role.RUNG, f"finalists and control with {short(rung)} tokens", 1 + top, whole)
    if spec.evaluation.tasks and "base" in spec.evaluation.on:
        yield Runs(Role.EVALUATION, "the base as it is, scored on the tasks", 1, 0)
