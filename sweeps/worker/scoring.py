"""Scores a trained model on the spec's downstream tasks, in the process that trained it.

Each task's result is on disk as soon as it is there, with each document's; an attempt that goes on from the
state that was saved before the first task measures only those that are left.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.errors import PreemptedError, Problem, StopRequestedError
from sweeps.folders import Folders
from sweeps.records import Assignment, Point, Role
from sweeps.spec import Spec
from sweeps.task_scores import FOLDER, TaskScores, aimed
from sweeps.wording import masked
from sweeps.worker.keeps import Keeps
from tli.errors import InputError
from tli.tasks.scores import TaskScore, read_scores, write_scores

if TYPE_CHECKING:
    from sweeps.worker.saving import Saving
    from tli.training.loop import Training

_LOG = logging.getLogger(__name__)


def is_scored(spec: Spec, assignment: Assignment) -> bool:
    """Whether the model of a run is scored on tasks after its last step."""
    if assignment.role is Role.EVALUATION or _is_aimed(spec, assignment):
        return True
    original = assignment.settings["injection"]["method"] == "none"
    return spec.evaluation.applies_to(assignment.role.value, original=original)


def _is_aimed(spec: Spec, assignment: Assignment) -> bool:
    """Whether a run is one of a search that goes by a score, alone or beside the loss: it is its result."""
    return spec.objective.scored is not None and not assignment.role.after


class Scoring:
    """The scores of one run's model, after its last step."""

    def __init__(self, context: Keeps, assignment: Assignment, folders: Folders, training: Training) -> None:
        """Look at how far the training is, right after its state was loaded, or none was there.

        Args:
            context: of this process.
            assignment: what is trained.
            folders: of the sweep.
            training: not yet gone on with.
        """
        self._context, self._assignment, self._training = context, assignment, training
        self._folders, self._wanted = folders, context.spec.evaluation.to_tli()
        self._aim = context.spec.objective.scored if _is_aimed(context.spec, assignment) else None
        self._names = self._wanted.names if self._aim is None else (self._aim[0],)
        self._folder = folders.trial(assignment.number) / FOLDER
        # Results on disk are of this very model: it goes on from the state of its last step, or is the base.
        self._whole = training.step == assignment.steps
        self._before = training.measured  # the step of the measurement before the last

    def measured(self, point: Point, saving: Saving) -> Point:
        """The point, of the last step with the scores of its model.

        Args:
            point: the measurement of now.
            saving: of the run.
        """
        if point.step == self._assignment.steps:
            point = replace(point, tasks=self._scores(saving, point.train_loss))
        self._before = point.step
        return point

    def _scores(self, saving: Saving, train_loss: Sequence[tuple[int, float]]) -> dict[str, TaskScores]:
        """Scores by task, none where the run is not scored; every rank takes part.

        A task that cannot be scored costs no trained model: what went wrong is in the process's log. A run of
        the role evaluation, which is there for the scores alone, fails by it, and one whose score is what the
        search goes by.

        Args:
            saving: of the run; asked before each pass whether the process has to go.
            train_loss: by step, since the measurement before.
        """
        if not is_scored(self._context.spec, self._assignment):
            return {}
        if not self._whole:
            with self._unmeasured(train_loss):
                saving.save_now()
            if self._context.leads:
                shutil.rmtree(self._folder, ignore_errors=True)
        files = {name: self._folder / f"{name}.json" for name in self._names}
        kept = self._kept(files) if self._whole else {}
        try:
            found = {name: self._score(file, kept.get(name), saving) for name, file in files.items()}
            self._check_aim(found)
        except (PreemptedError, StopRequestedError):
            raise
        except Exception as error:
            # Of an error that all ranks have alike they all go on; after another the others would wait.
            alike = self._context.alone or isinstance(error, InputError)
            if self._assignment.role is Role.EVALUATION or self._aim is not None or not alike:
                raise
            number, said = self._assignment.number, masked(str(error))
            _LOG.warning("trial %s was not scored: %s", number, said, exc_info=True)
            return {}
        return found

    def _kept(self, files: Mapping[str, Path]) -> dict[str, TaskScore]:
        found = {name: read_scores(file, self._assignment.owner) for name, file in files.items()}
        asked = self._wanted.shots, self._wanted.limit
        return {name: each for name, each in found.items() if each and (each.shots, each.limit) == asked}

    def _score(self, file: Path, score: TaskScore | None, saving: Saving) -> TaskScores:
        """The scores on one task, measured now where no process has them."""
        context = self._context
        if context.any_rank(score is None):
            from tli.models.loading import load_tokenizer

            model, tokenizer = self._training.model, load_tokenizer(context.base.folder)
            score = context.harness.score(model, tokenizer, file.stem, on_batch=saving.before_pass)
            score = replace(score, shots=self._wanted.shots)  # as asked; a task file may hold it at none
            if context.leads:
                self._folders.make(self._folder)
                write_scores(file, score, self._assignment.owner)
        assert score is not None, "what no process lacks is here"
        return TaskScores.from_json(score.to_json())

    def _check_aim(self, found: Mapping[str, TaskScores]) -> None:
        """Raises InputError where what the search goes by is no number among the scores."""
        if self._aim is None or aimed(found, self._aim) is not None:
            return
        known = [f"{task}/{metric}" for task, scores in found.items() for metric in scores.metrics]
        got = f"{'/'.join(self._aim)}, which was not scored"
        where = "objective.metric" if self._context.spec.objective.task else "objective.score"
        raise InputError(Problem(where, got, f"one of {', '.join(known)}"))

    @contextmanager
    def _unmeasured(self, train_loss: Sequence[tuple[int, float]]) -> Iterator[None]:
        """The training as it was before its last measurement, for a state: an attempt that goes on from it
        measures again, and has the train losses up to there.
        """
        training, now = self._training, self._training.measured
        training.measured, training.unreported = self._before, list(train_loss)
        try:
            yield
        finally:
            training.measured, training.unreported = now, []
