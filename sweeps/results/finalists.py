"""Which trials run again: the finalists, the best control, and their runs under fresh seeds.

The finalists are chosen by the loss of their own seed, which flatters it a little; fresh seeds do not.
Where a search tries the original model too (method `none`), the best of those runs is the control: it is
what upscaling is compared with, and never a finalist.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from statistics import fmean
from typing import Any

from sweeps.records import Role, State, TrialRecord
from sweeps.spec.equivalence import key, replaced, value_at

__all__ = [
    "control_of",
    "finalists",
    "flops_per_token",
    "is_done",
    "matched_due",
    "references",
    "replicates_due",
    "runs_due",
    "winner_of",
]


def finalists(
    records: Sequence[TrialRecord], top: int, per: str | None = None, *, depth: int | None = None
) -> list[TrialRecord]:
    """The best `top` different configurations among the complete baseline and searched trials, best first.

    Different is what trains another model, or in another way (`sweeps.spec.equivalence`); of trials that do
    not differ the best stands for all, or the baseline where it is one of them. With `per`, the best of
    each value of a setting; trials on which it has no effect are one group more. Equal losses are ordered
    by cost, then by number. A loss that is not finite is no candidate, nor is the original model.

    Args:
        records: of the sweep.
        top: how many.
        per: the dotted path of a setting, or None for the best of all.
        depth: layers of the base, where they are known.
    """
    candidates = [
        record
        for record in records
        if record.role in (Role.BASELINE, Role.SEARCH) and not record.original and is_done(record)
    ]
    first = next((record for record in candidates if record.role is Role.BASELINE), None)
    baseline = {key(first.settings, depth): first} if first is not None else {}
    chosen: dict[Hashable, TrialRecord] = {}
    for record in sorted(candidates, key=_rank):
        if per is None and len(chosen) == top:
            break
        what = key(record.settings, depth)
        chosen.setdefault(what, baseline.get(what, record))
    taken: Counter[str] = Counter()
    best = []
    for record in sorted(chosen.values(), key=_rank):
        value = repr(value_at(record.settings, per)) if per else ""
        taken[value] += 1
        best += [record] if taken[value] <= top else []
    return best


def control_of(records: Sequence[TrialRecord]) -> TrialRecord | None:
    """The best complete run of the original model under the search's seed: at the rate that suits it."""
    originals = (r for r in records if r.original and not r.role.fresh and is_done(r))
    return min(originals, key=_rank, default=None)


def replicates_due(
    records: Sequence[TrialRecord], top: int, seeds: int, per: str | None = None, *, depth: int | None = None
) -> list[tuple[int, int]]:
    """Replicates still to be created, as (number of the trial, seed), so that each has `seeds` fresh seeds.

    Of the best control, the baseline and the finalists, under the same seeds: those after the search's own.
    Of those, complete ones only. A replicate that exists in any state is not due again: one that failed stays
    failed and the verdict says so. Ask once the search is over: before that the finalists may still change.
    All of one seed come before all of the next, so that an interrupted sweep has complete pairs.
    """
    existing = {(record.replicate_of, record.seed) for record in records if record.role is Role.REPLICATE}
    compared = _compared(records, top, per, depth)
    wanted = [(record.number, record.seed + offset) for offset in range(1, seeds + 1) for record in compared]
    return [replicate for replicate in wanted if replicate not in existing]


def winner_of(
    records: Sequence[TrialRecord], top: int, per: str | None = None, *, depth: int | None = None
) -> TrialRecord | None:
    """The finalist with the lowest mean validation loss over fresh seeds; None before any has one.

    Means over different seeds would compare the seeds, so they are of those that all share that failed under
    none; finalists that failed under some come after those. Of equals the cheaper, then the earlier.
    """
    found = [(record, _fresh_losses(record, records)) for record in finalists(records, top, per, depth=depth)]
    found = [(record, losses) for record, losses in found if losses]
    steady = [record.number for record, _ in found if not _has_failed(record, records)]
    sharing = [losses for record, losses in found if record.number in steady or not steady]
    shared = set.intersection(*map(set, sharing)) if sharing else set()

    def rank(each: tuple[TrialRecord, dict[int, float]]) -> tuple[bool, float, float, int]:
        record, losses = each
        mean = fmean(losses[seed] for seed in shared & losses.keys() or losses.keys())
        return record.number not in steady, mean, flops_per_token(record) or math.inf, record.number

    return min(found, key=rank)[0] if found else None


