"""The first screen: the answer in one sentence, what it rests on, what was spent, what to type next."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sweeps.records import State, TrialRecord
from sweeps.report.by_source import forgotten_line
from sweeps.report.finalists import digits_of
from sweeps.report.front import front_line
from sweeps.report.ladder import ladder_line
from sweeps.report.next_commands import Screen, next_commands
from sweeps.report.styled import Line, paragraph, row
from sweeps.report.tasks import task_lines
from sweeps.results.claims import Claim
from sweeps.results.coverage import Untried
from sweeps.results.ladder import ladder_of
from sweeps.results.sentence import sentence
from sweeps.results.setting_answers import SettingAnswer, ValueAnswer, not_known_where, worse_where
from sweeps.results.verdict import Verdict
from sweeps.text import WIDTH, counted, digits_apart, duration, short, short_value

_COLOURS = {"grow": "bold green", "do not grow": "bold yellow", "not shown": "bold cyan"}
_LABELS = {
    "injection.method": "method",
    "injection.k": "K",
    "injection.init": "first weights",
    "injection.scale": "residual scale",
    "recipe.learning_rate": "rate",
}
_ALWAYS = ("injection.k", "injection.init", "recipe.learning_rate")  # answered, or it is said why not
_WIDE = 15  # characters of a label
_NAMED = 3  # values that a line names before it counts
_COMMAND = 52  # characters up to which commands are aligned; longer ones stick out
_CAVEAT = 100  # characters of the first caveat
_FEW = 8  # values of a setting, above which they are points of a range


def answer_lines(verdict: Verdict, records: Sequence[TrialRecord], screen: Screen) -> list[Line]:
    """About fifteen lines of 80 columns."""
    said = f"{screen.name}: {sentence(verdict, records)}"
    lines = paragraph(said, _COLOURS[verdict.answer.grow])
    rows: list[tuple[str, str]] = [
        *_comparisons(verdict),
        *task_lines(screen.tasks),
        *_front(verdict, records),
        *_forgotten(verdict),
        *_settings(verdict),
        *_untried(verdict.untried),
        *_stopped(verdict),
        *_failed(verdict),
        *_spent(verdict, records, screen),
        *_ladder(verdict, records, screen),
        *_margin(verdict),
        *_doubts(verdict, screen),
    ]
    lines += [line for label, text in rows for line in row(label, text, _WIDE)]
    return [*lines, Line(""), *_commands(next_commands(verdict, screen))]


def _commands(commands: Mapping[str, str]) -> Iterator[Line]:
    """Each with what it is for; a long one goes on in lines of its own, as a shell takes them."""
    wide = max((len(each) for each in commands.values() if len(each) <= _COMMAND), default=0)
    for what, whole in commands.items():
        *first, last = _broken(whole, WIDTH - 2 - len(what))
        yield from (Line(each, "bold") for each in first)
        if len(last) + 2 + len(what) > WIDTH:  # one word, of a long path
            yield Line(last, "bold")
            last = ""
        yield Line(f"{last:<{wide}}  {what}", "bold", len(last))


def _broken(whole: str, most: int) -> list[str]:
    """A command in lines, broken before options; the last leaves room for what it is for."""
    if len(whole) <= most:
        return [whole]
    lines = [""]
    for part in re.split(r" (?=--)", whole):
        if lines[-1] and len(lines[-1]) + len(part) > WIDTH - 3:
            lines[-1] += " \\"
            lines.append(f"    {part}")
        else:
            lines[-1] += f" {part}" if lines[-1] else part
    if len(lines[-1]) > most and " --" in lines[-1].strip():
        head, _, tail = lines[-1].rpartition(" --")
        lines[-1:] = [f"{head} \\", f"    --{tail}"]
    return lines


# -- inside ----------------------------------------------------------------------------------------


def _comparisons(verdict: Verdict) -> Iterator[tuple[str, str]]:
    answer = verdict.answer
    if answer.grown is None:
        return
    claims = {"equal compute": answer.equal_compute, "equal tokens": answer.equal_tokens}
    known = [claim for claim in claims.values() if claim is not None]
    if known:
        seeds = counted(known[0].n, "seed")
        yield "loss", f"trial {answer.grown} less the original; nats of {known[0].loss} loss, {seeds}"
    missing = {
        "equal compute": "not compared: no original with its FLOPs has ended",
        "equal tokens": "not compared: no control has ended under the same fresh seeds",
    }
    for at, claim in claims.items():
        yield at, _claim(claim) if claim else missing[at]


def _front(verdict: Verdict, records: Sequence[TrialRecord]) -> Iterator[tuple[str, str]]:
    if verdict.front is not None and verdict.front.members:
        yield "front", front_line(verdict.front, records)


def _forgotten(verdict: Verdict) -> Iterator[tuple[str, str]]:
    if (line := forgotten_line(verdict.sources)) is not None:
        yield "forgotten", line


def _claim(claim: Claim) -> str:
    digits = digits_of([claim])
    words = {"better": "better", "worse": "worse", "as good": "as good", "not shown": "not shown to differ"}
    says = words[claim.says]
    if claim.says == "not shown" and claim.other_as_good:
        says = "the original is as good"
    if claim.low is None or claim.high is None:
        return f"{claim.mean:+.{digits}f}, no interval: {says}"
    ends = f"{claim.low:+.{digits}f} to {claim.high:+.{digits}f}"
    return f"{claim.mean:+.{digits}f} (95 %: {ends}): {says}"


def _settings(verdict: Verdict) -> Iterator[tuple[str, str]]:
    found = {each.path: each for each in verdict.settings}
    chosen = verdict.chosen
    unknown = [path for path, each in found.items() if each.reason == "no intervals"]
    if len(unknown) > 1:  # for the same reason, said once
        found = {path: each for path, each in found.items() if path not in unknown}
        yield "not answered", f"{', '.join(map(_label, unknown))}: no intervals for their values"
    for path in dict.fromkeys((*_ALWAYS, *found)):
        own = _value_at(chosen.settings, path) if chosen else None
        if path in found:
            yield _label(path), _setting(found[path], own)
        elif own is not None and path not in unknown:
            yield _label(path), f"{short_value(own)}, not searched"


def _setting(answer: SettingAnswer, own: Any) -> str:
    """Its answer; or why there is none, and what would answer it."""
    if answer.between is not None:
        if answer.reason is None:
            return f"{short_value(answer.value)}; {worse_where(answer)}"
        return f"not answered: {not_known_where(answer)}; more trials would (budget.trials)"
    if answer.reason is None:
        good = f"; as good: {_names(answer.as_good)}" if answer.as_good else ""
        similar = [each.value for each in answer.values if each.says == "no better"]
        rest = f"; not shown to be worse: {_names(similar)}" if similar else ""
        known = own is None or own in (answer.value, *answer.as_good)
        ours = "" if known else f"; {short_value(own)} in the best grown model"
        return f"{short_value(answer.value)}{good}{rest}{ours}"
    ours = f"; {short_value(own)} in the best grown model" if own is not None else ""
    opened = [each for each in answer.values if each.value in answer.open_values]
    lacking = [each.value for each in opened if each.tried == 0]
    if answer.reason == "not tried":
        why = f"{_names(lacking)} not tried (budget.trials)" if lacking else "no complete trial"
        return f"not answered: {why}{ours}"
    if answer.reason == "no intervals":
        return f"not answered: no intervals for its values{_lowest(answer.values) or ours}"
    best = [each.value for each in answer.values if each.says == "best"]
    return f"not answered: one of {_names([*best, *answer.open_values])}; more trials would (budget.trials)"


def _lowest(values: Sequence[ValueAnswer]) -> str:
    """The two lowest losses, of a setting with few values."""
    known = [(each.value, each.best_loss) for each in values if each.best_loss is not None]
    if len(known) < 2 or len(values) > _FEW:
        return ""
    digits = digits_apart([loss for _, loss in known[:2]])
    shown = ", ".join(f"{short_value(value)} ({loss:.{digits}f})" for value, loss in known[:2])
    return f"; lowest loss: {shown}"


def _untried(untried: Sequence[Untried]) -> Iterator[tuple[str, str]]:
    never = [_cell(each.settings) for each in untried if not each.tried]
    begun = [_cell(each.settings) for each in untried if each.tried]
    parts = [_names(never)] if never else []
    parts += [f"begun, not run to an end: {_names(begun)}"] if begun else []
    if parts:
        yield "not tried", "; ".join(parts)


def _cell(settings: Mapping[str, Any]) -> str:
    """Values of settings in words: `K=1 with identity`."""
    named = (
        short_value(value) if path == "injection.init" else f"{_label(path)}={short_value(value)}"
        for path, value in settings.items()
    )
    return " with ".join(named)


def _value_at(settings: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path; None where there is none."""
    found: Any = settings
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _label(path: str) -> str:
    return _LABELS.get(path, path.rpartition(".")[2])


