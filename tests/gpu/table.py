"""What was found, row by row: printed as it comes, and kept as JSON that is whole at any moment."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PASSED, FAILED, MEASURED, SKIPPED = "passed", "FAILED", "measured", "not run"


@dataclass(frozen=True)
class Row:
    """One finding.

    Attributes:
        what: was looked at.
        state: passed, failed, measured (there is no bound for it) or not run.
        said: the finding in words, with its bound.
        values: the same as numbers.
    """

    what: str
    state: str
    said: str
    values: Mapping[str, Any] = field(default_factory=dict)


def judged(what: str, said: str, *, holds: bool, **values: Any) -> Row:
    """A row that passes or fails."""
    return Row(what, PASSED if holds else FAILED, said, values)


def measured(what: str, said: str, **values: Any) -> Row:
    """A row without a bound."""
    return Row(what, MEASURED, said, values)


def skipped(what: str, reason: str) -> Row:
    """A row of what did not run."""
    return Row(what, SKIPPED, reason)


class Table:
    """The rows of one run. Safe to add to and to finish from two threads."""

    def __init__(self, facts: Mapping[str, Any], target: Path | None) -> None:
        """Nothing is written before the first row.

        Args:
            facts: about the machine and the libraries.
            target: the JSON file.
        """
        self.facts = dict(facts)
        self.rows: list[tuple[str, float, Row]] = []
        self._target = target
        self._began = time.monotonic()
        self._lock = threading.RLock()

    @property
    def seconds(self) -> float:
        """Since the table was begun."""
        return time.monotonic() - self._began

    def add(self, check: str, row: Row) -> None:
        """Print a row and write all of them."""
        with self._lock:
            self.rows.append((check, round(self.seconds, 1), row))
            print(self._line(*self.rows[-1]), flush=True)
            self._write(whole=False)

    def finish(self, *, whole: bool) -> int:
        """Print the count and write the end; returns the exit status: 1 where something failed."""
        with self._lock:
            states = [row.state for _, _, row in self.rows]
            counts = {state: states.count(state) for state in (PASSED, FAILED, MEASURED, SKIPPED)}
            said = ", ".join(f"{count} {state}" for state, count in counts.items())
            cut = "" if whole else "; the time was up before the end"
            print(f"{said} in {self.seconds:.0f} s{cut}", flush=True)
            self._write(whole=whole)
            return 1 if counts[FAILED] else 0

    @staticmethod
    def _line(check: str, at: float, row: Row) -> str:
        return f"{at:6.1f} s  {row.state:8}  {check:12}  {row.what:42}  {row.said}"

    def _write(self, *, whole: bool) -> None:
        if self._target is None:
            return
        rows = [{"check": check, "at": at, **asdict(row)} for check, at, row in self.rows]
        made = {"facts": self.facts, "whole": whole, "seconds": round(self.seconds, 1), "rows": rows}
        self._target.parent.mkdir(parents=True, exist_ok=True)
        aside = self._target.with_suffix(f".tmp-{os.getpid()}")
        aside.write_text(json.dumps(made, indent=1), encoding="utf-8")
        aside.replace(self._target)
