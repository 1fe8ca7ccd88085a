"""Selection: finalists, seed replicates, differences and a winner from the ledger's records.

The finalists are chosen by their first seed, which flatters that one loss a little; the replicates' do not.
Where a search tries the original model too (method `none`), the best of those runs is the control: it is
what upscaling is compared with, and never a finalist.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import replace
from statistics import fmean

from sweeps.records import Role, State, TrialRecord
from sweeps.results.bootstrap import chances
from sweeps.results.caveats import caveats
from sweeps.results.paired import Candidate, Difference, difference
from sweeps.results.verdict import Ending, Verdict
from sweeps.spec.equivalence import key, value_at

__all__ = [
    "Candidate",
    "Difference",
    "Ending",
    "Verdict",
    "control_of",
    "finalists",
    "replicates_due",
    "verdict",
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
        if record.role in (Role.BASELINE, Role.SEARCH) and not record.original and _done(record)
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
    """The best complete run of the original model: at the rate that suits it, where the search tried more."""
    originals = (r for r in records if r.original and r.role is not Role.REPLICATE and _done(r))
    return min(originals, key=_rank, default=None)


def replicates_due(
    records: Sequence[TrialRecord], top: int, seeds: int, per: str | None = None, *, depth: int | None = None
) -> list[tuple[int, int]]:
    """Replicates still to be created, as (number of the trial, seed), so that each has `seeds` seeds in all.

    Of the control, the baseline and the finalists; of those, complete ones only. A replicate that exists in
    any state is not due again: one that failed stays failed and the verdict says so. Ask once the search is
    over: before that the finalists may still change. All of one seed come before all of the next, so that an
    interrupted sweep has complete pairs.
    """
    existing = {(record.replicate_of, record.seed) for record in records if record.role is Role.REPLICATE}
    compared = _compared(records, top, per, depth)
    wanted = [(record.number, record.seed + offset) for offset in range(1, seeds) for record in compared]
    return [replicate for replicate in wanted if replicate not in existing]


def verdict(
    records: Sequence[TrialRecord],
    *,
    top: int = 3,
    seeds: int = 3,
    per: str | None = None,
    depth: int | None = None,
) -> Verdict:
    """What the sweep has found so far; can be asked at any time, on any records. `depth` is the base's."""
    others = [record for record in records if not record.ours]
    records = sorted((record for record in records if record.ours), key=lambda record: record.number)
    chosen = [_candidate(record, records, seeds) for record in finalists(records, top, per, depth=depth)]
    control, baseline = (
        _candidate(record, records, seeds) if record else None for record in _references(records)
    )
    compared = [_with_differences(candidate, control, baseline) for candidate in _ranked(chosen)]
    for place, other in enumerate(compared[1:], start=1):
        compared[place] = replace(other, against_winner=difference(other.losses, compared[0].losses))
    chance = chances({c.number: c.losses for c in (*compared, control, baseline) if c and not c.failed_seeds})
    compared = [replace(candidate, chance_best=chance.get(candidate.number)) for candidate in compared]
    control, baseline = (
        replace(each, chance_best=chance.get(each.number)) if each else None for each in (control, baseline)
    )
    candidates = compared[:1] + [other for other in compared[1:] if _is_tie(other, compared[0])]
    originals = [record for record in records if record.role is not Role.REPLICATE]
    return Verdict(
        finalists=tuple(compared),
        control=control,
        baseline=_with_differences(baseline, control, None) if baseline else None,
        best=_cheapest(candidates),
        winner=candidates[0].number if candidates else None,
        tied=tuple(other.number for other in candidates[1:]),
        counts=_count(originals),
        replicates=_count([record for record in records if record.role is Role.REPLICATE]),
        others=_count(others),
        stopped=tuple(_ending(record) for record in records if record.state is State.PRUNED),
        failed=tuple(_ending(record) for record in records if record.state is State.FAIL),
        warnings=caveats(originals, compared, control, baseline),
    )


def _done(record: TrialRecord) -> bool:
    return record.state is State.COMPLETE and record.value is not None and math.isfinite(record.value)


def _value(record: TrialRecord) -> float:
    assert record.value is not None
    return record.value


