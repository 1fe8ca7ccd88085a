"""How far a sweep is, for who reads an answer before its end; and why there is none."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sweeps.commands import command
from sweeps.errors import SweepError
from sweeps.text import counted

if TYPE_CHECKING:
    from sweeps.results.sweep import Sweep
    from sweeps.spec import Spec


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
        done = f"{self.ended} of {self.budget} trials {'has' if self.ended == 1 else 'have'} ended"
        if self.ended >= self.budget:
            done += f", and {counted(self.replicates_ended, 'replicate')} under other seeds"
        if self.driver is None and self.go_on is None:
            return f"the sweep was not finished: {done}; it was made by an earlier version, and is read alone"
        then = f"{self.driver} drives it now" if self.driver else f"`{self.go_on}` goes on"
        return f"the sweep is not finished, so the answer may change: {done}; {then}"


def progress_of(sweep: Sweep, reference: str) -> Progress:
    """How far a sweep is.

    Args:
        sweep: that was found.
        reference: what the user calls it, for the command that goes on.
    """
    finished, driver = sweep.ledger.finished, sweep.ledger.driver
    ended = [record for record in sweep.records if record.ours and record.state.finished]
    refused = sweep.ledger.spec.before_fresh_seeds  # such a study is read, and not run on
    again = command("resume", reference, runs=sweep.folders.artifacts)
    return Progress(
        finished=finished,
        ended=sum(not record.role.after for record in ended),
        budget=sweep.ledger.spec.budget.trials,
        replicates_ended=sum(record.role.fresh for record in ended),
        driver=driver,
        go_on=None if finished or driver or refused else again,
    )


def ended_before(spec: Spec) -> int:
    """Trials of its study that have ended; 0 where there is no study, or none that can be read.

    What is wrong with the study is for the check before a run to say.
    """
    from sweeps.results.finding import found
    from tli.errors import InputError

    try:
        records = found(spec).records
    except (InputError, SweepError):
        return 0
    return sum(r.ours and r.state.finished and not r.role.promoted for r in records)
