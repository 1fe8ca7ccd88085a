"""Stopping rules: what the sweep's own curves teach, and Optuna's pruners, over the ledger; one row each.

Rungs live in the study, so a rule goes on after a restart where it was. A rule is asked after every report of
a trial that counts for search; the control, the baseline and replicates are never stopped. Trials are
compared where they have had equally many steps (and tokens, then), or have spent the same FLOPs or seconds of
training: a small K makes a deep model, and equal steps flatter it. A rung takes the first report at or beyond
it; the median rule compares on the lines between reports.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.trial import FrozenTrial

from sweeps.ledger.search.front_proposals import CostAim
from sweeps.ledger.search.halving import Halving, Hyperband
from sweeps.ledger.search.learned import Learned
from sweeps.ledger.search.view import SearchView
from sweeps.ledger.store.trials import AMOUNTS
from sweeps.records import Point

_UNITS = 1000  # that the reference is divided into, as pruners count in whole numbers

# What trials are compared at, by name: what a point has spent of it; None where steps tell.
SPENT: Mapping[str, Callable[[Point], float] | None] = {
    "steps": None,
    "tokens": None,  # all trials have batches of the same size
    "flops": lambda point: point.flops,
    "seconds": lambda point: point.seconds,
}


def _learned(grace: int, whole: int, keep: float) -> BasePruner:  # noqa: ARG001 - it learns where to stop
    return Learned(steps=whole)


def _asha(grace: int, whole: int, keep: float) -> BasePruner:  # noqa: ARG001
    return Halving(min_resource=grace, reduction_factor=_factor(keep))


def _hyperband(grace: int, whole: int, keep: float) -> BasePruner:
    return Hyperband(min_resource=grace, max_resource=whole, reduction_factor=_factor(keep))


def _median(grace: int, whole: int, keep: float) -> BasePruner:  # noqa: ARG001 - the median keeps one half
    return MedianPruner(n_startup_trials=4, n_warmup_steps=grace)


def _none(grace: int, whole: int, keep: float) -> BasePruner:  # noqa: ARG001
    return NopPruner()


def _factor(keep: float) -> int:
    return max(2, round(1 / keep))


RULES: Mapping[str, Callable[[int, int, float], BasePruner]] = {
    "learned": _learned,
    "asha": _asha,
    "hyperband": _hyperband,
    "median": _median,
    "none": _none,
}


class StoppingRule:
    """One sweep's rule."""

    def __init__(
        self,
        name: str,
        *,
        on: str,
        steps: int,
        grace: float,
        keep: float,
        margin: float | None = None,
        cost: CostAim | None = None,
    ) -> None:
        """A pruner of Optuna's.

        Args:
            name: in RULES.
            on: what trials are compared at, in SPENT.
            steps: a trial's whole budget.
            grace: share of the budget that every trial gets; of the baseline's, where FLOPs or seconds count.
            keep: share of the trials that pass each rung, at most one half; ASHA and Hyperband take the
                nearest 1/n.
            margin: how near to the best counts as good, in nats per token, where that is set.
            cost: that losses are minimised against; a trial is then compared with those that cost no more.
        """
        self.spent = SPENT[on] if name not in ("none", "learned") else None
        whole = steps if self.spent is None else _UNITS
        self._pruner = RULES[name](max(1, math.ceil(grace * whole)), whole, keep)
        if isinstance(self._pruner, Learned):
            self._pruner.margin = self._pruner.margin if margin is None else margin
            self._pruner.cost = cost
        # Of ended trials by number, once they were compared.
        self._curves: dict[int, Mapping[int, float]] = {}

    def stops(self, study: SearchView, trial: FrozenTrial, reference: float | None) -> bool:
        """Whether a trial that has just reported is to stop.

        Args:
            study: what the rule may see.
            trial: with all that it reported.
            reference: what the baseline spends in all, where that counts; None while it is unknown, and then
                nothing is stopped.
        """
        if self.spent is None:
            return self._pruner.prune(study, trial)
        if reference is None or not trial.user_attrs.get(AMOUNTS):
            return False
        curve = _curve(trial, reference)
        stand_in = _with(trial, curve)
        assert stand_in.last_step is not None
        if isinstance(self._pruner, MedianPruner):  # the others compare what stands on the rungs
            study = _ByAmount(study, reference, stand_in.last_step, self._curves)
        return self._pruner.prune(study, stand_in)


class _ByAmount(SearchView):
    """A study whose ended trials have one loss: where they had spent as much as another has now."""

    def __init__(
        self, study: SearchView, reference: float, now: int, curves: dict[int, Mapping[int, float]]
    ) -> None:
        super().__init__(study.study_name, study.mirror)
        self._reference, self._now, self._curves = reference, now, curves

    def get_trials(self, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:  # noqa: FBT001, FBT002
        trials = super().get_trials(deepcopy=deepcopy, states=states)
        return [self._at_now(trial) for trial in trials if trial.state.is_finished()]

    def _at_now(self, trial: FrozenTrial) -> FrozenTrial:
        if trial.number not in self._curves:
            self._curves[trial.number] = _curve(trial, self._reference)
        loss = _loss_at(self._curves[trial.number], self._now)
        return _with(trial, {} if loss is None else {self._now: loss})


def _curve(trial: FrozenTrial, reference: float) -> dict[int, float]:
    """Losses by what was spent, in units and in order; of several reports within one unit the last."""
    amounts = trial.user_attrs.get(AMOUNTS, {})
    return {
        round(_UNITS * amounts[str(step)] / reference): loss
        for step, loss in sorted(trial.intermediate_values.items())
        if str(step) in amounts
    }


def _with(trial: FrozenTrial, losses: dict[int, float]) -> FrozenTrial:
    """A copy that reported these."""
    copied = copy.copy(trial)
    copied.intermediate_values = losses
    return copied


def _loss_at(curve: Mapping[int, float], now: int) -> float | None:
    """The loss at `now`, on the line between the reports before and after; None beyond the last one."""
    if now in curve:
        return curve[now]
    for low, high in itertools.pairwise(curve):
        if low < now < high:
            return curve[low] + (now - low) / (high - low) * (curve[high] - curve[low])
    return None
