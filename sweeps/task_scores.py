"""Scores of one run on a downstream task, as the ledger and the curve keep them: no document's result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tli.json_values import finite, maybe, text, whole

FOLDER = "tasks"  # in the trial's folder: a file a task, with each document's result


@dataclass(frozen=True)
class Score:
    """One metric of a task: its value over all documents and its standard error, where it has one."""

    value: float
    stderr: float | None = None
    higher_is_better: bool | None = True


@dataclass(frozen=True)
class Aimed:
    """The score that a search goes by, alone or beside the loss, of one model: `kobest_copa/acc`, and what
    it is.
    """

    name: str
    score: float
    higher_is_better: bool

    @property
    def minimised(self) -> float:
        """What is minimised: the negative score where higher is better."""
        return -self.score if self.higher_is_better else self.score


@dataclass(frozen=True)
class TaskScores:
    """What one run scored on one task.

    Attributes:
        shots, limit: as they were asked for.
        count: documents.
        chance: accuracy of a guess among the choices, where there are choices.
        data: digest of the documents with their prompts: equal for scores that compare.
        metrics: by name, the main one first.
    """

    shots: int
    limit: int | None
    count: int
    chance: float | None
    data: str
    metrics: Mapping[str, Score]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        metrics = {
            name: {"value": m.value, "stderr": m.stderr, "higher_is_better": m.higher_is_better}
            for name, m in self.metrics.items()
        }
        names = ("shots", "limit", "count", "chance", "data")
        return {**{name: getattr(self, name) for name in names}, "metrics": metrics}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TaskScores:
        """The inverse of `to_json`; what else is in it is passed over.

        Raises:
            ValueError, TypeError, KeyError, AttributeError: it is not that.
        """
        metrics = {
            text(name): Score(finite(m["value"]), maybe(m["stderr"]), _flag(m["higher_is_better"]))
            for name, m in value["metrics"].items()
        }
        if not metrics:
            raise ValueError("no metric")
        limit = value["limit"]
        return cls(
            shots=whole(value["shots"]),
            limit=None if limit is None else whole(limit),
            count=whole(value["count"]),
            chance=maybe(value["chance"]),
            data=text(value["data"]),
            metrics=metrics,
        )


def scores_to_json(tasks: Mapping[str, TaskScores]) -> dict[str, Any]:
    """Scores by task as plain JSON values."""
    return {task: scores.to_json() for task, scores in tasks.items()}


def all_scores(value: Any) -> dict[str, TaskScores]:
    """Scores by task, of what `TaskScores.to_json` gave for each.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it is not that.
    """
    return {text(task): TaskScores.from_json(scores) for task, scores in value.items()}


def aimed(tasks: Mapping[str, TaskScores], aim: tuple[str, str] | None) -> Aimed | None:
    """The score that a search goes by.

    Args:
        tasks: scores of a model, by task.
        aim: task and metric; None where the search goes by no score.

    Returns:
        None without an aim, or where it was not scored, or the harness does not say whether higher is better.
    """
    task, metric = aim or ("", "")
    score = tasks[task].metrics.get(metric) if task in tasks else None
    if score is None or score.higher_is_better is None:
        return None
    return Aimed(f"{task}/{metric}", score.value, score.higher_is_better)


def are_scores(value: Any) -> bool:
    """Whether `all_scores` takes it."""
    try:
        all_scores(value)
    except (ValueError, TypeError, KeyError, AttributeError):
        return False
    return True


def _flag(value: Any) -> bool | None:
    if not isinstance(value, bool | None):
        raise TypeError("true, false or null is wanted")
    return value
