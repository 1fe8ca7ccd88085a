"""Runs with their scores on downstream tasks: one metric of a model, two models compared by document."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, Protocol

from sweeps.folders import Folders
from sweeps.records import Role, TrialRecord
from sweeps.task_scores import FOLDER, TaskScores
from tli.tasks.paired import PairedDifference, paired_difference
from tli.tasks.scores import TaskScore, read_scores

if TYPE_CHECKING:
    from sweeps.ledger import LedgerView

Difference = PairedDifference


class Kept(Protocol):
    """A sweep, as far as its scores go: where its files lie, and its study."""

    @property
    def folders(self) -> Folders:
        """Where everything of it lies on disk."""

    @property
    def ledger(self) -> LedgerView:
        """Its Optuna study."""


@dataclass(frozen=True)
class Cell:
    """One metric of one model.

    Attributes:
        value: mean over its runs.
        stderr: over documents, each with its mean over the runs; None where the metric has none.
        runs: numbers of the trials whose scores these are, by seed.
    """

    value: float
    stderr: float | None
    runs: tuple[int, ...]


@dataclass(frozen=True)
class MetricRow:
    """One metric of one task, and what the base scores.

    Attributes:
        task, metric: names; `main` for the first metric of a task.
        documents: how many were scored.
        chance: what a guess scores; only of accuracy.
        higher_is_better: None where the task does not say.
        base: the base as it is; None where it was not scored.
    """

    task: str
    metric: str
    main: bool
    documents: int
    chance: float | None
    higher_is_better: bool | None
    base: Cell | None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        differences = {
            name: value.to_json() for name, value in vars(self).items() if isinstance(value, Difference)
        }
        return {**asdict(self), **differences}


class ScoredRun:
    """One run with its scores; those of documents are read when they are asked for."""

    def __init__(
        self,
        folders: Folders,
        ledger: LedgerView,
        seed: int,
        scores: Mapping[str, tuple[TrialRecord, TaskScores]],
    ) -> None:
        """Read nothing yet.

        Args:
            folders: of the sweep.
            ledger: its study.
            seed: of the run.
            scores: by task, each with the run that has them on disk.
        """
        self._folders, self._ledger, self.seed, self._scores = folders, ledger, seed, scores
        self._read: dict[str, TaskScore | None] = {}

    def scores(self, task: str) -> TaskScores | None:
        """Its scores on a task; None where it was not scored on it."""
        return self._scores[task][1] if task in self._scores else None

    def number(self, task: str) -> int:
        """Of the trial that has the scores: its own, or of one that made it again for them."""
        return self._scores[task][0].number

    def documents(self, task: str, metric: str) -> tuple[float, ...]:
        """Results by document; none where they are not on disk, or are of other scores."""
        if task not in self._read:
            record, known = self._scores[task]
            path = self._folders.trial(record.number) / FOLDER / f"{task}.json"
            found = read_scores(path, self._ledger.owner(record))
            same = found is not None and found.data == known.data and found.shots == known.shots
            self._read[task] = found if same else None
        read = self._read[task]
        return read.documents.get(metric, ()) if read is not None else ()


def fresh_runs(records: Sequence[TrialRecord], number: int | None) -> list[TrialRecord]:
    """The runs of a trial under fresh seeds, by seed."""
    found = [r for r in records if r.role is Role.REPLICATE and number is not None]
    return sorted((r for r in found if r.replicate_of == number), key=lambda r: r.seed)


def cell(runs: Sequence[ScoredRun], task: str, metric: str) -> Cell | None:
    """A metric of a model, the mean over its runs; None where none of them has it."""
    known = [
        (run, scores.metrics[metric])
        for run in runs
        if (scores := run.scores(task)) and metric in scores.metrics
    ]
    if not known:
        return None
    value = fmean(score.value for _, score in known)
    documents = [run.documents(task, metric) for run, _ in known]
    lengths = {len(each) for each in documents}
    if len(lengths) == 1 and (count := lengths.pop()) > 1:
        means = [fmean(results) for results in zip(*documents, strict=True)]
        stderr: float | None = stdev(means) / math.sqrt(count)
    else:  # not on disk any more: what the runs had alone, which is no less
        errors = [score.stderr for _, score in known if score.stderr is not None]
        stderr = fmean(errors) if len(errors) == len(known) else None
    return Cell(value, stderr, tuple(run.number(task) for run, _ in known))


def difference(
    ours: Sequence[ScoredRun], theirs: Sequence[ScoredRun], task: str, metric: str
) -> PairedDifference | None:
    """One model minus another, over the seeds that both have, of scores on the same documents."""
    others = {run.seed: run for run in theirs}
    return difference_of([(run, others[run.seed]) for run in ours if run.seed in others], task, metric)


def difference_of(
    pairs: Sequence[tuple[ScoredRun, ScoredRun]], task: str, metric: str
) -> PairedDifference | None:
    """The first of each pair minus the second; None where they were not scored on the same documents."""
    data = {scores.data for pair in pairs for run in pair if (scores := run.scores(task))}
    if len(data) != 1:
        return None
    first, second = ([run.documents(task, metric) for run in side] for side in zip(*pairs, strict=True))
    return paired_difference(first, second)
