"""The state from which a longer run of the same trial goes on, kept for a promotion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from sweeps.worker.saving import STEP, WRITING, OnWork, StateWriter

if TYPE_CHECKING:
    from tli.training.loop import Training


class Branching:
    """Writes one state of a training at one step, behind its back."""

    def __init__(self, training: Training, writer: StateWriter | None, step: int, on_work: OnWork) -> None:
        """Nothing is written before that step.

        Args:
            training: that goes on meanwhile.
            writer: of its states; None where none is wanted.
            step: before which the state is written; of the last one, after it.
            on_work: called before the state is copied, and before it is waited for.
        """
        self._training, self._writer, self._step, self._on_work = training, writer, step, on_work
        self._begun = False

    def around(self, between: OnWork) -> OnWork:
        """What is called before each piece of work: the state is written first, where it is time."""

        def called(work: str) -> None:
            if work == STEP:
                self._save()
            between(work)

        return called

    def finish(self) -> None:
        """The training is at its end: what is being written is whole afterwards."""
        self._save()
        if self._writer is not None:
            self._on_work(WRITING)
            self._writer.wait()

    def _save(self) -> None:
        if self._writer is not None and not self._begun and self._training.step == self._step:
            self._begun = True
            self._on_work(WRITING)
            self._writer.save(self._training)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is written any more."""
        if self._writer is not None:
            self._writer.close()
