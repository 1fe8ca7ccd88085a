"""Detects workers that stopped reporting: frozen, cut off, or stuck where their watchdog cannot act.

Silence is measured in the time in which the driver listened. While it waits for its database, or is stopped
itself, reports lie unread, and that says nothing of those who sent them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from sweeps.clock import Awake

_LONGEST = 2.0  # seconds between two looks at the reports; more of them were spent elsewhere
_SLACK = 10.0  # times the slowest pace seen
_WRITES = 10.0  # times the floor, where a model is written too: a slow disk is not known before


@dataclass
class _Heard:
    """The last that was heard of one execution."""

    worker: tuple[str, int]  # node, process id
    at: float  # seconds of listening
    step: int
    next_step: int
    floor: float  # seconds of silence that are allowed at least


class StallMonitor:
    """Which executions are silent for longer than the slowest pace of the sweep explains.

    The pace is learned: seconds a step between two measurements of any trial, held-out loss included. Before
    two were heard, and before an execution's first one, what is normal is not known, and nothing is done.
    """

    def __init__(
        self,
        floor: float,
        kill: Callable[[str, int], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is watched before `start`.

        Args:
            floor: seconds of silence that are always allowed.
            kill: ends a worker, by node and process id.
            clock: seconds; never the wall clock, which may be moved.
        """
        self._floor, self._kill = floor, kill
        self._listened = Awake(longest=_LONGEST, clock=clock)
        self._now = self._listened()
        self._lock = threading.Lock()
        self._heard: dict[str, _Heard] = {}
        self._slowest: float | None = None  # seconds a step
        self.hung: set[str] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="watch", daemon=True)

    def start(self) -> None:
        """Look on, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Look on no more."""
        self._ended.set()
        self._thread.join()

    def listens(self) -> None:
        """The driver has come round to the reports again; called each time, however little came."""
        with self._lock:
            self._now = self._listened()

    def heard(
        self, execution: str, worker: tuple[str, int], step: int, next_step: int, *, writes: bool = False
    ) -> None:
        """A measurement came; the next is due at `next_step`, after a model is written where it `writes`."""
        with self._lock:
            now, before = self._now, self._heard.get(execution)
            if before is not None and step > before.step:
                pace = (now - before.at) / (step - before.step)
                self._slowest = max(self._slowest or 0.0, pace)
            floor = self._floor * (_WRITES if writes else 1.0)
            self._heard[execution] = _Heard(worker, now, step, next_step, floor)

    def forget(self, execution: str) -> None:
        """An execution has ended."""
        with self._lock:
            self._heard.pop(execution, None)

    def silent(self) -> list[str]:
        """Executions that have been silent for too long."""
        with self._lock:
            return [name for name, heard in self._heard.items() if self._is_silent(heard)]

    def look(self) -> None:
        """Kill the workers of those that are silent; each is marked as hung first."""
        for name in self.silent():
            with self._lock:
                heard = self._heard.pop(name, None)
            if heard is not None:
                self.hung.add(name)
                self._kill(*heard.worker)

    def _is_silent(self, heard: _Heard) -> bool:
        if self._slowest is None:
            return False
        expected = self._slowest * max(1, heard.next_step - heard.step)
        return self._now - heard.at > max(heard.floor, _SLACK * expected)

    def _look_on(self) -> None:
        while not self._ended.wait(min(1.0, self._floor / 4)):
            self.look()