def matched_due(
    records: Sequence[TrialRecord], top: int, seeds: int, per: str | None = None, *, depth: int | None = None
) -> list[tuple[int, dict[str, Any]]]:
    """Compute-matched controls still to be created, as (number of the winner, settings with the seed).

    The best control's settings with as many tokens, in whole batches, as the winner's FLOPs pay for; one run
    under each fresh seed. None where the winner costs no more than the control, or a cost is not known. One
    that exists in any state is not due again. Ask once all replicates have ended.
    """
    winner, control = winner_of(records, top, per, depth=depth), control_of(records)
    if winner is None or control is None or (steps := _matched_steps(winner, control)) <= control.steps:
        return []
    tokens = steps * control.settings["recipe"]["batch_tokens"]
    existing = [r.settings for r in records if r.role is Role.MATCHED and r.replicate_of == winner.number]
    fresh = range(control.seed + 1, control.seed + seeds + 1)
    wanted = [replaced(control.settings, {"recipe.tokens": tokens, "seed": seed}) for seed in fresh]
    return [(winner.number, settings) for settings in wanted if settings not in existing]


def runs_due(
    records: Sequence[TrialRecord],
    top: int,
    seeds: int,
    per: str | None = None,
    *,
    matched: bool,
    depth: int | None = None,
) -> int:
    """The most runs under fresh seeds still to be created, once the search is over.

    Args:
        records: of the sweep.
        top: how many finalists there are.
        seeds: fresh ones of each.
        per: the setting of which each value has its own finalists, or None.
        matched: whether there are compute-matched controls.
        depth: layers of the base, where they are known.
    """
    due = len(replicates_due(records, top, seeds, per, depth=depth))
    control = control_of(records)
    if not matched or control is None:
        return due
    chosen = finalists(records, top, per, depth=depth)
    dearer = any(_matched_steps(record, control) > control.steps for record in chosen)
    return due + max(0, seeds * dearer - sum(record.role is Role.MATCHED for record in records))


def _matched_steps(winner: TrialRecord, control: TrialRecord) -> int:
    """The steps that the control makes with the FLOPs that the winner spends; 0 where a cost is not known."""
    theirs, own = flops_per_token(winner), flops_per_token(control)
    return round(control.steps * theirs / own) if theirs and own else 0


def _fresh_losses(record: TrialRecord, records: Sequence[TrialRecord]) -> dict[int, float]:
    """Validation losses of a trial's replicates by seed."""
    return {r.seed: _value(r) for r in _replicates(record, records) if is_done(r)}


def _has_failed(record: TrialRecord, records: Sequence[TrialRecord]) -> bool:
    """Whether a replicate has ended without a finite loss, whatever its state is called."""
    return any(r.state.finished and not is_done(r) for r in _replicates(record, records))


def _replicates(record: TrialRecord, records: Sequence[TrialRecord]) -> list[TrialRecord]:
    return [r for r in records if r.role is Role.REPLICATE and r.replicate_of == record.number]


def is_done(record: TrialRecord) -> bool:
    """Whether a trial is complete with a finite loss."""
    return record.state is State.COMPLETE and record.value is not None and math.isfinite(record.value)


def _value(record: TrialRecord) -> float:
    assert record.value is not None
    return record.value


def _rank(record: TrialRecord) -> tuple[float, float, int]:
    return _value(record), flops_per_token(record) or math.inf, record.number


def flops_per_token(record: TrialRecord) -> float | None:
    """What a trial has spent on one training token; None where that is not known."""
    return record.flops / record.tokens if record.flops and record.tokens else None


def _compared(
    records: Sequence[TrialRecord], top: int, per: str | None, depth: int | None
) -> list[TrialRecord]:
    """Control, baseline, finalists: each once, complete ones only."""
    found = [*references(records), *finalists(records, top, per, depth=depth)]
    return list({record.number: record for record in found if record}.values())


def references(records: Sequence[TrialRecord]) -> tuple[TrialRecord | None, TrialRecord | None]:
    """The control and the baseline, where they are complete."""
    baseline = next((r for r in records if r.role is Role.BASELINE and is_done(r)), None)
    return control_of(records), baseline
