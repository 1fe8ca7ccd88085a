"""How far a sweep is, for who reads an answer before its end; and why there is none."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sweeps.records import State

if TYPE_CHECKING:
    from sweeps.results.sweep import Sweep


@dataclass(frozen=True)
class Progress:
    """Of a sweep: `ended` of the `budget` trials of the search, and of replicates under further seeds."""

    finished: bool  # running it again would find nothing to do
    ended: int
    budget: int
    replicates_ended: int
    driver: str | None  # the process that drives it now
    go_on: str | None  # the command that goes on; None where it is finished, or driven

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @property
    def note(self) -> str | None:
        """In one line; None of a sweep that is finished."""
        if self.finished:
            return None
        done = f"{self.ended} of {self.budget} trials have ended"
        if self.ended >= self.budget:
            done += f", and {self.replicates_ended} replicates under other seeds"
        then = f"{self.driver} drives it now" if self.driver else f"`{self.go_on}` goes on"
        return f"the sweep is not finished, so the answer may change: {done}; {then}"


def progress_of(sweep: Sweep, reference: str, runs: str | None = None) -> Progress:
    """How far a sweep is.

    Args:
        sweep: that was found.
        reference: what the user calls it, for the command that goes on.
        runs: the folder of results, where the user named it.
    """
    verdict, finished, driver = sweep.verdict, sweep.ledger.finished, sweep.ledger.driver
    command = shlex.join(["sweeps", "resume", reference, *(["--runs", runs] if runs else [])])
    return Progress(
        finished=finished,
        ended=_ended(verdict.counts),
        budget=sweep.ledger.spec.budget.trials,
        replicates_ended=_ended(verdict.replicates),
        driver=driver,
        go_on=None if finished or driver else command,
    )


def _ended(counts: Any) -> int:
    return sum(number for state, number in counts.items() if State(state).finished)
