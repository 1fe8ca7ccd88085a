"""Saves a trial's training states between two pieces of work: when it is time, or the process has to go."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from sweeps.clock import STATE_SECONDS
from sweeps.errors import PreemptedError
from tli.files import sync

if TYPE_CHECKING:
    from tli.training.loop import Training

CHECKPOINT_SECONDS = STATE_SECONDS
STEP = "step"  # the kind of work of an optimizer step, as `tli.training.loop` calls it
WRITING = "writing"  # a kind of work beside those of `tli.training.loop`: a state or a model
TESTING = "testing"  # another one: the loss on one block of the test text
SCORING = "scoring"  # a third: one pass of a downstream task

OnWork = Callable[[str], None]


class StateWriter(Protocol):
    """Writes the states of one training behind its back."""

    @property
    def busy(self) -> bool:
        """Whether one is being written."""

    def save(self, training: Training) -> None:
        """Have the state of now written."""

    def wait(self) -> None:
        """Wait until nothing is being written."""

    def close(self) -> None:
        """Let the one that is being written end."""


class Saving:
    """Between two pieces of work: the state is written when it is time, or at a preemption notice."""

    def __init__(self, training: Training, saver: StateWriter, on_work: OnWork) -> None:
        """Nothing is written before it is time; `on_work` is called before each piece of work."""
        self.saver, self.on_work = saver, on_work
        self.finished = False  # whether the trial is at its end, and only its last point is to be taken
        self._training = training
        self._saved = time.monotonic()

    def between(self, work: str) -> None:
        """Before each step and each measurement."""
        due = self._due
        if due:
            self._save()
        try:
            self.on_work(work)
        except PreemptedError:
            if not due:
                self._save()
            self.saver.wait()
            raise

    def before_pass(self) -> None:
        """Before each pass of a task: the state of the model that is scored was saved before the first.

        Raises:
            PreemptedError, StopRequestedError: the process has to go, or the run to end.
        """
        self.on_work(SCORING)

    def save_now(self) -> None:
        """Have the state of now written, once the one before is."""
        self.saver.wait()
        self._save()

    @property
    def _due(self) -> bool:
        return time.monotonic() - self._saved > CHECKPOINT_SECONDS and not self.saver.busy

    def _save(self) -> None:
        self.on_work(WRITING)
        self.saver.save(self._training)
        self._saved = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Nothing is written any more."""
        self.saver.close()


def synced(curve: Path) -> None:
    """Have a curve on the disk, if there is one."""
    with suppress(FileNotFoundError):
        sync(curve)
