"""What a command and all processes below it take: memory and processor time, by looking at /proc."""

from __future__ import annotations

import math
import os
import threading
import time
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_MEMORY_EVERY = 3.0  # seconds; the kernel walks all pages of a process for it, and holds it up meanwhile


class Watched:
    """Samples a process and all its descendants until it is stopped.

    Attributes:
        peak: the highest sum of their proportional set sizes seen, in bytes.
    """

    def __init__(self, root: int, every: float = 0.5) -> None:
        """Begin at once.

        Args:
            root: id of the process.
            every: seconds between two looks at processor time; a process that lives shorter may be missed.
        """
        self.peak = 0
        self._root, self._every, self._ended = root, every, threading.Event()
        self._seconds: dict[int, float] = {}
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    @property
    def seconds(self) -> float:
        """Processor time of all of them, as last seen of each."""
        return sum(self._seconds.values())

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        looked = -math.inf
        while not self._ended.wait(self._every):
            family = descendants(self._root)
            if (now := time.monotonic()) - looked >= _MEMORY_EVERY:
                looked, self.peak = now, max(self.peak, sum(map(_pss, family)))
            self._seconds.update({pid: spent for pid in family if (spent := _spent(pid)) is not None})


def descendants(root: int) -> list[int]:
    """A process and all below it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = {root}
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        grown = bool(more)
        found |= more
    return sorted(found)


def _pss(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _spent(pid: int) -> float | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / _TICKS
