"""Promotions: which trial trains on, with which settings, from which state; and what came of those that ran.

A promotion is a trial's settings with a larger budget of tokens. Its warm-up has as many tokens as the
trial's, its seed and so the order of its batches are the trial's, and where the rate falls, it falls by the
end of the larger budget. So a schedule that keeps its rate (constant, or wsd before its decay) gives the
trial's own losses first, and the long run may go on from the trial's state; under one that falls over the
whole run it is another run from the first step on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from sweeps.commands import command
from sweeps.errors import Problem, SpecError
from sweeps.folders import Folders
from sweeps.promotion import Promotion
from sweeps.records import Role, State, TrialRecord
from sweeps.results.finalists import control_of
from sweeps.results.layers import cost_of
from sweeps.results.sentence import named
from sweeps.results.text_losses import BySource
from sweeps.results.verdict import Verdict, none_complete
from sweeps.spec.equivalence import replaced
from tli.training.recipe import Recipe

if TYPE_CHECKING:
    from sweeps.spec import Spec

_MOST_STEPS = 10**8  # a state's name has so many digits


@dataclass(frozen=True)
class LongRun:
    """A long run that is asked for.

    `record` is the trial of it that the study has already; `first_step` the step of the state that it begins
    with, 0 where it trains afresh.
    """

    role: Role
    settings: Mapping[str, Any]
    promotion: Promotion
    first_step: int
    record: TrialRecord | None = None

    @property
    def steps(self) -> int:
        """Optimizer steps of all of it."""
        return Recipe(**self.settings["recipe"]).steps

    @property
    def tokens(self) -> int:
        """Tokens of all of it, in whole batches."""
        return int(self.steps * self.settings["recipe"]["batch_tokens"])


def chosen_trial(
    spec: Spec,
    verdict: Verdict,
    records: Sequence[TrialRecord],
    *,
    trial: int | None,
    grown: bool,
    runs: Path,
) -> TrialRecord:
    """The trial that trains on: what the answer names, the best grown model, or one by its number.

    Raises:
        SpecError: it is not there, was not run here, did not complete, or is a promotion itself.
    """
    status, by_number = command("status", spec.name, runs=runs), {each.number: each for each in records}
    handed = verdict.answer.grown if grown else verdict.answer.trial
    number = handed if trial is None else trial
    if number is None:
        raise SpecError(Problem(f"sweep {spec.name}", none_complete(verdict), "a complete trial", status))
    record = by_number.get(number)
    if record is None:
        got, expected = f"{number}, which is not there", f"one of 0 to {max(by_number, default=0)}"
        raise SpecError(Problem("trial", got, expected, status))
    if not record.ours:
        got = f"{number}, which was not run here: another program added it to the study"
        raise SpecError(Problem("trial", got, "a trial of this sweep", status))
    if record.promotion is not None:
        got, of = f"{number}, itself a promotion of trial {record.promotion.of}", record.promotion.of
        raise SpecError(Problem("trial", got, "a trial of the sweep", f"--trial {of}, with more tokens"))
    if record.state is not State.COMPLETE:
        why = f": {' '.join(record.reason.split())}" if record.reason else ""
        words = {State.PRUNED: "was stopped early", State.FAIL: "failed", State.RUNNING: "is not complete"}
        got = f"{number}, which {words.get(record.state, 'was not run yet')}{why}"
        raise SpecError(Problem("trial", got, "a complete trial", status))
    return record


def longer(record: TrialRecord, tokens: int) -> dict[str, Any]:
    """A trial's settings with another budget: a warm-up of as many tokens as its own, all else as it is.

    Raises:
        SpecError: the budget is not larger than the trial's.
    """
    recipe = Recipe(**record.settings["recipe"])
    own = recipe.steps * recipe.batch_tokens
    settings = replaced(
        record.settings,
        {
            "recipe.tokens": tokens,
            "recipe.warmup": Recipe.warmup,
            "recipe.warmup_tokens": recipe.warmup_steps * recipe.batch_tokens,
        },
    )
    steps = Recipe(**{**settings["recipe"], "tokens": max(tokens, recipe.batch_tokens)}).steps
    if tokens <= own or steps <= recipe.steps:
        expected = f"more than the {own:,} that trial {record.number} was trained on"
        raise SpecError(Problem("tokens", f"{tokens:,}", expected, f"--tokens {10 * own:_}"))
    if steps >= _MOST_STEPS:
        most = (_MOST_STEPS - 1) * recipe.batch_tokens
        expected = f"at most {most:,}: {_MOST_STEPS - 1:,} steps of {recipe.batch_tokens:,} tokens"
        raise SpecError(Problem("tokens", f"{tokens:,}", expected, f"--tokens {most:_}"))
    return replaced(settings, {"recipe.tokens": steps * recipe.batch_tokens})  # 50K and 51,200 are one run


def long_run(
    role: Role,
    record: TrialRecord,
    tokens: int,
    records: Sequence[TrialRecord],
    folders: Folders,
    *,
    beside: int | None = None,
) -> LongRun:
    """A trial with so many tokens: the promotion that the study has, or one that begins where it can.

    Args:
        role: PROMOTION or PROMOTED_CONTROL.
        record: the trial, complete.
        tokens: of all of it.
        records: every trial of the sweep.
        folders: of the sweep.
        beside: of a control, the promotion that it runs beside.

    Raises:
        SpecError: the budget is not larger than the trial's.
    """
    settings = longer(record, tokens)
    wanted = Promotion(record.number, record.steps, beside=beside)
    known = [each for each in records if each.role is role and _is(each, settings, wanted)]
    standing = next((each for each in known[::-1] if each.state is not State.FAIL), None)
    standing = standing or next((r for r in known[::-1] if (r.reason or "").startswith("diverged")), None)
    if standing is not None and standing.promotion is not None:
        first = None if (n := standing.promotion.begins) is None else folders.branch_step(n)
        return LongRun(role, settings, standing.promotion, first or 0, standing)
    begins, step, why = _beginning(record, settings, records, folders)
    return LongRun(role, settings, replace(wanted, begins=begins, why=why), step)


def control_run(
    promoted: LongRun,
    record: TrialRecord,
    records: Sequence[TrialRecord],
    folders: Folders,
) -> LongRun:
    """The best control with the FLOPs of a promotion, to a batch.

    Args:
        promoted: that it runs beside.
        record: the trial which is promoted.
        records: every trial of the sweep.
        folders: of the sweep.

    Raises:
        SpecError: that trial is the original itself, no control is complete, or a cost is not known.
    """
    control = control_of(records)
    if record.original:
        got = f"one of trial {record.number}, {named(record)}"
        raise SpecError(Problem("control", got, "a grown model, beside which the original trains", "--grown"))
    theirs = cost_of(record, "flops_per_token")
    own = cost_of(control, "flops_per_token") if control is not None else None
    if control is None or not theirs or not own:
        got = "no complete control" if control is None else "a control whose FLOPs are not known"
        raise SpecError(Problem("control", got, "a control trained to its end", "without --control"))
    batch = control.settings["recipe"]["batch_tokens"]
    tokens = round(promoted.tokens * theirs / own / batch) * batch
    number = promoted.record.number if promoted.record is not None else None
    role = Role.PROMOTED_CONTROL
    return long_run(role, control, tokens, records, folders, beside=number)


def promotions(
    records: Sequence[TrialRecord],
    model_of: Callable[[TrialRecord], Path | None] = lambda _: None,
    sources: BySource | None = None,
) -> list[dict[str, Any]]:
    """What the promotions of a sweep are and how they stand, as plain values; each with its control.

    Losses are nats per token; `against_control` are differences to the control at equal compute, of one seed
    each, below zero where the promotion is better; None before both have ended.

    Args:
        records: every trial of the sweep.
        model_of: where the model of a trial lies.
        sources: of the answer, by which losses on each of several texts are set beside the base's.
    """
    controls = {each.promotion.beside: each for each in records if each.promotion is not None}
    found = []
    for record in records:
        if record.role is not Role.PROMOTION:
            continue
        control = controls.get(record.number)
        row = _row(record, model_of, sources)
        row["control"] = _row(control, model_of, sources) if control is not None else None
        row["against_control"] = _against(record, control)
        found.append(row)
    return found


# -- inside ----------------------------------------------------------------------------------------


def _is(record: TrialRecord, settings: Mapping[str, Any], wanted: Promotion) -> bool:
    known = record.promotion
    same = known is not None and (known.of, known.beside) == (wanted.of, wanted.beside)
    return same and record.settings == settings


def _beginning(
    record: TrialRecord,
    settings: Mapping[str, Any],
    records: Sequence[TrialRecord],
    folders: Folders,
) -> tuple[int | None, int, str]:
    """From whose state a long run goes on, and its step; or why it trains afresh."""
    recipe = Recipe(**settings["recipe"])
    if recipe.schedule not in ("constant", "wsd"):
        over = "falls to zero over the whole run"
        return (
            None,
            0,
            f"the rate of trial {record.number} ({recipe.schedule}) {over}, and so has other values",
        )
    shorter = [
        each
        for each in records
        if each.state is State.COMPLETE and (each.number == record.number or _shortens(each, record, recipe))
    ]
    steps = {each.number: folders.branch_step(each.number) for each in shorter}
    usable = {number: step for number, step in steps.items() if step and step <= recipe.shared_steps}
    if not usable:
        return None, 0, f"no state of trial {record.number} was kept"
    number = max(usable, key=lambda each: (usable[each], -each))
    return number, usable[number], ""


def _shortens(record: TrialRecord, of: TrialRecord, recipe: Recipe) -> bool:
    """Whether it is a promotion of the same trial with fewer tokens."""
    return record.promotion is not None and record.promotion.of == of.number and record.steps < recipe.steps


def _row(
    record: TrialRecord, model_of: Callable[[TrialRecord], Path | None], sources: BySource | None
) -> dict[str, Any]:
    promotion = record.promotion
    assert promotion is not None, "a long run says what it makes longer"
    ended = record.state is State.COMPLETE
    model = model_of(record) if ended else None
    return {
        "trial": record.number,
        "of": promotion.of,
        "state": str(record.state),
        "begins": promotion.begins,
        "afresh": promotion.why or None,
        "tokens": record.steps * record.settings["recipe"]["batch_tokens"],
        "step": record.step,
        "steps": record.steps,
        "flops": record.flops,
        "seconds": record.seconds,
        "losses": dict(record.losses),
        "loss": record.loss,
        "test_loss": record.test_loss,
        "reason": record.reason,
        "model": str(model) if model is not None else None,
        "sources": sources.plain_of_run(record.sources) if sources is not None and ended else {},
    }


def _against(record: TrialRecord, control: TrialRecord | None) -> dict[str, float] | None:
    """Differences of both losses at the ends of two runs with the same FLOPs."""
    if control is None or record.value is None or control.value is None:
        return None
    found = {"loss": record.value - control.value}
    if record.test_losses and len(record.test_losses) == len(control.test_losses):
        found["test_loss"] = fmean(record.test_losses) - fmean(control.test_losses)
    return found
