"""Early stopping learned from the sweep's own whole curves: of trials that will hardly come near the best.

Nothing is stopped before enough trials ran to their end, nor at a step whose losses do not tell the end: the
interval of the forecast is wide there by itself. A decision hangs on nothing but what the study holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial

from sweeps.ledger.search.forecast import Curve, Forecaster
from sweeps.ledger.search.front_proposals import SAME, CostAim
from sweeps.ledger.search.observations import forecaster_of, whole_ones
from sweeps.ledger.search.view import SearchView
from sweeps.ledger.store.trials import SETTINGS
from sweeps.records import Role, TrialRecord

CHANCE = 0.03  # of coming within the margin of the best, under which a trial is stopped
MARGIN = 0.002  # nats per token


class Learned(BasePruner):
    """Stops a trial whose final loss will hardly be near the lowest one measured so far, or with a cost that
    losses are minimised against, near the lowest one of those that cost no more.
    """

    def __init__(self, *, steps: int, margin: float = MARGIN, chance: float = CHANCE) -> None:
        """Learn nothing yet.

        Args:
            steps: of a whole trial.
            margin: how near to the best counts, in nats per token.
            chance: the least that a trial must have of coming that near.
        """
        self.margin, self._chance = margin, chance
        self.cost: CostAim | None = None  # that losses are minimised against
        self._known: tuple[int, ...] = ()
        self._forecaster = Forecaster([], steps)
        self._whole: list[tuple[float, float]] = []  # costs and final losses of grown models

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether a trial that has just reported is to stop."""
        step = trial.last_step
        if step is None:
            return False
        self._learn(cast("SearchView", study).mirror.known())
        settings = trial.user_attrs.get(SETTINGS, {})
        most = self._cost(settings) * (1 + SAME)
        best = min((loss for cost, loss in self._whole if cost <= most), default=None)
        if best is None:
            return False
        forecast = self._forecaster.final(Curve.of(trial.number, settings, trial.intermediate_values), step)
        return forecast is not None and forecast.below(best + self.margin) < self._chance

    def _cost(self, settings: Mapping[str, Any]) -> float:
        """What losses are minimised against; the same for all where that is nothing."""
        return 0.0 if self.cost is None else self.cost.of_settings(settings)

    def _learn(self, records: Sequence[TrialRecord]) -> None:
        whole = whole_ones(records)
        known = tuple(record.number for record in whole)
        if known != self._known:
            self._known, self._forecaster = known, forecaster_of(whole)
            grown = [r for r in whole if r.role is not Role.CONTROL]
            self._whole = [(self._cost(r.settings), r.value) for r in grown if r.value is not None]
