"""The front of test losses against a cost, as a table and in a line."""

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
from sweeps.text import digits_apart, indented, short, table

_NAMED = 4  # models that a line names before it counts


def front_text(verdict: Verdict, records: Sequence[TrialRecord]) -> list[str]:
    """Every model that ran under fresh seeds, the cheapest first, and how it stands to the cheaper ones."""
    front = verdict.front
    if front is None or not front.members:
        return []
    by_number = {record.number: record for record in records}
    tested = digits_apart([each.loss for each in front.members if each.loss is not None])
    digits = _digits(front)
    rows = [
        (
            str(each.number),
            _times(each),
            "-" if each.loss is None else f"{each.loss:.{tested}f}",
            _difference(each, digits),
        )
        for each in front.members
    ]
    first, *lines = table(("trial", COSTS[front.cost], "test", "less the control"), rows, left={0})
    shown = [first]
    for line, each in zip(lines, front.members, strict=True):
        shown += [line, *indented(f"{named(by_number[each.number])}: {in_words(each)}", 4)]
    pairs = f"{front.compared} pair{'s' * (front.compared != 1)}"
    legend = (
        f"{COSTS[front.cost]}: relative to the control. What is said of each rests on test loss under fresh "
        f"seeds at equal tokens, at 95 % for all {pairs} together (Bonferroni)."
    )
    return ["The front", *(f"  {line}" for line in shown), *indented(legend)]


def front_line(front: Front, records: Sequence[TrialRecord]) -> str:
    """`1.00x the original; 1.11x K=8 random -0.0001, not shown to be better; 2 more are dominated`."""
    by_number = {record.number: record for record in records}
    digits = _digits(front)
    listed = [each for each in front.members if each.stands != "dominated"]
    found = []
    for each in listed[:_NAMED]:
        difference = "" if each.mean is None else f" {each.mean:+.{digits}f}"
        label = "the original" if each.original else grown(by_number[each.number]) or f"trial {each.number}"
        stands = "" if each.stands == "cheapest" else f", {each.stands}"
        found.append(f"{_times(each)} {label}{difference}{stands}")
    if len(listed) > _NAMED:
        found.append(f"and {len(listed) - _NAMED} more: sweeps best")
    if dominated := len(front.members) - len(listed):
        found.append(f"{dominated} more {'is' if dominated == 1 else 'are'} dominated")
    return "; ".join(found)


def _times(member: FrontMember) -> str:
    return short(member.cost) if member.times is None else f"{member.times:.2f}x"


def _difference(member: FrontMember, digits: int) -> str:
    if member.mean is None:
        return "-"
    spread = f" ± {member.half_width:.{digits}f}" if member.half_width is not None else ""
    return f"{member.mean:+.{digits}f}{spread}"


def _digits(front: Front) -> int:
    known = [each for each in front.members if each.mean is not None]
    return digits_of([Difference(each.mean or 0.0, each.half_width, 0) for each in known])
