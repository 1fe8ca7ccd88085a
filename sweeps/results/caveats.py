"""Caveats of a verdict: what is missing, not shown, or went wrong."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from sweeps.records import Role, State, TrialRecord
from sweeps.results.paired import Candidate


def caveats(
    originals: Sequence[TrialRecord],
    finalists: Sequence[Candidate],
    control: Candidate | None,
    baseline: Candidate | None,
) -> tuple[str, ...]:
    """One sentence each, most important first. `originals` are the trials without the replicates."""
    return (
        *_nothing_found(originals, finalists),
        *_missing(originals, finalists, Role.CONTROL, control),
        *_missing(originals, finalists, Role.BASELINE, baseline),
        *_against_control(finalists),
        *_seeds(finalists, control, baseline),
        *_rising(originals),
    )


def _nothing_found(originals: Sequence[TrialRecord], finalists: Sequence[Candidate]) -> Iterator[str]:
    if finalists:
        return
    reasons = Counter(
        record.reason or "no reason recorded" for record in originals if record.state is State.FAIL
    )
    common = f"; most failures: {reasons.most_common(1)[0][0]}" if reasons else ""
    yield f"no upscaled trial has finished with a finite loss, so there is no best one{common}"


def _missing(
    originals: Sequence[TrialRecord], finalists: Sequence[Candidate], role: Role, found: Candidate | None
) -> Iterator[str]:
    if found or not finalists:
        return
    record = next((record for record in originals if record.role is role), None)
    if record is None:
        yield f"there is no {role}: nothing is compared with it"
        return
    fates = {
        State.FAIL: f"failed ({record.reason or 'no reason recorded'})",
        State.PRUNED: f"was stopped at step {record.step}",
        State.COMPLETE: "ended without a finite loss",
    }
    fate = fates.get(record.state, "has not finished yet")
    yield f"the {role} (trial {record.number}) {fate}: nothing is compared with it"


def _against_control(finalists: Sequence[Candidate]) -> Iterator[str]:
    if not finalists or finalists[0].against_control is None:
        return
    winner, delta = finalists[0].number, finalists[0].against_control
    if delta.half_width is None:
        return  # said once for everything by `_seeds`
    if not delta.significant:
        yield (
            f"trial {winner} is not shown to differ from the control: its difference is {delta.mean:+.4f} "
            f"± {delta.half_width:.4f} (n={delta.n}); more seeds or a larger budget may decide"
        )
    elif delta.mean > 0:
        yield (
            f"the control is better than trial {winner}, the best upscaled one, by {delta.mean:.4f} "
            f"± {delta.half_width:.4f} (n={delta.n}): at this budget, train the original on as it is"
        )


def _seeds(
    finalists: Sequence[Candidate], control: Candidate | None, baseline: Candidate | None
) -> Iterator[str]:
    compared = {candidate.number: candidate for candidate in [*finalists, control, baseline] if candidate}
    if finalists and len(finalists[0].losses) == 1:
        yield "one seed: no intervals, so small differences between trials may be chance"
    for candidate in compared.values():
        for seed, reason in candidate.failed_seeds.items():
            yield f"the replicate of trial {candidate.number} with seed {seed} failed: {reason}"
    for finalist in finalists[1:]:
        if finalist.failed_seeds and not finalists[0].failed_seeds and finalist.mean < finalists[0].mean:
            yield f"trial {finalist.number} has a lower mean than the winner, but failed under some seed"
    waiting = [str(candidate.number) for candidate in compared.values() if candidate.open_seeds]
    if waiting:
        yield f"not all seeds have finished yet, so this may change: trials {', '.join(waiting)}"


def _rising(originals: Sequence[TrialRecord]) -> Iterator[str]:
    """Trials that ended, or were stopped, above their own initial loss, with the likely reason."""
    ended = [record for record in originals if record.state in (State.COMPLETE, State.PRUNED)]
    rising = [record for record in ended if _rose(record)]
    if not rising:
        return
    numbers = ", ".join(str(record.number) for record in rising)
    subject = f"{'trial' if len(rising) == 1 else 'trials'} {numbers} ended above the initial loss"
    control = next((record for record in rising if record.role is Role.CONTROL), None)
    if control is not None:
        yield (
            f"{subject}, the control too ({control.initial_loss:.4f} to {control.loss:.4f}): the base looks "
            "annealed (its learning rate had decayed before it was saved), and short trials then only undo "
            "that; use a base saved before the decay, a larger budget or a lower learning rate"
        )
        return
    rates = _rates(rising)
    falling = _rates([record for record in ended if not _rose(record)])
    if rates and falling and max(falling) < min(rates):
        yield f"{subject}: learning rate too high ({min(rates):.2g} and up rose, {max(falling):.2g} fell)"
    else:
        span = f" ({min(rates):.2g} to {max(rates):.2g})" if rates else ""
        yield f"{subject}: the learning rate{span} is likely too high for this budget"


def _rose(record: TrialRecord) -> bool:
    first, last = record.initial_loss, record.loss
    if first is None or last is None or record.step == 0:
        return False
    return math.isfinite(first) and math.isfinite(last) and last > first


def _rates(records: Sequence[TrialRecord]) -> list[float]:
    """The learning rates they ran with, where their settings have one."""
    recipes = [record.settings.get("recipe") for record in records]
    found = [recipe.get("learning_rate") for recipe in recipes if isinstance(recipe, Mapping)]
    return [float(rate) for rate in found if isinstance(rate, int | float)]