def _rank(record: TrialRecord) -> tuple[float, float, int]:
    return _value(record), _flops_per_token(record) or math.inf, record.number


def _flops_per_token(record: TrialRecord) -> float | None:
    return record.flops / record.tokens if record.flops and record.tokens else None


def _compared(
    records: Sequence[TrialRecord], top: int, per: str | None, depth: int | None
) -> list[TrialRecord]:
    """Control, baseline, finalists: each once, complete ones only."""
    found = [*_references(records), *finalists(records, top, per, depth=depth)]
    return list({record.number: record for record in found if record}.values())


def _references(records: Sequence[TrialRecord]) -> tuple[TrialRecord | None, TrialRecord | None]:
    """The control and the baseline, where they are complete."""
    baseline = next((r for r in records if r.role is Role.BASELINE and _done(r)), None)
    return control_of(records), baseline


def _candidate(record: TrialRecord, records: Sequence[TrialRecord], seeds: int) -> Candidate:
    replicates = [r for r in records if r.role is Role.REPLICATE and r.replicate_of == record.number]
    losses = {r.seed: _value(r) for r in [record, *sorted(replicates, key=lambda r: r.seed)] if _done(r)}
    # A replicate that ended any other way than with a finite loss has failed, whatever its state is called.
    failed = {
        r.seed: r.reason or f"no finite loss at step {r.step}"
        for r in replicates
        if r.state.finished and r.seed not in losses
    }
    wanted = range(record.seed, record.seed + seeds)
    return Candidate(
        number=record.number,
        role=record.role,
        params=dict(record.params),
        settings=dict(record.settings),
        losses=losses,
        initial_loss=_finite(record.initial_loss),
        flops_per_token=_flops_per_token(record),
        failed_seeds=failed,
        open_seeds=tuple(seed for seed in wanted if seed not in losses and seed not in failed),
    )


def _ranked(candidates: list[Candidate]) -> list[Candidate]:
    """By mean loss over the seeds that all share; those that failed under some seed after those that did not.

    Means over different seeds would compare the seeds. Those with a failure are left out of the sharing too,
    or one failed replicate would cost every other finalist that seed.
    """
    steady = [candidate for candidate in candidates if not candidate.failed_seeds] or candidates
    shared = set.intersection(*(set(candidate.losses) for candidate in steady)) if steady else set()

    def key(candidate: Candidate) -> tuple[bool, float, float, int]:
        seeds = shared & candidate.losses.keys() or candidate.losses.keys()
        loss = fmean(candidate.losses[seed] for seed in seeds)
        return candidate not in steady, loss, candidate.flops_per_token or math.inf, candidate.number

    return sorted(candidates, key=key)


def _with_differences(ours: Candidate, control: Candidate | None, baseline: Candidate | None) -> Candidate:
    return replace(
        ours,
        against_control=difference(ours.losses, control.losses) if control else None,
        against_baseline=(
            difference(ours.losses, baseline.losses) if baseline and baseline.number != ours.number else None
        ),
    )


def _is_tie(other: Candidate, winner: Candidate) -> bool:
    """Whether an interval exists and holds 0. With one seed nothing is known, which is not a tie."""
    delta = other.against_winner
    if delta is None or delta.half_width is None or (other.failed_seeds and not winner.failed_seeds):
        return False
    return not delta.significant


def _cheapest(candidates: list[Candidate]) -> int | None:
    """The fewest FLOPs per token; the earlier of equals, and the first when some cost is not known."""
    if not candidates:
        return None
    if any(candidate.flops_per_token is None for candidate in candidates):
        return candidates[0].number
    return min(candidates, key=lambda candidate: candidate.flops_per_token or 0.0).number


def _count(records: Sequence[TrialRecord]) -> dict[str, int]:
    found = Counter(record.state.value for record in records)
    return {state.value: found[state.value] for state in State}


def _ending(record: TrialRecord) -> Ending:
    return Ending(record.number, record.role, record.step, record.steps, _finite(record.loss), record.reason)


def _finite(loss: float | None) -> float | None:
    return loss if loss is not None and math.isfinite(loss) else None
