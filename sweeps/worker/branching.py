"""The state from which a longer run of the same trial goes on, kept for a promotion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from sweeps.curve import CURVE, append_curve, read_curve
from sweeps.folders import Folders
from sweeps.records import Assignment, Point
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


class StateReader(Protocol):
    """Takes up states of a training, alone or as one of several ranks."""

    leads: bool  # whether this process writes the curve

    def load_state(self, training: Training, folder: Path, owner: str) -> bool:
        """Put the newest good state into a training; whether there was one."""


def take_up(
    reader: StateReader,
    training: Training,
    assignment: Assignment,
    folders: Folders,
    on_note: Callable[[str], None],
) -> tuple[Point, ...]:
    """Put a state into a training: its own newest one, else that of the trial which it makes longer.

    Returns what was measured before that state; the other trial's measurements become this one's. Where
    states of its own are there and none can be taken up, that is noted.
    """
    from tli.training.state_names import states_of

    states, owner = folders.checkpoints(assignment.number), assignment.owner
    curve = folders.trial(assignment.number) / CURVE
    if reader.load_state(training, states, owner):
        return _measured(curve, owner, training)
    if reader.leads and (lost := states_of(states, owner)):
        names = ", ".join(each.name for each in lost)
        on_note(f"begins afresh: none of its states can be taken up ({names})")
    if assignment.begins is None:
        return ()
    other, theirs = assignment.begins
    if not reader.load_state(training, folders.branch(other), theirs):
        if reader.leads:
            on_note(f"begins afresh: the state of trial {other} can no longer be taken up")
        return ()
    known = _measured(folders.trial(other) / CURVE, theirs, training)
    for point in known if reader.leads else ():
        append_curve(curve, point, owner)
    return known


def _measured(curve: Path, owner: str, training: Training) -> tuple[Point, ...]:
    """What stands in a curve of the steps before a state; the losses on test text are those of an end."""
    last = -1 if training.measured is None else training.measured
    return tuple(replace(p, test_losses=()) for p in read_curve(curve, owner) if p.step <= last)
