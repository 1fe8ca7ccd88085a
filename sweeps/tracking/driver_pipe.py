"""The pipe from the driver to the delivery process: whether to go on, and until when."""

from __future__ import annotations

import os
import select
import time

ORPHANED = 10.0  # seconds that a delivery goes on after its driver was killed


class Driver:
    """The other end of the pipe: whether it still wants us, and until when."""

    def __init__(self) -> None:
        self.deadline: float | None = None  # set once the driver has closed the pipe or is gone
        self._text = b""

    def wait(self, seconds: float) -> None:
        """Sleep, but wake when the driver speaks or ends."""
        if self.deadline is not None:
            time.sleep(max(0.0, min(seconds, self.deadline - time.monotonic())))
            return
        ready, _, _ = select.select([0], [], [], seconds)
        if ready:
            data = os.read(0, 4096)
            self._text += data
            if not data or b"\n" in self._text:
                self.deadline = time.monotonic() + (float(self._text) if self._text.strip() else ORPHANED)

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return self.deadline is not None and time.monotonic() >= self.deadline
