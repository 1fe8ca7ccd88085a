"""Optuna's asynchronous successive halving, without its walk through all trials at every rung.

Rungs stand in the study as Optuna writes them, and decisions are its own; only the losses on a rung are kept
in order instead of being collected and sorted each time.
"""

from __future__ import annotations

import math
from typing import cast

import optuna
from optuna.pruners import SuccessiveHalvingPruner
from optuna.trial import FrozenTrial

from sweeps.ledger.seen import SeenStudy
from sweeps.ledger.trials import RUNG


class Halving(SuccessiveHalvingPruner):
    """Stops a trial at a rung where it is not in the best 1/`reduction_factor` of those that reached it."""

    def __init__(self, *, min_resource: int, reduction_factor: int) -> None:
        """The first rung is at `min_resource`, each later one `reduction_factor` times as far."""
        super().__init__(min_resource=min_resource, reduction_factor=reduction_factor)
        self._first, self._factor = min_resource, reduction_factor

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether a trial that has just reported is to stop; writes down the rungs that it has reached."""
        step = trial.last_step
        if step is None:
            return False
        loss, rung = trial.intermediate_values[step], 0
        while _name(rung) in trial.system_attrs:
            rung += 1
        while step >= self._first * self._factor**rung:
            if math.isnan(loss):
                return True
            study._storage.set_trial_system_attr(trial._trial_id, _name(rung), loss)
            losses = cast("SeenStudy", study).mirror.on_rung(_name(rung))  # its own among them
            # The first ones go on if they are the best so far: a stopped trial cannot be taken up again.
            if loss > losses[max(0, len(losses) // self._factor - 1)]:
                return True
            rung += 1
        return False


def _name(rung: int) -> str:
    return f"{RUNG}{rung}"
