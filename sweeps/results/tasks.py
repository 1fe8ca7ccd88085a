"""Scores on downstream tasks: base, control and winner side by side, and their differences by document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from sweeps.records import Role, TrialRecord
from sweeps.results.evaluated import failures, runs_due, scores_of
from sweeps.results.promoted_scores import PromotedScores, promoted_scores
from sweeps.results.scored_runs import (
    Cell,
    Difference,
    Kept,
    MetricRow,
    ScoredRun,
    cell,
    difference,
    fresh_runs,
)

if TYPE_CHECKING:
    from sweeps.results.verdict import Verdict


__all__ = ["Cell", "Difference", "TaskRow", "TaskTable", "task_table", "tasks_of"]


@dataclass(frozen=True)
class TaskRow(MetricRow):
    """One metric of the models that a sweep is about.

    Attributes:
        control, matched, winner: the original, trained on for as many tokens, and with the winner's FLOPs;
            the best grown model. None where it was not scored.
        against_control, against_matched: the winner minus each, by document, over the seeds that both
            have.
    """

    control: Cell | None
    matched: Cell | None
    winner: Cell | None
    against_control: Difference | None
    against_matched: Difference | None


@dataclass(frozen=True)
class TaskTable:
    """Scores of a sweep so far.

    Attributes:
        objective: the task and metric that the search goes by; None where it goes by the loss.
        shots, limit: solved examples before each document, and documents at most.
        winner, control, matched: numbers of the trials whose fresh runs were scored.
        rows: by task and metric.
        missing: runs that are still to be scored.
        failed: why others were not, by what they are.
        promotions: those that have ended, each with its scores, which are of one seed.
    """

    shots: int
    limit: int | None
    winner: int | None
    control: int | None
    matched: int | None
    rows: tuple[TaskRow, ...]
    missing: tuple[int, ...]
    failed: tuple[str, ...]
    objective: str | None = None
    promotions: tuple[PromotedScores, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        names = ("objective", "shots", "limit", "winner", "control", "matched")
        plain = {name: getattr(self, name) for name in names}
        rows = [row.to_json() for row in self.rows]
        long_runs = [each.to_json() for each in self.promotions]
        others = {"missing": list(self.missing), "failed": list(self.failed), "promotions": long_runs}
        return {**plain, "scores": rows, **others}


class Answered(Kept, Protocol):
    """A sweep with its trials and its answer."""

    @property
    def records(self) -> list[TrialRecord]:
        """Every trial in the study, by number."""

    def answer(self, records: Sequence[TrialRecord], /) -> Verdict:
        """The answer if these were all trials."""


def task_table(
    sweep: Kept, verdict: Verdict, records: Sequence[TrialRecord], grown: int | None = None
) -> TaskTable | None:
    """The table of a sweep; None for one that scores nothing.

    Args:
        sweep: whose results on disk are read.
        verdict: of the records.
        records: every trial of it.
        grown: number of the grown model that stands in it as the winner; None for the best one.
    """
    spec, depth = sweep.ledger.spec, sweep.ledger.depth
    if not spec.evaluation.tasks:
        return None
    control, matched = verdict.control, verdict.matched
    winner = verdict.best_grown if grown is None else grown
    models = {
        "winner": fresh_runs(records, winner),
        "control": fresh_runs(records, control.number if control else None),
        "matched": _matched(records, matched.number if matched else None),
    }
    scores = {
        name: [
            ScoredRun(sweep.folders, sweep.ledger, run.seed, scores_of(spec, run, records)) for run in runs
        ]
        for name, runs in models.items()
    }
    scores["base"] = [ScoredRun(sweep.folders, sweep.ledger, 0, scores_of(spec, None, records))]
    names = spec.evaluation.to_tli().names
    reasons = failures(spec, records)
    return TaskTable(
        objective=spec.objective.metric if spec.objective.task is not None else None,
        shots=spec.evaluation.shots,
        limit=spec.evaluation.limit,
        winner=winner,
        control=control.number if control else None,
        matched=matched.number if matched else None,
        rows=tuple(row for task in names for row in _rows(task, scores)),
        missing=tuple(run.number for run in runs_due(spec, records, depth)),
        failed=tuple(
            f"{'the base' if run is None else f'trial {run}'}: {reason}" for run, reason in reasons.items()
        ),
        promotions=promoted_scores(sweep, records),
    )


def tasks_of(sweep: Answered) -> TaskTable | None:
    """The table of a sweep as it stands."""
    if not sweep.ledger.spec.evaluation.tasks:
        return None
    records = sweep.records
    return task_table(sweep, sweep.answer(records), records)


def _matched(records: Sequence[TrialRecord], number: int | None) -> list[TrialRecord]:
    """The runs under all seeds of which one is `number`."""
    one = next((r for r in records if r.number == number), None)
    if one is None:
        return []
    same = [r for r in records if r.role is Role.MATCHED and r.replicate_of == one.replicate_of]
    return sorted((r for r in same if r.steps == one.steps), key=lambda r: r.seed)


def _rows(task: str, models: dict[str, list[ScoredRun]]) -> Iterator[TaskRow]:
    scored = {name: [run for run in runs if run.scores(task)] for name, runs in models.items()}
    first = next((run.scores(task) for runs in scored.values() for run in runs), None)
    for index, (metric, score) in enumerate(first.metrics.items() if first else ()):
        cells = {name: cell(runs, task, metric) for name, runs in scored.items()}
        yield TaskRow(
            task=task,
            metric=metric,
            main=index == 0,
            documents=first.count if first else 0,
            chance=first.chance if first and metric == "acc" else None,
            higher_is_better=score.higher_is_better,
            base=cells["base"],
            control=cells["control"],
            matched=cells["matched"],
            winner=cells["winner"],
            against_control=difference(scored["winner"], scored["control"], task, metric),
            against_matched=difference(scored["winner"], scored["matched"], task, metric),
        )
