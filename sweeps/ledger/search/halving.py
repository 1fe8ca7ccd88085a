"""Optuna's asynchronous successive halving and Hyperband in constant time a report.

Decisions are Optuna's; only the losses on a rung are kept in order instead of being collected and sorted each
time. For that, the names of rungs in the study tell Hyperband's brackets apart.
"""

from __future__ import annotations

import math
from typing import cast

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial

from sweeps.ledger.search.view import SearchView
from sweeps.ledger.store.internals import Brackets
from sweeps.ledger.store.trials import RUNG


class Halving(BasePruner):
    """Stops a trial at a rung where it is not in the best 1/`reduction_factor` of those that reached it."""

    def __init__(self, *, min_resource: int, reduction_factor: int, among: str = "") -> None:
        """Compare trials at rungs, each `reduction_factor` times as far as the one before.

        Args:
            min_resource: the first rung.
            reduction_factor: of the trials on a rung, the best of so many go on.
            among: begins the names of rungs whose trials are compared with each other alone.
        """
        self._first, self._factor, self._among = min_resource, reduction_factor, among

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether a trial that has just reported is to stop; writes down the rungs that it has reached."""
        step = trial.last_step
        if step is None:
            return False
        mirror = cast("SearchView", study).mirror
        loss, rung = trial.intermediate_values[step], 0
        while self._name(rung) in trial.system_attrs:
            rung += 1
        while step >= self._first * self._factor**rung:
            if math.isnan(loss):
                return True
            mirror.set_rung(trial.number, self._name(rung), loss)
            losses = mirror.on_rung(self._name(rung))  # its own among them
            # The first ones go on if they are the best so far: a stopped trial cannot be taken up again.
            if loss > losses[max(0, len(losses) // self._factor - 1)]:
                return True
            rung += 1
        return False

    def _name(self, rung: int) -> str:
        return f"{RUNG}{self._among}{rung}"


class Hyperband(BasePruner):
    """Successive halving in brackets: the later ones let their trials on for longer before they compare."""

    def __init__(self, *, min_resource: int, max_resource: int, reduction_factor: int) -> None:
        """As Optuna's, which also decides by a trial's number which bracket it is in."""
        self._brackets = Brackets(
            min_resource=min_resource, max_resource=max_resource, reduction_factor=reduction_factor
        )
        self._halvings = [
            Halving(
                min_resource=min_resource * reduction_factor**bracket,
                reduction_factor=reduction_factor,
                among=f"{bracket}.",
            )
            for bracket in range(len(self._brackets))
        ]

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether its bracket's halving stops a trial that has just reported."""
        return self._halvings[self._brackets.of(study, trial)].prune(study, trial)
