"""Ended trials as TPE looks at them: a summary of each, and their order."""

from __future__ import annotations

import math
from typing import Any

from optuna.trial import FrozenTrial, TrialState


class TrialSummary:
    """What TPE looks at of a trial, close together: it does so several times for each parameter it picks."""

    __slots__ = (
        "constraints",
        "intermediate_values",
        "number",
        "of",
        "params",
        "state",
        "system_attrs",
        "value",
    )

    def __init__(self, trial: FrozenTrial) -> None:
        step = trial.last_step
        self.of = trial
        self.number, self.state, self.params = trial.number, trial.state, trial.params
        self.value = trial.values[0] if trial.values else None
        # How far a stopped one came, and its loss there; the rest of its curve is not looked at.
        self.intermediate_values = {} if step is None else {step: trial.intermediate_values[step]}
        # Of limits that were broken, and of parameters that were picked together: there are neither here.
        self.constraints: dict[str, float] = {}
        self.system_attrs: dict[str, Any] = {}


def rank_of(trial: FrozenTrial) -> tuple[float, ...]:
    """TPE's order, the good first: complete ones by value, then stopped ones by how far they came."""
    if trial.state is TrialState.COMPLETE:
        return 0, 0, trial.values[0]
    if trial.last_step is None:
        return 1, 1, 0.0
    loss = trial.intermediate_values[trial.last_step]
    return 1, -trial.last_step, math.inf if math.isnan(loss) else loss
