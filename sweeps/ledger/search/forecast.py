"""The final loss of a trial forecast from the first part of its curve, as the sweep's own whole curves teach.

At each measured step a ridge regression tells how far a loss still falls: from the learning rate (its
logarithm and the square of that), the loss there and the last slope. How well it does is measured by leaving
each whole curve out in turn (Allen's PRESS, Technometrics 16, 1974), so that a step at which losses say
little of the end has wide intervals by itself; it is not used where they leave half of the final losses' own
spread.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from sweeps.ledger.search.normal import Array
from sweeps.student import t_below, t_quantile

FEWEST = 5  # whole curves before anything is forecast
_MOST = 120  # of the latest ones
_RIDGES = (0.03, 0.3, 3.0)  # of the regression's coefficients, in units of the residual variance
_TELLING = 0.5  # of the spread of final losses: what a step's forecasts may be off by, or it says nothing
_LEAST_SPREAD = 3e-4  # nats: what a measured loss wanders by, whatever few curves say


@dataclass(frozen=True)
class Curve:
    """What one trial measured: losses by step, in order, and its learning rate."""

    number: int
    log_rate: float
    losses: Mapping[int, float]  # nats per token

    @classmethod
    def of(cls, number: int, settings: Mapping[str, Any], losses: Mapping[int, float]) -> Self:
        """Of a trial's settings and its measurements.

        Args:
            number: of the trial.
            settings: its whole `trial:` section.
            losses: by step.
        """
        rate = float(settings.get("recipe", {}).get("learning_rate", 1.0))
        return cls(number, math.log(rate), dict(sorted(losses.items())))

    @property
    def finite(self) -> bool:
        """Whether every loss is a number."""
        return all(map(math.isfinite, self.losses.values()))

    def seen(self, step: int) -> tuple[float, float, float] | None:
        """Log rate, loss and last slope at a step; None where it was not measured, or is the first."""
        before = [each for each in self.losses if each < step]
        if step not in self.losses or not before:
            return None
        loss = self.losses[step]
        return self.log_rate, loss, loss - self.losses[before[-1]]


@dataclass(frozen=True)
class Forecast:
    """A final loss, in nats per token: Student's t around `mean`."""

    mean: float
    scale: float
    degrees: float

    def below(self, loss: float) -> float:
        """The chance that the final loss is below this one."""
        return t_below((loss - self.mean) / self.scale, self.degrees)

    def half_width(self, confidence: float = 0.95) -> float:
        """Half of the interval that holds the final loss with this chance."""
        return self.scale * t_quantile(self.degrees, confidence)

    @property
    def spread(self) -> float:
        """Standard deviation of a normal distribution that is as wide in its middle two thirds."""
        return self.scale * t_quantile(self.degrees, 0.6826895)


class Forecaster:
    """Forecasts from whole curves; the same ones forecast the same."""

    def __init__(self, whole: Sequence[Curve], last: int) -> None:
        """Learn nothing yet.

        Args:
            whole: curves of trials that ran to their end.
            last: the step at which they end.
        """
        usable = [curve for curve in whole if last in curve.losses and curve.finite]
        self._whole = sorted(usable, key=lambda curve: curve.number)[-_MOST:]
        self._last = last
        self._at: dict[int, _Regression | None] = {}

    def final(self, curve: Curve, step: int) -> Forecast | None:
        """The final loss of a trial that was measured up to a step; None while too few curves tell."""
        seen = curve.seen(step)
        if step not in self._at:
            self._at[step] = self._learned(step)
        regression = self._at[step]
        if seen is None or regression is None or not all(map(math.isfinite, seen)):
            return None
        return regression.forecast(seen)

    def without(self, number: int) -> Forecaster:
        """As if one of the whole curves were not known."""
        return Forecaster([curve for curve in self._whole if curve.number != number], self._last)

    def finals(self) -> list[float]:
        """The final losses of the whole curves, the lowest first."""
        return sorted(curve.losses[self._last] for curve in self._whole)

    def _learned(self, step: int) -> _Regression | None:
        pairs = [(curve.seen(step), curve.losses[self._last]) for curve in self._whole]
        known = [(seen, final) for seen, final in pairs if seen is not None]
        if len(known) < FEWEST or step >= self._last:
            return None
        seen = np.array([each for each, _ in known])
        finals = np.array([final for _, final in known])
        regression = _Regression(seen, finals - seen[:, 1])
        return regression if regression.tells else None


class _Regression:
    """How far losses still fall, by what was seen of their curves."""

    def __init__(self, seen: Array, falls: Array) -> None:
        self._middle = np.median(seen, axis=0)
        self._unit = np.maximum(seen.std(axis=0), (0.2, 1e-3, 1e-4))
        features = self._features(seen)
        n = len(falls)
        best = math.inf
        for ridge in _RIDGES:
            penalty = np.diag([1e-9, *[ridge] * (features.shape[1] - 1)])
            inverse = np.linalg.inv(features.T @ features + penalty)
            hat = features @ inverse @ features.T
            leverage = np.minimum(np.diag(hat), 0.99)
            weights = inverse @ features.T @ falls
            left_out = (falls - features @ weights) / (1.0 - leverage)
            error = float(np.sqrt(np.mean(left_out**2)))
            if error < best:
                best, self._inverse, self._weights = error, inverse, weights
                self._degrees = max(1.5, n - float(np.trace(hat)))
        self._spread = math.hypot(best, _LEAST_SPREAD)
        finals = seen[:, 1] + falls
        self.tells = self._spread < _TELLING * float(finals.std())

    def forecast(self, seen: tuple[float, float, float]) -> Forecast:
        (row,) = self._features(np.array([seen]))
        leverage = float(row @ self._inverse @ row)
        mean = seen[1] + float(row @ self._weights)
        return Forecast(mean, self._spread * math.sqrt(1.0 + leverage), self._degrees)

    def _features(self, seen: Array) -> Array:
        z = (seen - self._middle) / self._unit
        rate = z[:, 0]
        return np.stack([np.ones(len(z)), rate, rate**2, z[:, 1], z[:, 2]], axis=1)
