"""Preemption: on SIGTERM the step ends, the training state is written, the trial moves on."""

from __future__ import annotations

import signal
from types import FrameType


class PreemptionFlag:
    """Whether this process was told to go.

    While a trial runs it is deferred: SIGTERM is a flag, also between two stretches of the trial, as the next
    one is about to be asked for. Otherwise it is what it was before.
    """

    def __init__(self) -> None:
        """Take SIGTERM over; in the main thread only."""
        self.raised = False
        self.deferred = False
        self._before = signal.signal(signal.SIGTERM, self._take)

    def _take(self, signum: int, frame: FrameType | None) -> None:
        self.raised = True
        if self.deferred:
            return
        signal.signal(signal.SIGTERM, self._before)
        if callable(self._before):
            self._before(signum, frame)
        else:
            signal.raise_signal(signum)
