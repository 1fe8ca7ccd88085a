"""Which trials run again: the finalists, the best control, and their runs under fresh seeds.

The finalists are chosen by the loss of their own seed, which flatters it a little; fresh seeds do not.
Where a search tries the original model too (method `none`), the best of those runs is the control: it is
what upscaling is compared with, and never a finalist.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence

from sweeps.records import Role, State, TrialRecord
from sweeps.results.layers import along_front, flops_per_token, is_front, may_be_chosen
from sweeps.spec.equivalence import key, value_at

__all__ = [
    "control_of",
    "finalists",
    "flops_per_token",
    "is_done",
    "may_be_finalists",
    "references",
    "replicates_due",
]


def finalists(
    records: Sequence[TrialRecord], top: int, per: str | None = None, *, depth: int | None = None
) -> list[TrialRecord]:
    """The best `top` different configurations among the complete baseline and searched trials, best first.

    Different is what trains another model, or in another way (`sweeps.spec.equivalence`); of trials that do
    not differ the best stands for all, or the baseline where it is one of them. With `per`, the best of
    each value of a setting; trials on which it has no effect are one group more. With a cost or a task's
    score in its place they lie along the front of losses against it (`sweeps.results.layers`). Best is the
    lowest loss, or the best score where the search goes by a task alone, then the lowest loss; equal ones
    are ordered by FLOPs, then by number. A loss that is not finite is no candidate, nor is the original.

    Args:
        records: of the sweep.
        top: how many.
        per: the dotted path of a setting, the name of a cost or a score, or None for the best of all.
        depth: layers of the base, where they are known.
    """
    ranked = _different(records, top if per is None else None, depth)
    if per is not None and is_front(per):
        return along_front(ranked, per, top)
    taken: Counter[str] = Counter()
    best = []
    for record in ranked:
        value = repr(value_at(record.settings, per)) if per else ""
        taken[value] += 1
        best += [record] if taken[value] <= top else []
    return best


def may_be_finalists(
    records: Sequence[TrialRecord], top: int, per: str | None = None, *, depth: int | None = None
) -> list[TrialRecord]:
    """The finalists, and what may become one once more trials have ended; arguments as for `finalists`."""
    if per is not None and is_front(per):
        return may_be_chosen(_different(records, None, depth), per, top)
    return finalists(records, top, per, depth=depth)


def _different(records: Sequence[TrialRecord], most: int | None, depth: int | None) -> list[TrialRecord]:
    """Configurations that differ, each by one trial, the best first; of many the best."""
    candidates = [
        record
        for record in records
        if record.role in (Role.BASELINE, Role.SEARCH) and not record.original and is_done(record)
    ]
    first = next((record for record in candidates if record.role is Role.BASELINE), None)
    baseline = {key(first.settings, depth): first} if first is not None else {}
    chosen: dict[Hashable, TrialRecord] = {}
    for record in sorted(candidates, key=_rank):
        if len(chosen) == most:
            break
        what = key(record.settings, depth)
        chosen.setdefault(what, baseline.get(what, record))
    return sorted(chosen.values(), key=_rank)


def control_of(records: Sequence[TrialRecord]) -> TrialRecord | None:
    """The best complete run of the original model under the search's seed: at the rate that suits it, by
    what the search goes by.
    """
    originals = (r for r in records if r.original and not r.role.after and is_done(r))
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


def is_done(record: TrialRecord) -> bool:
    """Whether a trial is complete with a finite loss."""
    return record.state is State.COMPLETE and record.value is not None and math.isfinite(record.value)


def _value(record: TrialRecord) -> float:
    assert record.minimised is not None
    return record.minimised


def _rank(record: TrialRecord) -> tuple[float, float, float, int]:
    assert record.value is not None
    return _value(record), record.value, flops_per_token(record) or math.inf, record.number


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
