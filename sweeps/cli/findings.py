"""A finding of `sweeps doctor`: ok, wrong or a note, and how it is printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `ok` None is neither right nor wrong: worth knowing."""

    name: str
    ok: bool | None
    detail: str
    remedy: str = ""

    @classmethod
    def good(cls, name: str, detail: str) -> Finding:
        """As it should be."""
        return cls(name, ok=True, detail=detail)

    @classmethod
    def wrong(cls, name: str, detail: str, remedy: str) -> Finding:
        """A sweep would suffer from it."""
        return cls(name, ok=False, detail=detail, remedy=remedy)

    @classmethod
    def note(cls, name: str, detail: str, remedy: str = "") -> Finding:
        """Worth knowing."""
        return cls(name, ok=None, detail=detail, remedy=remedy)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def text(findings: Sequence[Finding]) -> str:
    """A line for each finding, what to do below it, and the sum of it all."""
    marks = {True: "ok   ", False: "WRONG", None: "note "}
    width = max((len(finding.name) for finding in findings), default=0)
    lines = []
    for finding in findings:
        lines.append(f"{marks[finding.ok]}  {finding.name:<{width}}  {finding.detail}")
        if finding.remedy and finding.ok is not True:
            lines.append(f"{'':<{width + 7}}  try {finding.remedy}")
    wrong = sum(finding.ok is False for finding in findings)
    sums = {0: "nothing is wrong", 1: "1 thing is wrong"}
    return "\n".join([*lines, "", sums.get(wrong, f"{wrong} things are wrong")])


def first_line(error: BaseException) -> str:
    """The first line of what an error says, short."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
