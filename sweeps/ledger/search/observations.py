"""What ended trials say of the losses at the end: measured, forecast where they were stopped, bad where they
diverged; and the scale on which a Gaussian process sees them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sweeps.ledger.search.features import Features
from sweeps.ledger.search.forecast import Curve, Forecaster
from sweeps.ledger.search.normal import Array
from sweeps.plausible import implausible
from sweeps.records import Role, State, TrialRecord
from sweeps.task_scores import Aimed

_DIVERGED = "diverged"  # begins the reason of a trial whose loss was no number, or far above where it began
_UNLIKELY = 2.0  # standard deviations
_LEAST_VARIANCE = 1e-7  # nats squared
_LEAST_UNIT = 2e-3  # nats: below that, differences are no valley to be magnified


def by_score(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Trials of a search that goes by a task, as the process sees them: what is minimised of a score in place
    of losses.

    What was stopped has no score, and values of other programs are none: these say nothing.

    Args:
        records: ended trials.
    """
    return _scored(records, lambda each: each.aim)


def by_front_score(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Trials of a front of losses and scores, as the process of the scores sees them; as `by_score`."""
    return _scored(records, lambda each: each.front_score)


def _scored(
    records: Iterable[TrialRecord], score_of: Callable[[TrialRecord], Aimed | None]
) -> list[TrialRecord]:
    scored = ((each, score_of(each)) for each in records if each.ours and each.state is not State.PRUNED)
    return [
        each if score is None else replace(each, value=score.minimised, losses={})
        for each, score in scored
        if score is not None or each.state is not State.COMPLETE
    ]


def whole_ones(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Trials of the search, and controls, that ran to their end: under one seed, with the same tokens."""
    return [
        record
        for record in records
        if record.state is State.COMPLETE
        and record.role in (Role.CONTROL, Role.BASELINE, Role.SEARCH)
        and record.value is not None
        and math.isfinite(record.value)
        and record.steps in record.losses
    ]


def forecaster_of(records: Sequence[TrialRecord]) -> Forecaster:
    """What the whole curves among these trials teach."""
    whole = whole_ones(records)
    last = max((record.steps for record in whole), default=0)
    return Forecaster([Curve.of(r.number, r.settings, r.losses) for r in whole], last)


@dataclass(frozen=True)
class Observations:
    """Final losses, in nats per token, that trials say something of."""

    numbers: tuple[int, ...]
    x: Array  # coordinates, a row a trial
    losses: Array
    variances: Array  # of what was forecast; 0 of what was measured
    whole: Array  # whether it was measured at the end

    def __len__(self) -> int:
        return len(self.numbers)


def observe(features: Features, records: Sequence[TrialRecord]) -> Observations:
    """What ended trials say; those that say nothing are left out: lost ones, stopped ones that too few whole
    curves let forecast, and values of other programs that can hardly be losses here.

    Args:
        features: the coordinates.
        records: ended trials.
    """
    forecaster, strange = forecaster_of(records), implausible(records)
    said: list[tuple[TrialRecord, float, float, bool]] = []
    diverged = []
    for record in (each for each in records if each.number not in strange):
        if record.state is State.COMPLETE and record.value is not None and math.isfinite(record.value):
            said.append((record, record.value, 0.0, True))
        elif record.state is State.FAIL and (record.reason or "").startswith(_DIVERGED):
            diverged.append(record)
        elif record.state is State.PRUNED and record.losses and record.settings:
            curve = Curve.of(record.number, record.settings, record.losses)
            forecast = forecaster.final(curve, record.step)
            if forecast is not None:
                said.append((record, forecast.mean, forecast.spread**2, False))
    best = min((loss for _, loss, _, whole in said if whole), default=-math.inf)
    for place, (record, forecast_loss, variance, whole) in enumerate(said):
        if not whole:  # it will hardly be the best, however little else is known of its end
            loss = max(forecast_loss, best)
            most = ((loss - best) / _UNLIKELY) ** 2 + _LEAST_VARIANCE
            said[place] = (record, loss, min(variance, most), whole)
    if said:
        worst = max(loss for _, loss, _, _ in said)
        said += [(record, worst, 0.0, False) for record in diverged]
    x = np.array([features.row(record.params, record.settings) for record, *_ in said])
    return Observations(
        numbers=tuple(record.number for record, *_ in said),
        x=x.reshape(len(said), len(features.columns)),
        losses=np.array([loss for _, loss, _, _ in said]),
        variances=np.array([variance for _, _, variance, _ in said]),
        whole=np.array([whole for *_, whole in said], dtype=bool),
    )


@dataclass(frozen=True)
class Scale:
    """Losses as the process sees them: by inverse hyperbolic sine, which is linear near the best and
    logarithmic far from it, so that a rate that blows the loss up does not bend the valley; then mean 0,
    variance 1.
    """

    best: float
    unit: float
    mean: float
    deviation: float

    @classmethod
    def of(cls, losses: Array) -> Scale:
        """The scale of these losses; its linear part ends about at their median."""
        best, median = float(losses.min()), float(np.median(losses))
        unit = max(median - best, _LEAST_UNIT)
        bent = np.arcsinh((losses - best) / unit)
        return cls(best, unit, float(bent.mean()), max(float(bent.std()), 0.1))

    def seen(self, losses: Array) -> Array:
        """On the scale."""
        found: Array = (np.arcsinh((losses - self.best) / self.unit) - self.mean) / self.deviation
        return found

    def variances(self, losses: Array, variances: Array) -> Array:
        """Small variances of losses, on the scale."""
        slope = 1.0 / (np.sqrt(((losses - self.best) / self.unit) ** 2 + 1.0) * self.unit * self.deviation)
        found: Array = variances * slope**2
        return found

    def losses(self, seen: Array) -> Array:
        """Back in nats per token."""
        bent = np.minimum(seen * self.deviation + self.mean, 50.0)
        found: Array = self.best + self.unit * np.sinh(bent)
        return found
