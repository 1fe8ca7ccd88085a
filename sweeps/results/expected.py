"""The final losses that running trials are expected to reach, as the sweep's whole curves teach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweeps.records import TrialRecord

if TYPE_CHECKING:
    from sweeps.ledger import Forecaster

__all__ = ["Expectations", "Expected"]


@dataclass(frozen=True)
class Expected:
    """A final loss, nats per token: with 95 % it lies within `mean` plus or minus `half_width`."""

    mean: float
    half_width: float


class Expectations:
    """Forecasts final losses; learns anew only when more trials have ended, so that it may be asked often."""

    def __init__(self) -> None:
        """Know no curve yet."""
        self._forecaster: Forecaster | None = None
        self._ended, self._last = -1, 0

    def of(
        self, running: Sequence[TrialRecord], whole: Sequence[TrialRecord], ended: int
    ) -> dict[int, Expected]:
        """By number, of those running trials of which enough whole curves tell something.

        Args:
            running: the trials that are asked for.
            whole: trials of the same sweep that ran to their end.
            ended: how many have ended so far: once there are more, all is learned anew.
        """
        if not any(len(record.losses) > 1 for record in running):
            return {}  # numpy is loaded for nothing before
        from sweeps.ledger import Curve, forecaster_of

        if self._forecaster is None or ended != self._ended:
            self._forecaster, self._ended = forecaster_of(whole), ended
            self._last = max((r.steps for r in whole if r.value is not None), default=0)
        found = {}
        for record in running:
            if record.steps != self._last or not record.settings:
                continue
            curve = Curve.of(record.number, record.settings, record.losses)
            forecast = self._forecaster.final(curve, record.step)
            if forecast is not None:
                found[record.number] = Expected(forecast.mean, forecast.half_width())
        return found