def _stopped(verdict: Verdict) -> Iterator[tuple[str, str]]:
    if not verdict.stopped:
        return
    spent = verdict.spent
    whole = spent.tokens_of_search + spent.tokens_saved
    saved = f", which saved {spent.tokens_saved / whole:.0%} of the search's tokens" if whole else ""
    number = f"{len(verdict.stopped)} of {sum(verdict.counts.values())} trials early{saved}"
    if (found := verdict.stopping) is not None:
        most = f"at most {found.at_most}" if found.at_most else "none"
        number += f"; {most} would have ended among the best {found.top} (95 %)"
    yield "stopped", number


def _failed(verdict: Verdict) -> Iterator[tuple[str, str]]:
    if verdict.failed:
        first, *others = verdict.failed
        more = f", and {len(others)} more" if others else ""
        reason = textwrap.shorten(first.reason or "no reason recorded", _CAVEAT, placeholder=" ...")
        yield "failed", f"trial {first.number} ({reason}){more}"


def _spent(verdict: Verdict, records: Sequence[TrialRecord], screen: Screen) -> Iterator[tuple[str, str]]:
    spent = verdict.spent
    device = "GPU" if screen.gpus else "CPU"
    text = f"{short(spent.tokens)} tokens"
    shares = {
        "under fresh seeds": spent.tokens_after - spent.tokens_of_scoring,
        "trained again to be scored": spent.tokens_of_scoring,
        "on the ladder": spent.tokens_of_ladder,
    }
    if parts := [f"{tokens / spent.tokens:.0%} {what}" for what, tokens in shares.items() if tokens]:
        text += f" ({', '.join(parts)})"
    if spent.seconds:
        text += f", {duration(spent.seconds * max(screen.gpus, 1))} of {device} training"
    ours = [each for each in records if each.ours and not each.role.promoted]
    starts = [each.started for each in ours if each.started is not None]
    ends = [each.finished for each in ours if each.finished is not None]
    if starts and ends:
        text += f", {duration(max(ends) - min(starts))} from the first start to the last end"
    yield "spent", text


