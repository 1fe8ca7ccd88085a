"""Scores of promotions on downstream tasks, beside the base and the control with as many FLOPs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweeps.records import Role, State, TrialRecord
from sweeps.results.evaluated import scores_of
from sweeps.results.scored_runs import Cell, Difference, Kept, MetricRow, ScoredRun, cell, difference_of

if TYPE_CHECKING:
    from sweeps.spec import Spec


@dataclass(frozen=True)
class PromotedScore(MetricRow):
    """One metric of a promotion, of one seed.

    Attributes:
        control, promotion: the original beside the promotion, and the promotion; None where it was not
            scored.
        against_control, against_base: the promotion minus each, by document.
    """

    control: Cell | None
    promotion: Cell | None
    against_control: Difference | None
    against_base: Difference | None


@dataclass(frozen=True)
class PromotedScores:
    """A promotion that has ended, with what it scored.

    Attributes:
        trial, of: its number, and that of the trial that it makes longer.
        tokens: all that it was trained on.
        control: number of the original that trained beside it to its end; None without one.
        rows: by task and metric; empty where neither was scored on these tasks as the spec asks for now.
        unscored: numbers of those of the two that the spec wants scored, and that have no such score.
    """

    trial: int
    of: int
    tokens: int
    control: int | None
    rows: tuple[PromotedScore, ...]
    unscored: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        plain = {name: getattr(self, name) for name in ("trial", "of", "tokens", "control")}
        return {**plain, "scores": [row.to_json() for row in self.rows], "unscored": list(self.unscored)}


def promoted_scores(sweep: Kept, records: Sequence[TrialRecord]) -> tuple[PromotedScores, ...]:
    """Each promotion that has run to its end, by number.

    Args:
        sweep: whose results on disk are read.
        records: every trial of it.
    """
    spec = sweep.ledger.spec
    ended = [each for each in records if each.role.promoted and each.state is State.COMPLETE]
    controls = {each.promotion.beside: each for each in ended if each.promotion is not None}
    base = ScoredRun(sweep.folders, sweep.ledger, 0, scores_of(spec, None, records))
    found = []
    for record in ended:
        if record.role is not Role.PROMOTION or record.promotion is None:
            continue
        control = controls.get(record.number)
        trained = {"promotion": record} | ({"control": control} if control is not None else {})
        runs = {
            name: ScoredRun(sweep.folders, sweep.ledger, run.seed, scores_of(spec, run, records))
            for name, run in trained.items()
        }
        rows = [row for task in spec.evaluation.to_tli().names for row in _rows(task, {"base": base, **runs})]
        scored = {name for name in trained for row in rows if getattr(row, name) is not None}
        found.append(
            PromotedScores(
                trial=record.number,
                of=record.promotion.of,
                tokens=record.steps * record.settings["recipe"]["batch_tokens"],
                control=control.number if control is not None else None,
                rows=tuple(rows),
                unscored=tuple(r.number for n, r in trained.items() if _wanted(spec, r) and n not in scored),
            )
        )
    return tuple(found)


# -- inside ----------------------------------------------------------------------------------------


def _rows(task: str, runs: dict[str, ScoredRun]) -> Iterator[PromotedScore]:
    scored = {name: run for name, run in runs.items() if run.scores(task)}
    if not scored.keys() - {"base"}:  # its own scores stand in the sweep's table
        return
    first = scored.get("promotion", scored.get("control"))
    assert first is not None, "one of them has scores"
    scores = first.scores(task)
    assert scores is not None, "only those with scores are here"
    for index, (metric, score) in enumerate(scores.metrics.items()):
        cells = {name: cell([run], task, metric) for name, run in scored.items()}
        yield PromotedScore(
            task=task,
            metric=metric,
            main=index == 0,
            documents=scores.count,
            chance=scores.chance if metric == "acc" else None,
            higher_is_better=score.higher_is_better,
            base=cells.get("base"),
            control=cells.get("control"),
            promotion=cells.get("promotion"),
            against_control=_less(scored, "control", task, metric),
            against_base=_less(scored, "base", task, metric),
        )


def _wanted(spec: Spec, run: TrialRecord) -> bool:
    return spec.evaluation.applies_to(run.role.value, original=run.original)


def _less(scored: dict[str, ScoredRun], other: str, task: str, metric: str) -> Difference | None:
    """The promotion minus another, each of one run, whatever its seed."""
    if "promotion" not in scored or other not in scored:
        return None
    return difference_of([(scored["promotion"], scored[other])], task, metric)
