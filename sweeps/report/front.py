"""The front of test losses against a cost or a task's score, as a table and in a line."""

from __future__ import annotations

from collections.abc import Sequence

from sweeps.records import TrialRecord
from sweeps.report.finalists import digits_of
from sweeps.results.front import Front, FrontMember, in_words
from sweeps.results.labels import grown
from sweeps.results.layers import COSTS
from sweeps.results.paired import Difference
from sweeps.results.sentence import named
from sweeps.results.verdict import Verdict
from sweeps.text import counted, digits_apart, indented, short, table

_NAMED = 4  # models that a line names before it counts


def front_text(verdict: Verdict, records: Sequence[TrialRecord]) -> list[str]:
    """Every model that ran under fresh seeds, and how it stands to the others."""
    front = verdict.front
    if front is None or not front.members:
        return []
    by_number = {record.number: record for record in records}
    header, rows, legend = _against_score(front) if front.cost is None else _against_cost(front, front.cost)
    first, *lines = table(header, rows, left={0})
    shown = [first]
    for line, each in zip(lines, front.members, strict=False):
        shown += [line, *indented(f"{named(by_number[each.number])}: {in_words(each)}", 4)]
    shown += lines[len(front.members) :]
    return ["The front", *(f"  {line}".rstrip() for line in shown), *indented(legend)]


_Table = tuple[tuple[str, ...], list[tuple[str, ...]], str]  # header, rows, and what they rest on


def _against_cost(front: Front, cost: str) -> _Table:
    """The cheapest first."""
    digits = _digits(front)
    rows: list[tuple[str, ...]] = [
        (str(each.number), _times(each), _loss(front, each), _difference(each, digits))
        for each in front.members
    ]
    legend = (
        f"{COSTS[cost]}: relative to the control. What is said of each rests on test loss under fresh "
        f"seeds at equal tokens, at 95 % for all {counted(front.compared, 'pair')} together (Bonferroni)."
    )
    return ("trial", COSTS[cost], "test", "less the control"), rows, legend


def _against_score(front: Front) -> _Table:
    """The lowest loss first; and the base as it is."""
    digits = _digits(front)
    rows: list[tuple[str, ...]] = [
        (
            str(each.number),
            _loss(front, each),
            _difference(each, digits),
            _score(each.score, each.score_error),
            _less_score(each),
        )
        for each in front.members
    ]
    if front.base is not None:
        rows.append(("base", "-", "-", _score(front.base, front.base_error), "-"))
    better = "higher" if front.higher_is_better else "lower"
    legend = (
        f"{front.score}: {better} is better; mean over fresh seeds, standard error over documents. What is "
        "said of each rests on test loss and score under fresh seeds at equal tokens, at 95 % for all "
        f"{counted(front.compared, 'difference')} together (Bonferroni). `sweeps export --trial N` takes one."
    )
    header = ("trial", "test", "less the control", str(front.score), "less the control")
    return header, rows, legend


def front_line(front: Front, records: Sequence[TrialRecord]) -> str:
    """`1.00x the original; 1.11x K=8 random -0.0001, not shown to be better; 2 more are dominated`; against
    a score `acc 0.583 K=8 random -0.0120; acc 0.512 the original`.
    """
    by_number = {record.number: record for record in records}
    digits = _digits(front)
    listed = [each for each in front.members if each.stands != "dominated"]
    found = []
    for each in listed[:_NAMED]:
        difference = "" if each.mean is None else f" {each.mean:+.{digits}f}"
        label = "the original" if each.original else grown(by_number[each.number]) or f"trial {each.number}"
        stands = "" if each.stands in ("cheapest", "on the front") else f", {_briefly(each)}"
        found.append(f"{_place(front, each)} {label}{difference}{stands}")
    if len(listed) > _NAMED:
        found.append(f"and {len(listed) - _NAMED} more: sweeps best")
    if dominated := len(front.members) - len(listed):
        found.append(f"{dominated} more {'is' if dominated == 1 else 'are'} dominated")
    return "; ".join(found)


def _briefly(member: FrontMember) -> str:
    if member.by_means is None:
        return member.stands
    return "on it by its means" if member.by_means else f"behind trial {member.than} by its means"


def _place(front: Front, member: FrontMember) -> str:
    if front.score is None:
        return _times(member)
    metric = front.score.partition("/")[2]
    return f"{metric} {'-' if member.score is None else f'{member.score:.3f}'}"


def _loss(front: Front, member: FrontMember) -> str:
    tested = digits_apart([each.loss for each in front.members if each.loss is not None])
    return "-" if member.loss is None else f"{member.loss:.{tested}f}"


def _score(value: float | None, error: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" + ("" if error is None else f"±{error:.3f}")


def _less_score(member: FrontMember) -> str:
    if member.score_mean is None:
        return "-"
    spread = ", no interval" if member.score_half_width is None else f" ± {member.score_half_width:.3f}"
    return f"{member.score_mean:+.3f}{spread}"


def _times(member: FrontMember) -> str:
    return short(member.cost or 0.0) if member.times is None else f"{member.times:.2f}x"


def _difference(member: FrontMember, digits: int) -> str:
    if member.mean is None:
        return "-"
    spread = f" ± {member.half_width:.{digits}f}" if member.half_width is not None else ""
    return f"{member.mean:+.{digits}f}{spread}"


def _digits(front: Front) -> int:
    known = [each for each in front.members if each.mean is not None]
    return digits_of([Difference(each.mean or 0.0, each.half_width, 0) for each in known])
