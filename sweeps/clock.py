"""A clock that does not count the time in which this process, its container or its machine was stopped.

Ctrl-Z, `docker pause` and a batch system that suspends a job stop a driver for hours, and the system's clocks
go on. What is measured in them would take the stop for silence, for search, or for slow training.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import lru_cache

STATE_SECONDS = 15.0  # between two training states of a trial, which are written behind its back

_LOOKS_EVERY = 1.0  # seconds
_LONGEST = 10.0  # seconds between two looks that a busy machine may explain


class Awake:
    """Seconds in which this clock was looked at again and again: what lies between two looks that are too far
    apart counts as the longest time that is not.
    """

    def __init__(self, *, longest: float = _LONGEST, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin at 0.

        Args:
            longest: seconds between two looks that count in full.
            clock: seconds; never the wall clock, which may be moved.
        """
        self._longest, self._clock = longest, clock
        self._lock = threading.Lock()
        self._seen, self._counted, self._missed = clock(), 0.0, 0.0

    def __call__(self) -> float:
        """Look: the seconds so far."""
        with self._lock:
            now = self._clock()
            passed = max(0.0, now - self._seen)
            self._counted += min(passed, self._longest)
            self._missed += max(0.0, passed - self._longest)
            self._seen = now
            return self._counted

    def missed(self) -> float:
        """Look: the seconds that did not count, so far."""
        self()
        return self._missed


@lru_cache(maxsize=1)
def awake() -> Awake:
    """The clock of this process, which a thread looks at from now on."""
    clock = Awake()

    def look() -> None:
        while True:
            time.sleep(_LOOKS_EVERY)
            clock()

    threading.Thread(target=look, name="awake", daemon=True).start()
    return clock
