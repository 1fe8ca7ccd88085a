"""Caveats of a verdict: what is missing, not shown, or went wrong."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from sweeps.plausible import implausible
from sweeps.records import Role, State, TrialRecord
from sweeps.results.answer import Answer
from sweeps.results.candidates import Candidate
from sweeps.results.margin import margin_of
from sweeps.results.winner import Compared
from sweeps.text import digits_apart, figures_apart, these

_WIDE = 3.0  # times what another seed moves a loss by


def caveats(
    originals: Sequence[TrialRecord], known: Compared, matched: Candidate | None, answer: Answer
) -> tuple[str, ...]:
    """One sentence each, most important first. `originals` are the trials of the search."""
    return (
        *_nothing_found(originals, known.finalists),
        *_missing(originals, known.finalists, Role.CONTROL, known.control),
        *_missing(originals, known.finalists, Role.BASELINE, known.baseline),
        *_limits(answer),
        *_part_of_the_original(known.control),
        *margin_doubts(known),
        *_seeds(known, matched),
        *_other_on_test(known),
        *_rising(originals),
    )


def foreign(records: Sequence[TrialRecord]) -> Iterator[str]:
    """Trials of other programs whose values can hardly be losses. `records` are all in the study."""
    if strange := sorted(implausible(records)):
        their = "its value" if len(strange) == 1 else "their values"
        yield (
            f"{these('trial', strange)} of other programs: {their} can hardly be of this sweep (below 0, no "
            "number, or far outside of all that was measured), and the Gaussian process does without"
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


def _limits(answer: Answer) -> Iterator[str]:
    """What the answer does not rest on, where that is not said by a missing trial."""
    if answer.grown is None:
        return
    if answer.equal_tokens is not None and "no compute-matched control" in answer.limits:
        yield (
            f"no original was trained with the FLOPs of trial {answer.grown}: after equal tokens it has "
            "spent more than the control"
        )
    if "control's rate not found" in answer.limits:
        yield (
            "the control's best learning rate is not known: grown models were trained at rates beyond it, on "
            "a side where it had none, so growing is not claimed; control.rates gives it more, at most a "
            "quarter of budget.trials"
        )
    if "validation loss" in answer.limits:
        yield "no test loss was measured: the losses that are compared are those that the search chose by"


def _part_of_the_original(control: Candidate | None) -> Iterator[str]:
    """What a control does not show that trains a few layers, for want of memory."""
    if control is not None and control.settings.get("recipe", {}).get("train", "all") != "all":
        yield (
            "the control trains as many of the original's own layers as the baseline has new ones "
            "(control.train: layers): how well the original does when all of it is trained is not known"
        )


def margin_doubts(known: Compared) -> Iterator[str]:
    """A margin of the spec that is above all that training gained, or far above what another seed does."""
    nats, control = known.margin.nats, known.control
    if known.margin.source != "spec" or control is None:
        return
    gain = (control.initial_loss or control.mean) - control.mean
    noise = 2 * margin_of(known.everyone, None).nats  # the data's margin is half of what a seed does
    shown = f"the margin of {nats:.{digits_apart([nats])}f} nats"
    if 0 < gain <= nats:
        yield (
            f"{shown} is above all that training gained the control, {gain:.{digits_apart([gain])}f} nats: "
            "what learned nothing counts as equally good"
        )
    elif noise and nats > _WIDE * noise:
        times = f"{nats / noise:.0f} times what another seed moves a loss by"
        yield f"{shown} is {times}, so it may hide what is real"


def _seeds(known: Compared, matched: Candidate | None) -> Iterator[str]:
    compared = [*known.everyone, *([matched] if matched else [])]
    if known.finalists and not known.finalists[0].fresh:
        yield "no fresh seed yet: every loss is that of the seed that chose it, and nothing is claimed"
    elif known.finalists and len(known.finalists[0].fresh) == 1:
        yield "one fresh seed: no intervals, so small differences between trials may be chance"
    for candidate in compared:
        what = f"the replicate of trial {candidate.number}"
        if candidate is matched:
            what = f"the compute-matched control of trial {known.finalists[0].number}"
        for seed, reason in candidate.failed_seeds.items():
            yield f"{what} with seed {seed} failed: {reason}"
    for finalist in known.finalists[1:]:
        first = known.finalists[0]
        if finalist.failed_seeds and not first.failed_seeds and finalist.mean < first.mean:
            yield f"trial {finalist.number} has a lower mean than the best, but failed under some seed"
    waiting = [candidate.number for candidate in compared if candidate.open_seeds]
    if waiting:
        yield f"not all seeds have finished yet, so this may change: {these('trial', waiting)}"


def _other_on_test(known: Compared) -> Iterator[str]:
    """A finalist whose test loss is lower than the winner's under every seed that they share."""
    if not known.finalists:
        return
    first, *others = known.finalists
    for other in others:
        shared = sorted(first.test_losses.keys() & other.test_losses.keys())
        if len(shared) > 1 and all(other.test_losses[seed] < first.test_losses[seed] for seed in shared):
            chose = f"validation loss chose (means {first.mean:.5f} and {other.mean:.5f})"
            if first.score is not None and other.score is not None:
                name = next(each.name for each in first.scores.values())
                chose = f"{name} chose (means {first.score:.4f} and {other.score:.4f})"
            yield (
                f"trial {other.number} has a lower test loss than trial {first.number} under each of "
                f"{len(shared)} seeds; {chose}, since what test text chooses it can claim nothing about"
            )


def _rising(originals: Sequence[TrialRecord]) -> Iterator[str]:
    """Trials that ended, or were stopped, above their own initial loss, with the likely reason."""
    ended = [record for record in originals if record.state in (State.COMPLETE, State.PRUNED)]
    rising = [record for record in ended if _rose(record)]
    if not rising:
        return
    subject = f"{these('trial', [record.number for record in rising])} ended above the initial loss"
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
        rose, fell = min(rates), max(falling)
        figures = figures_apart([rose, fell])
        yield f"{subject}: learning rate too high ({rose:.{figures}g} and up rose, {fell:.{figures}g} fell)"
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
