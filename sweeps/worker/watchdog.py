"""The worker's watchdog: dumps the threads of a trial that hangs, and ends its process.

The timer is a thread of C (`faulthandler`) that needs neither the interpreter nor a lock: what hangs inside a
kernel or a system call is ended as well. How long a piece of work may take is learned from those before it.
"""

from __future__ import annotations

import faulthandler
import os
import time
from dataclasses import dataclass
from pathlib import Path

from sweeps.folders import Folders
from sweeps.records import Assignment
from sweeps.worker.saving import WRITING
from tli.files import open_regular, read_regular

_STACKS = 10_000_000  # bytes at most, of all threads
_WRITES = 10.0  # times the least: a slow disk comes back, and a model is larger than what was written before


@dataclass(frozen=True)
class Bounds:
    """How long a piece of work may take, in seconds."""

    first: float = 1800.0  # of each kind: it loads, compiles, tunes
    least: float = 60.0  # afterwards, however fast it was
    times: float = 20.0  # the slowest seen of its kind


class Watchdog:
    """Ends this process when a trial in it hangs. One at a time in a process; used by its main thread."""

    def __init__(self, path: Path, bounds: Bounds, token: str = "") -> None:
        """Nothing is watched before `begin`.

        Args:
            path: where the stacks go; there only while it may be needed.
            bounds: of each piece of work.
            token: of the attempt; the first line, by which its driver knows the stacks for this attempt's.

        Raises:
            OSError: the file cannot be written, or is a link.
        """
        self._path = path
        self._file = os.fdopen(open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), "w")
        self._file.write(f"{token}\n")
        self._file.flush()
        self._bounds = bounds
        self._slowest: dict[str, float] = {}
        self._now: tuple[str, float] | None = None

    def begin(self, work: str) -> None:
        """A piece of work of this kind begins, and the one before it has ended."""
        self._learn()
        faulthandler.dump_traceback_later(self.bound(work), exit=True, file=self._file)
        self._now = (work, time.monotonic())

    def bound(self, work: str) -> float:
        """How long the next piece of this kind may take, in seconds."""
        slowest, least = self._slowest.get(work, 0.0), self._bounds.least
        if work == WRITING:
            least *= _WRITES
        return max(least, self._bounds.times * slowest) if slowest else self._bounds.first

    def rest(self) -> None:
        """Nothing is under way: another process is waited for."""
        self._learn()
        faulthandler.cancel_dump_traceback_later()

    def close(self) -> None:
        """Watch no more; the file goes, for it was not needed."""
        faulthandler.cancel_dump_traceback_later()
        self._file.close()
        self._path.unlink(missing_ok=True)

    def _learn(self) -> None:
        if self._now is None:
            return
        (work, began), self._now = self._now, None
        # The first of its kind says nothing of those after it, but that there was one.
        taken = time.monotonic() - began if work in self._slowest else 0.0
        self._slowest[work] = max(self._slowest.get(work, 0.0), taken)


def hung(folders: Folders, assignment: Assignment) -> Path | None:
    """Where the stacks lie of an attempt whose worker is gone, if it was ended because it hung; else None."""
    path = folders.hung(assignment.number, assignment.attempt)
    try:
        token, _, stacks = read_regular(path, _STACKS).partition(b"\n")
    except OSError:
        return None
    return path if token == assignment.token.encode() and stacks else None
