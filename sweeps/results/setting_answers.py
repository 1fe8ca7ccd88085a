"""An answer for each searched setting: which K, which first weights, which rate.

A value is the answer once it is shown that no other is better by more than the margin, each at its best over
the other settings: by the joint posterior of the search's model, where estimates have their chances from it;
else by Hsu's comparisons with the best (Multiple Comparisons, 1996, chapter 4), with estimates taken as
independent. Values that are in turn shown to be less than the margin worse are as good. Of a range the answer
is where the lowest loss lies, and outside of what values are worse by more than the margin.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sweeps.records import Role, State, TrialRecord
from sweeps.results.coverage import searched_value
from sweeps.results.finalists import is_done
from sweeps.results.searched import Searched
from sweeps.search_answers import (
    Best,
    Estimate,
)
from sweeps.spec.equivalence import has_effect
from sweeps.student import CONFIDENCE
from sweeps.text import short_value

Says = Literal["best", "as good", "worse", "no better", "open"]
Reason = Literal[
    "not tried",
    "interval wider than the margin",
    "interval wider than half of its range",
    "no trial beyond its interval",
    "the best trial is outside its interval",
    "no intervals",
]

Side = Literal["below", "above"]
SIDES: tuple[Side, ...] = ("below", "above")

_END = 1e-6  # of an end of a range: so near it is the end
_WIDEST = 0.5  # share of a range, on its scale, that the interval of its best value may take


@dataclass(frozen=True)
class ValueAnswer:
    """One value of a setting, and how it stands to the best one."""

    value: Any
    best_loss: float | None  # nats per token; None where nothing is known
    half_width: float | None
    tried: int
    complete: int
    says: Says


@dataclass(frozen=True)
class SettingAnswer:
    """What is known of one searched setting; `value` is None while that is no answer."""

    path: str
    value: Any
    as_good: tuple[Any, ...]  # other values shown to be less than the margin worse
    values: tuple[ValueAnswer, ...]  # the lowest loss first
    reason: Reason | None  # why there is no answer
    open_values: tuple[Any, ...]  # values that may be better by more than the margin
    between: tuple[Any, Any] | None = (
        None  # of a range: outside of these, values are worse by more than the margin
    )
    open_ends: tuple[Side, ...] = ()  # of `between`: beyond these no trial was, so there nothing is known
    tried: tuple[float, float] | None = None  # of a range: the lowest and the highest value of a trial
    ends: tuple[Any, Any] | None = None  # of a range, as the spec has them


def setting_answers(
    records: Sequence[TrialRecord], margin: float, searched: Searched
) -> tuple[SettingAnswer, ...]:
    """One for each searched path, in the order of the choices, the estimates, the trials.

    Args:
        records: of the search.
        margin: nats per token.
        searched: what else is known of it.
    """
    choices, estimates = searched.choices, searched.estimates
    grown = [record for record in records if not record.original]
    paths = dict.fromkeys((*choices, *estimates, *(path for r in grown for path in r.params)))
    answers = []
    for path in dict.fromkeys((*paths, *searched.ranges)):
        known = dict(_known(path, grown, choices.get(path, ()), estimates.get(path)))
        best = searched.ranges.get(path)
        if best is None:
            answers.append(_answer(path, known, margin))
            continue
        answers.append(_of_range(path, known, best, _tried(path, grown), searched.ends.get(path, ())))
    return tuple(answers)


def _tried(path: str, records: Sequence[TrialRecord]) -> dict[float, float]:
    """Each value that was tried, and the lowest loss of a trial with it that ran to its end."""
    found: dict[float, float] = {}
    for record in records:
        value = searched_value(record, path)
        if isinstance(value, int | float) and record.state not in (State.WAITING, State.FAIL):
            loss = record.value if is_done(record) and record.value is not None else math.inf
            found[value] = min(loss, found.get(value, math.inf))
    return found


def _known(
    path: str,
    records: Sequence[TrialRecord],
    choices: Sequence[Any],
    estimates: Mapping[Any, Estimate] | None,
) -> Iterator[tuple[Any, Estimate | None]]:
    """Each choice and each value that has an estimate; where there is neither, the best value alone."""
    tried: dict[Any, list[TrialRecord]] = {}
    for record in records:
        asked = (path in record.params or record.role is Role.BASELINE) and has_effect(record.settings, path)
        if asked and record.state not in (State.WAITING, State.FAIL):
            tried.setdefault(searched_value(record, path), []).append(record)
    values = dict.fromkeys((*choices, *(estimates or ())))
    for value in values or _best(tried):
        found = estimates.get(value) if estimates else None
        yield value, found or _of_trials(tried.get(value, ()))


def _best(tried: Mapping[Any, Sequence[TrialRecord]]) -> list[Any]:
    """The value with the lowest loss, where one is known."""
    losses = {value: found.mean for value, each in tried.items() if (found := _of_trials(each))}
    best = min(losses, key=lambda value: losses[value], default=None)
    return [] if best is None or losses[best] == math.inf else [best]


def _of_trials(tried: Sequence[TrialRecord]) -> Estimate | None:
    """The lowest loss of those run to their end; infinite where none was, None where none was tried."""
    done = [record.value for record in tried if is_done(record) and record.value is not None]
    return Estimate(min(done, default=math.inf), None, len(tried), len(done)) if tried else None


def _answer(path: str, known: Mapping[Any, Estimate | None], margin: float) -> SettingAnswer:
    ordered = sorted(known.items(), key=lambda item: item[1].mean if item[1] is not None else math.inf)
    found = [ValueAnswer(value, *_numbers(each), says="open") for value, each in ordered]
    best = found[0] if found and found[0].best_loss is not None else None
    if best is None or best.half_width is None:
        return SettingAnswer(path, None, (), tuple(found), _why(found), tuple(each.value for each in found))
    chances = {value: each.chance for value, each in known.items() if each is not None}
    if found and all(chances.get(each.value) is not None for each in found):
        best, *others = sorted(found, key=lambda each: -min(chances[each.value] or 0.0, CONFIDENCE))
        sure = (chances[best.value] or 0.0) >= CONFIDENCE
        judged = [replace(each, says=_by_chance(chances[each.value] or 0.0, sure=sure)) for each in others]
        found = [replace(best, says="best"), *judged]
        if not sure:
            opened = [each for each in judged if each.says == "open"]
            values = tuple(each.value for each in opened)
            return SettingAnswer(path, None, (), tuple(found), _why([best, *opened]), values)
    else:
        found = [replace(best, says="best"), *(_judged(each, best, margin) for each in found[1:])]
    undecided = tuple(each.value for each in found if each.says == "open")
    reason = _why([each for each in found if each.says == "open"]) if undecided else None
    return SettingAnswer(
        path=path,
        value=None if undecided else best.value,
        as_good=() if undecided else tuple(each.value for each in found if each.says == "as good"),
        values=tuple(found),
        reason=reason,
        open_values=undecided,
    )


def _by_chance(chance: float, *, sure: bool) -> Says:
    """How a value stands whose best is within the margin of the best of all with this chance.

    `sure`: whether another value is the answer.
    """
    if chance <= 1 - CONFIDENCE:
        return "worse"
    if not sure:
        return "open"
    return "as good" if chance >= CONFIDENCE else "no better"


def _of_range(
    path: str,
    known: Mapping[Any, Estimate | None],
    best: Best,
    tried: Mapping[float, float],
    ends: Sequence[Any],
) -> SettingAnswer:
    """Answered where the best value is known to half of its range or better, between values that were tried.

    Args:
        path: of the setting.
        known: what is known of single values of it.
        best: by the model of the search.
        tried: each value, and the lowest loss of a trial with it that ran to its end; infinite without one.
        ends: of the range.
    """
    values = tuple(ValueAnswer(value, *_numbers(each), says="open") for value, each in known.items())
    reached = (min(tried), max(tried)) if tried else None
    beyond = tuple(_open_ends(best, reached)) if reached else ()
    lowest = min(tried, key=lambda value: tried[value], default=best.value)
    reason: Reason | None = None
    if best.share > _WIDEST:
        reason = "interval wider than half of its range"
    elif len(beyond) == len(SIDES) or (reached and not _within(best.value, reached)):
        reason = "no trial beyond its interval"
    elif not _within(lowest, (best.low, best.high)):
        reason = "the best trial is outside its interval"
    return SettingAnswer(
        path=path,
        value=best.value if reason is None else None,
        as_good=(),
        values=values,
        reason=reason,
        open_values=(),
        between=(best.low, best.high),
        open_ends=beyond,
        tried=reached,
        ends=(ends[0], ends[-1]) if ends else None,
    )


def _open_ends(best: Best, reached: tuple[float, float]) -> Iterator[Side]:
    """The sides of an interval beyond which no trial was: a model extrapolates there."""
    if reached[0] >= best.low * (1 - _END):
        yield "below"
    if reached[1] <= best.high * (1 + _END):
        yield "above"


def _within(value: float, ends: tuple[float, float]) -> bool:
    return ends[0] * (1 - _END) <= value <= ends[1] * (1 + _END)


def worse_where(answer: SettingAnswer) -> str:
    """Of an answered range, in words: what is worse by more than the margin, and what was not tried."""
    assert answer.between is not None
    low, high = map(short_value, answer.between)
    if not answer.open_ends:
        return f"worse outside {low} to {high}"
    assert answer.tried is not None
    (side,) = answer.open_ends
    place = SIDES.index(side)
    worse = f"worse above {high}" if side == "below" else f"worse below {low}"
    end = answer.ends[place] if answer.ends else None
    if end is not None and _within(end, (answer.tried[place], answer.tried[place])):
        return f"{worse}; the range {'begins' if side == 'below' else 'ends'} at {short_value(end)}"
    return f"{worse}; none {side} {short_value(answer.tried[place])} was tried"


def not_known_where(answer: SettingAnswer) -> str:
    """Of a range without an answer, in words: where its best value may be, and why no more is known."""
    assert answer.between is not None
    low, high = map(short_value, answer.between)
    if answer.reason == "no trial beyond its interval":
        return f"no trial on both sides of {low} to {high}"
    if answer.reason == "the best trial is outside its interval":
        return f"the best trial is outside {low} to {high}"
    return f"anywhere from {low} to {high}"


def _judged(each: ValueAnswer, best: ValueAnswer, margin: float) -> ValueAnswer:
    if each.best_loss is None or each.half_width is None or best.best_loss is None:
        return each
    above = each.best_loss - best.best_loss
    width = math.hypot(each.half_width, best.half_width or 0.0)
    if above + width < margin:
        return replace(each, says="as good")
    if above - width > 0:
        return replace(each, says="worse")
    return replace(each, says="no better") if width - above < margin else each


def _numbers(each: Estimate | None) -> tuple[float | None, float | None, int, int]:
    if each is None:
        return None, None, 0, 0
    return (each.mean if math.isfinite(each.mean) else None), each.half_width, each.tried, each.complete


def _why(undecided: Sequence[ValueAnswer]) -> Reason:
    if len(undecided) == 0 or any(each.tried == 0 for each in undecided):
        return "not tried"
    if any(each.half_width is None for each in undecided):
        return "no intervals"
    return "interval wider than the margin"
