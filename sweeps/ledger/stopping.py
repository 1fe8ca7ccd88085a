"""Stopping rules: Optuna's pruners over the ledger, one row each.

Rungs live in the study, so a rule goes on after a restart where it was. A rule is asked after every report of
a trial that counts for search; the control, the baseline and replicates are never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner


def _asha(grace_steps: int, keep: float) -> BasePruner:
    return SuccessiveHalvingPruner(min_resource=grace_steps, reduction_factor=max(2, round(1 / keep)))


def _median(grace_steps: int, keep: float) -> BasePruner:  # noqa: ARG001 - the median keeps one half
    return MedianPruner(n_startup_trials=4, n_warmup_steps=grace_steps)


def _none(grace_steps: int, keep: float) -> BasePruner:  # noqa: ARG001
    return NopPruner()


RULES: Mapping[str, Callable[[int, float], BasePruner]] = {"asha": _asha, "median": _median, "none": _none}


def stopping_rule(name: str, *, steps: int, grace: float, keep: float) -> BasePruner:
    """The rule of this name.

    Args:
        name: a name in RULES.
        steps: a trial's whole budget.
        grace: share of the budget that every trial gets.
        keep: share of the trials that pass each rung, at most one half; ASHA takes the nearest 1/n.
    """
    return RULES[name](max(1, math.ceil(grace * steps)), keep)
