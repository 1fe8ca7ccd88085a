"""The model of a search: a Gaussian process over its settings, of what its ended trials say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.ledger.search.features import Features
from sweeps.ledger.search.normal import Array
from sweeps.ledger.search.observations import Observations, Scale, observe
from sweeps.ledger.search.prior import Prior
from sweeps.ledger.search.process import Covariance, Process, fitted
from sweeps.ledger.search.threads import one_thread
from sweeps.records import State, TrialRecord

RATE = "recipe.learning_rate"
FEWEST = 3  # trials that say something, before there is a model
_BEST, _LATEST = 60, 100  # trials that a model looks at
_FITTED_AT = (3, 4, 5, 6, 8, 10, 12, 14, 17, 20, 24, 29, 35, 42, 50, 60, 72, 86, 104, 125, 150)
_GROWTH = 1.25  # between two fits, in longer studies


@dataclass(frozen=True)
class Model:
    """What is known of the final loss of any settings."""

    features: Features
    said: Observations
    scale: Scale
    process: Process

    def posterior(self, points: Array) -> tuple[Array, Array]:
        """Means and deviations, on the scale."""
        return self.process.predict(points)

    @property
    def incumbent(self) -> float:
        """The lowest mean at what was tried, on the scale."""
        return float(self.process.predict(self.said.x)[0].min())


class Modeller:
    """Makes models of a growing study; a model hangs on nothing but the trials that it is of."""

    def __init__(self, features: Features, prior: Prior | None = None) -> None:
        """Remember nothing yet; `prior` is what sibling sweeps say."""
        self.features, self._prior = features, prior
        self._hyper: dict[tuple[Any, ...], Array] = {}

    @one_thread
    def model(
        self,
        ended: Sequence[TrialRecord],
        rate: float | None,
        end: Callable[[TrialRecord], int] = lambda record: record.number,
    ) -> Model | None:
        """A model of ended trials; None while they say too little.

        Args:
            ended: the trials.
            rate: a learning rate known to be good.
            end: their order; hyperparameters are fitted to the first of them, and only now and then anew.
        """
        ordered = sorted(ended, key=lambda record: (end(record), record.number))
        said = observe(self.features, window(ordered))
        if len(said) < (FEWEST if self._prior is None else 1):
            return None
        valley = self.features.valley(RATE, rate)
        hyper = self._fitted(ordered, valley)
        covariance, scale = self._prior_of(said, valley)
        noise = scale.variances(said.losses, said.variances)
        process = Process(covariance, hyper, said.x, scale.seen(said.losses), noise)
        return Model(self.features, said, scale, process)

    def _prior_of(self, said: Observations, valley: tuple[int, float] | None) -> tuple[Covariance, Scale]:
        """The process before any trial, and the scale of losses."""
        if self._prior is None:
            return Covariance(self.features.columns, valley), Scale.of(said.losses)
        scale = self._prior.scale(said)
        return Covariance(self.features.columns, valley, self._prior.bases(said, scale)), scale

    def _fitted(self, ordered: Sequence[TrialRecord], valley: tuple[int, float] | None) -> Array:
        """Of the longest of the first parts of a study that hyperparameters are fitted to."""
        first = ordered[: fitted_at(len(ordered))]
        key = valley, *(record.number for record in first)
        if key not in self._hyper:
            said = observe(self.features, window(first))
            # The earlier ones are not asked for again.
            self._hyper = {key: self._of(said, valley)}
        return self._hyper[key]

    def _of(self, said: Observations, valley: tuple[int, float] | None) -> Array:
        if len(said) < FEWEST:
            return Covariance(self.features.columns, valley).priors[:, 0]
        covariance, scale = self._prior_of(said, valley)
        noise = scale.variances(said.losses, said.variances)
        return fitted(covariance, said.x, scale.seen(said.losses), noise)


def fitted_at(count: int) -> int:
    """How many of the first so many trials hyperparameters are fitted to; 0 for none."""
    found = max((each for each in _FITTED_AT if each <= count), default=0)
    while found and found * _GROWTH <= count and found >= _FITTED_AT[-1]:
        found = int(found * _GROWTH)
    return found


def window(ordered: Sequence[TrialRecord]) -> list[TrialRecord]:
    """All, or of many the latest and the best of those that ran to their end."""
    if len(ordered) <= _BEST + _LATEST:
        return list(ordered)
    older = [r for r in ordered[:-_LATEST] if r.state is State.COMPLETE and r.value is not None]
    best = sorted(older, key=lambda record: (record.value, record.number))[:_BEST]
    return [*best, *ordered[-_LATEST:]]
