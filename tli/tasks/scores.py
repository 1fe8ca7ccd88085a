"""What a model scored on one task: each metric with its standard error, and each document's result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tli.files import replace_file
from tli.json_files import read_json
from tli.json_values import finite, maybe

_LIMIT = 100_000_000  # bytes of a file


@dataclass(frozen=True)
class Metric:
    """One metric of a task.

    Attributes:
        value: over all documents.
        stderr: its standard error over documents, as the harness has it; None for one without.
        higher_is_better: None where the task does not say.
    """

    value: float
    stderr: float | None = None
    higher_is_better: bool | None = True


@dataclass(frozen=True)
class TaskScore:
    """The scores of one model on one task.

    Attributes:
        task: its name.
        shots: solved examples before each document.
        limit: documents at most, from the first; None for all.
        metrics: by name, as `acc`; the first is the task's main one.
        documents: results by document, in order, of the metrics whose value is their mean.
        chance: accuracy of a guess among the choices, where there are choices.
        data: digest of the prompts, answers and order of the documents: equal for scores that compare.
        seconds: that it took.
    """

    task: str
    shots: int
    limit: int | None
    metrics: Mapping[str, Metric]
    documents: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    chance: float | None = None
    data: str = ""
    seconds: float = 0.0

    @property
    def main(self) -> str:
        """The metric that stands for the task where one is asked for."""
        return next(iter(self.metrics))

    @property
    def count(self) -> int:
        """Documents."""
        return max((len(each) for each in self.documents.values()), default=0)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        metrics = {
            name: {"value": m.value, "stderr": m.stderr, "higher_is_better": m.higher_is_better}
            for name, m in self.metrics.items()
        }
        rest = {name: getattr(self, name) for name in ("task", "shots", "limit", "chance", "data", "seconds")}
        documents = {name: list(values) for name, values in self.documents.items()}
        return {**rest, "count": self.count, "metrics": metrics, "documents": documents}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TaskScore:
        """The inverse of `to_json`.

        Raises:
            ValueError, TypeError, KeyError, AttributeError: it is not that.
        """
        metrics = {
            str(name): Metric(finite(m["value"]), maybe(m["stderr"]), m["higher_is_better"])
            for name, m in value["metrics"].items()
        }
        documents = {
            str(name): tuple(finite(each) for each in values) for name, values in value["documents"].items()
        }
        if not metrics or not isinstance(value["task"], str):
            raise ValueError("no scores of a task")
        return cls(
            task=value["task"],
            shots=int(value["shots"]),
            limit=None if value["limit"] is None else int(value["limit"]),
            metrics=metrics,
            documents=documents,
            chance=maybe(value["chance"]),
            data=str(value["data"]),
            seconds=finite(value["seconds"]),
        )


def write_scores(path: Path, score: TaskScore, owner: str) -> None:
    """Keep scores with each document's result, whole or not at all.

    Args:
        path: of the file; its folder is there.
        score: of one model on one task.
        owner: a text that says which model was scored.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    value = {"owner": owner, **score.to_json()}
    replace_file(path, (json.dumps(value, allow_nan=False) + "\n").encode())


def read_scores(path: Path, owner: str) -> TaskScore | None:
    """What `write_scores` kept; None where there is nothing of this owner."""
    try:
        value = read_json(path, _LIMIT)
        return TaskScore.from_json(value) if value["owner"] == owner else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
