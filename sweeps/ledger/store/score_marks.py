"""Attributes of a trial about downstream tasks: what it is made to score, and the scores of its model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweeps.ledger.store.trials import EVALUATION, STEPS, TASKS
from sweeps.task_scores import TaskScores


def evaluation_attributes(evaluation: Mapping[str, Any] | None, steps: int | None) -> dict[str, Any]:
    """Of a run that is made to score a model: its tasks, shots and limit; and its own steps, if any."""
    known = {EVALUATION: evaluation, STEPS: steps}
    return {name: value for name, value in known.items() if value is not None}


def score_attributes(tasks: Mapping[str, TaskScores]) -> dict[str, Any]:
    """Scores as attributes of a trial: all of them under one name, and each number under its own."""
    found: dict[str, Any] = {TASKS: {task: scores.to_json() for task, scores in tasks.items()}}
    for task, scores in tasks.items():
        for name, score in scores.metrics.items():
            found[f"{task} {name}"] = score.value
            if score.stderr is not None:
                found[f"{task} {name}_stderr"] = score.stderr
    return found
