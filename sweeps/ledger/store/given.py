"""Attributes that a trial is given beside its settings: why it exists, and the scores of its model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweeps.ledger.store.trials import HIDDEN, ROLE, TASKS
from sweeps.records import Role
from sweeps.task_scores import TaskScores


def run_attributes(role: Role, known: Mapping[str, Any]) -> dict[str, Any]:
    """What a trial bears that is no trial of the sampler's; of `known` what is not None."""
    hidden = {HIDDEN: True} if role is Role.CONTROL or role.after else {}
    return {ROLE: role.value, **hidden, **{name: value for name, value in known.items() if value is not None}}


def score_attributes(tasks: Mapping[str, TaskScores]) -> dict[str, Any]:
    """Scores as attributes of a trial: all of them under one name, and each number under its own."""
    found: dict[str, Any] = {TASKS: {task: scores.to_json() for task, scores in tasks.items()}}
    for task, scores in tasks.items():
        for name, score in scores.metrics.items():
            found[f"{task} {name}"] = score.value
            if score.stderr is not None:
                found[f"{task} {name}_stderr"] = score.stderr
    return found
