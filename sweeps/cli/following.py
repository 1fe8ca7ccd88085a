"""`sweeps status --follow`: the live table of a sweep that another process drives, on any machine."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sweeps.cli import documents
from sweeps.cli.output import print_line
from sweeps.commands import command
from sweeps.records import Role, State, TrialRecord
from sweeps.results.standing import Aim, aim_of, due_of

if TYPE_CHECKING:
    from sweeps.results.standing import Board
    from sweeps.results.sweep import Sweep

LOOKS_EVERY = 2.0  # seconds between two looks into the study
DRIVERLESS = 60.0  # seconds without a driver before no more is waited for: one that is restarted takes less


def board_of(sweep: Sweep, started: float) -> Board:
    """How a sweep stands now, of one that is looked at from outside."""
    from sweeps.driver.schedule.spending import spent
    from sweeps.results.standing import Board

    phase = phase_of(sweep)
    board = Board(_aim(sweep, phase), started, due=due_of(sweep.spec), begins=False)
    board.take(sweep.records, phase)
    board.spend(spent(sweep.ledger))
    return board


def phase_of(sweep: Sweep) -> str:
    """What a sweep does, by its study: `search`, `finalists`, `ladder`, `evaluation`, `finished`, `promotion`
    while a long run is trained, or `not running`.
    """
    records = sweep.records
    if sweep.ledger.driver is not None and any(_runs(record) and record.role.promoted for record in records):
        return "promotion"
    if sweep.ledger.finished:
        return "finished"
    if sweep.ledger.driver is None:
        return "not running"
    if any(_runs(record) and not record.role.after for record in records):
        return "search"  # of a sweep that goes on with more trials, too
    roles = {record.role for record in records}
    for role, phase in ((Role.EVALUATION, "evaluation"), (Role.RUNG, "ladder")):
        if role in roles:
            return phase
    return "finalists" if any(role.fresh for role in roles) else "search"


def _aim(sweep: Sweep, phase: str) -> Aim:
    """What is looked at: the sweep, with its long runs while one of them is trained."""
    return replace(aim_of(sweep.spec), long=phase == "promotion")


def _runs(record: TrialRecord) -> bool:
    return record.state is State.RUNNING


def follow(sweep: Sweep, options: argparse.Namespace) -> int:
    """Show a sweep until it ends, or until no process has driven it for a while; Ctrl-C leaves.

    With `--json` a line for each change, at most one each time that the study is looked at.
    """
    try:
        if options.json:
            _as_lines(sweep)
        else:
            _on_display(sweep, options)
    except KeyboardInterrupt:
        return 130
    return 0


def wait() -> None:
    """Until it is time for the next look."""
    time.sleep(LOOKS_EVERY)


def _on_display(sweep: Sweep, options: argparse.Namespace) -> None:
    from sweeps.driver.schedule.spending import spent
    from sweeps.report.live import Display

    spec = sweep.spec
    with Display(_aim(sweep, phase_of(sweep)), sys.stdout, due=due_of(spec), begins=False) as display:
        watch = _Driverless()
        while True:
            phase = phase_of(sweep)
            display.spent(spent(sweep.ledger))
            display.update(sweep.records, phase)
            if phase == "finished" or watch.over(phase):
                break
            wait()
        if phase != "finished":
            again = command("resume", options.name, runs=sweep.folders.artifacts, study=options.study)
            display.note(f"no process drives {spec.name} now; `{again}` goes on with it")


def _as_lines(sweep: Sweep) -> None:
    from sweeps.driver.schedule.spending import spent

    watch, before = _Driverless(), dict[str, Any]()
    started = time.time()
    board = board_of(sweep, started)
    while True:
        phase = phase_of(sweep)
        board.take(sweep.records, phase)
        board.spend(spent(sweep.ledger))
        now = documents.followed(sweep, board.standing(time.time(), 1))
        if {**now, "left": None} != before:
            print_line({**now, "time": time.time()})
            before = {**now, "left": None}
        if phase == "finished" or watch.over(phase):
            return
        wait()


class _Driverless:
    """Whether a sweep has been without a driver for so long that no more is waited for."""

    def __init__(self) -> None:
        self._since: float | None = None

    def over(self, phase: str) -> bool:
        if phase != "not running":
            self._since = None
            return False
        self._since = time.monotonic() if self._since is None else self._since
        return time.monotonic() - self._since >= DRIVERLESS
