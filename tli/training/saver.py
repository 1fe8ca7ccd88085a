"""Asynchronous checkpoint writer: a copy is made at once, a thread hashes and writes it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from tli.checkpoint.atomic import disk_space_problems
from tli.training.state import State, copy_state, write_state

if TYPE_CHECKING:
    from tli.training.loop import Training


class Saver:
    """Writes the states of one training into one folder, at most one at a time. Not thread-safe."""

    def __init__(self, folder: Path, before: Callable[[], None], owner: str = "") -> None:
        """Nothing happens before the first `save`.

        Args:
            folder: of the states; it is made.
            before: called in the thread before each is written, for what has to be on disk before it counts.
            owner: what the states bear, to be taken up for it alone.
        """
        self._folder = folder
        self._owner = owner
        self._before = before
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="saver")
        self._writing: Future[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether one is being written."""
        return self._writing is not None and not self._writing.done()

    def save(self, training: Training) -> None:
        """Copy the state of a training, and have it written; waits for the one before.

        Raises:
            OSError: there is no room for it, or the one before could not be written. Earlier ones stay.
        """
        self.wait()
        state = copy_state(training, self._owner)
        self._folder.mkdir(parents=True, exist_ok=True)
        if disk_space_problems(self._folder, state.size):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))
        self._writing = self._thread.submit(self._write, state)

    def wait(self) -> None:
        """Wait until nothing is being written.

        Raises:
            OSError: the last one could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Let the one that is being written end, well or badly: it is not needed any more."""
        self._thread.shutdown()

    def _write(self, state: State) -> None:
        self._before()
        write_state(state, self._folder)
