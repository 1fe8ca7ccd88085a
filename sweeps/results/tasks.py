"""Scores on downstream tasks: base, control and winner side by side, and their differences by document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sweeps.records import Role, TrialRecord
from sweeps.results.evaluated import failures, runs_due, scores_of
from sweeps.results.scored_runs import Cell, ScoredRun, cell, fresh_runs
from tli.tasks.paired import PairedDifference, paired_difference

if TYPE_CHECKING:
    from sweeps.results.sweep import Sweep
    from sweeps.results.verdict import Verdict


Difference = PairedDifference


@dataclass(frozen=True)
class TaskRow:
    """One metric of one task.

    Attributes:
        task, metric: names; `main` for the first metric of a task.
        documents: how many were scored.
        chance: what a guess scores; only of accuracy.
        higher_is_better: None where the task does not say.
        base, control, matched, winner: the base as it is; the original, trained on for as many tokens, and
            with the winner's FLOPs; the best grown model. None where it was not scored.
        against_control, against_matched: the winner minus each, by document, over the seeds that both have.
    """

    task: str
    metric: str
    main: bool
    documents: int
    chance: float | None
    higher_is_better: bool | None
    base: Cell | None
    control: Cell | None
    matched: Cell | None
    winner: Cell | None
    against_control: PairedDifference | None
    against_matched: PairedDifference | None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        differences = {name: getattr(self, name) for name in ("against_control", "against_matched")}
        return {**asdict(self), **{name: each and each.to_json() for name, each in differences.items()}}


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

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        names = ("objective", "shots", "limit", "winner", "control", "matched")
        plain = {name: getattr(self, name) for name in names}
        rows = [row.to_json() for row in self.rows]
        return {**plain, "scores": rows, "missing": list(self.missing), "failed": list(self.failed)}


def task_table(sweep: Sweep, verdict: Verdict, records: Sequence[TrialRecord]) -> TaskTable | None:
    """The table of a sweep; None for one that scores nothing.

    Args:
        sweep: whose results on disk are read.
        verdict: of the records.
        records: every trial of it.
    """
    spec, depth = sweep.ledger.spec, sweep.ledger.depth
    if not spec.evaluation.tasks:
        return None
    winner, control, matched = verdict.chosen, verdict.control, verdict.matched
    models = {
        "winner": fresh_runs(records, winner.number if winner else None),
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
        winner=winner.number if winner else None,
        control=control.number if control else None,
        matched=matched.number if matched else None,
        rows=tuple(row for task in names for row in _rows(task, scores)),
        missing=tuple(run.number for run in runs_due(spec, records, depth)),
        failed=tuple(
            f"{'the base' if run is None else f'trial {run}'}: {reason}" for run, reason in reasons.items()
        ),
    )


def tasks_of(sweep: Sweep) -> TaskTable | None:
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
            against_control=_difference(scored["winner"], scored["control"], task, metric),
            against_matched=_difference(scored["winner"], scored["matched"], task, metric),
        )


def _difference(
    ours: Sequence[ScoredRun], theirs: Sequence[ScoredRun], task: str, metric: str
) -> PairedDifference | None:
    """Over the seeds that both have, of scores on the same documents."""
    others = {run.seed: run for run in theirs}
    pairs = [(run, others[run.seed]) for run in ours if run.seed in others]
    data = {scores.data for pair in pairs for run in pair if (scores := run.scores(task))}
    if len(data) != 1:
        return None
    first, second = ([run.documents(task, metric) for run in side] for side in zip(*pairs, strict=True))
    return paired_difference(first, second)