def _ladder(verdict: Verdict, records: Sequence[TrialRecord], screen: Screen) -> Iterator[tuple[str, str]]:
    if line := ladder_line(ladder_of(verdict, records, screen.ladder)):
        yield "ladder", line


def _margin(verdict: Verdict) -> Iterator[tuple[str, str]]:
    """Where it is not the one that the sweep was run with."""
    margin = verdict.margin
    if margin.was is not None:
        nats = f"{margin.nats:.{digits_apart([margin.nats])}f} nats"
        share = f" ({margin.percent:g}% of the control's loss)" if margin.percent is not None else ""
        yield "margin", f"{nats}{share}; changed after the answer was first read, with {margin.was}"


def _doubts(verdict: Verdict, screen: Screen) -> Iterator[tuple[str, str]]:
    waiting = verdict.counts[State.WAITING]
    if screen.ended is not None:
        rest = f"; {waiting} enqueued not run" if waiting else ""
        yield "search ended", f"because budget.{screen.ended[0]} is used up{rest}"
    if foreign := sum(verdict.others.values()):
        yield "not run here", f"{counted(foreign, 'trial')} of other programs in the study"
    if verdict.warnings:
        first, *others = verdict.warnings
        first = textwrap.shorten(first, _CAVEAT, placeholder=" ...")
        yield "caveats", first + (f"; and {len(others)} more" if others else "")


def _names(values: Sequence[Any]) -> str:
    shown = [short_value(value) for value in values]
    rest = len(shown) - _NAMED
    # One more is named in no more room than it is counted in, and `8 and 1 more` may be read as a value.
    return ", ".join(shown) if rest <= 1 else f"{', '.join(shown[:_NAMED])} and {rest} others"
