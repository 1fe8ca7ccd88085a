"""Selection: seed replicates, differences and a winner from the ledger's records."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from sweeps.records import Role, State, TrialRecord
from sweeps.results.bootstrap import chances
from sweeps.results.caveats import caveats
from sweeps.results.finalists import finalists, flops_per_token, is_done, references
from sweeps.results.paired import Candidate, Difference, difference
from sweeps.results.verdict import Ending, Verdict

__all__ = [
    "Candidate",
    "Difference",
    "Ending",
    "Verdict",
    "verdict",
]


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
        _candidate(record, records, seeds) if record else None for record in references(records)
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


def _value(record: TrialRecord) -> float:
    assert record.value is not None
    return record.value


def _candidate(record: TrialRecord, records: Sequence[TrialRecord], seeds: int) -> Candidate:
    replicates = [r for r in records if r.role is Role.REPLICATE and r.replicate_of == record.number]
    losses = {r.seed: _value(r) for r in [record, *sorted(replicates, key=lambda r: r.seed)] if is_done(r)}
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
        flops_per_token=flops_per_token(record),
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
