"""What sibling sweeps say, as a prior of a search's model: never as observations of it.

Another base or another text moves all losses, and stretches the valley. So a sibling's own Gaussian process
gives a function of the settings, shifted to where this sweep's losses lie, and this search's prior mean is a
multiple of it that is learned, with a prior near one (as the common part in Swersky, Snoek and Adams,
Multi-task Bayesian optimization, 2013). What the siblings have wrong is left to the process itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sweeps.ledger.search.features import Column, Features
from sweeps.ledger.search.normal import Array
from sweeps.ledger.search.observations import Observations, Scale, observe
from sweeps.ledger.search.process import Basis, Covariance, Process, fitted
from sweeps.records import TrialRecord
from sweeps.spec.equivalence import value_at
from sweeps.spec.fields import LEARNING_RATE
from sweeps.warm_start import Observed, Taken

FEWEST = 3  # observations, below which a sweep is no sibling
_WEIGHT, _SPREAD = 0.8, 0.4  # of all siblings together: prior mean and standard deviation of the multiple
_FEWEST = 8  # losses of siblings that a search's scale is made of, beside its own
_OUTSIDE = 0.1  # of a range, by which a sibling's value may lie beyond it
_REMEMBERED = 8  # sets of points

Losses = Callable[[Array], Array]


@dataclass
class Sibling:
    """The Gaussian process of one earlier sweep, in the coordinates of this one."""

    process: Process
    scale: Scale
    losses: Array  # that it is of, nats per token
    _known: dict[bytes, Array] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, features: Features, taken: Taken) -> Sibling:
        """The process of what was taken over."""
        x = features.rows([each.values for each in taken.trials])
        losses = np.array([each.loss for each in taken.trials])
        scale = Scale.of(losses)
        noise = scale.variances(losses, np.array([each.variance for each in taken.trials]))
        covariance = Covariance(features.columns, features.valley(LEARNING_RATE, taken.rate))
        seen = scale.seen(losses)
        hyper = fitted(covariance, x, seen, noise)
        return cls(Process(covariance, hyper, x, seen, noise), scale, losses)

    def mean(self, points: Array) -> Array:
        """The expected loss at points, nats per token."""
        key = points.tobytes()
        if key not in self._known:
            while len(self._known) >= _REMEMBERED:
                self._known.pop(next(iter(self._known)))
            self._known[key] = self.scale.losses(self.process.predict(points)[0])
        return self._known[key]

    def drawn(self, points: Array, seed: int) -> Array:
        """A function of the posterior at points, on the sibling's scale."""
        normal = np.random.default_rng(seed).standard_normal((1, len(points)))
        found: Array = self.process.sample(points, normal)[0]
        return found


class Prior:
    """All siblings of one search."""

    def __init__(self, siblings: Sequence[Sibling]) -> None:
        """Of one sibling or more."""
        self._siblings = tuple(siblings)

    @classmethod
    def of(cls, features: Features, taken: Sequence[Taken]) -> Prior | None:
        """Of what was taken over; None where nothing was."""
        return cls([Sibling.of(features, each) for each in taken]) if taken else None

    def drawn(self, points: Array, seed: int, turn: int) -> Array:
        """A function at points that one of the siblings, each in its turn, holds possible."""
        return self._siblings[turn % len(self._siblings)].drawn(points, seed)

    def scale(self, said: Observations) -> Scale:
        """The scale of a search's losses, with as many of the siblings' among them.

        A search that begins near its best would else see little but noise, as large as what choices change.
        """
        losses = [said.losses]
        count = max(_FEWEST, len(said)) // len(self._siblings)
        for sibling in self._siblings:
            shifted = np.quantile(sibling.losses, np.linspace(0, 1, max(2, count)))
            losses.append(shifted - self._offset(sibling, said))
        return Scale.of(np.concatenate(losses))

    def bases(self, said: Observations, scale: Scale) -> tuple[Basis, ...]:
        """The prior mean of each sibling, on a search's scale."""
        count = len(self._siblings)
        return tuple(
            Basis(_on_scale(sibling, self._offset(sibling, said), scale), _WEIGHT / count, _SPREAD)
            for sibling in self._siblings
        )

    def _offset(self, sibling: Sibling, said: Observations) -> float:
        """By how much the sibling's losses lie above those of the search, nats per token."""
        return float(np.median(sibling.mean(said.x) - said.losses))


def _on_scale(sibling: Sibling, offset: float, scale: Scale) -> Losses:
    return lambda points: scale.seen(sibling.mean(points) - offset)


# -- what is taken over --------------------------------------------------------------------------------


def observed(
    features: Features, baseline: Mapping[str, Any], searched: Sequence[str], records: Sequence[TrialRecord]
) -> tuple[Observed, ...]:
    """What the trials of another sweep say of what this one searches.

    Left out are trials whose values this sweep cannot have: of its ranges, and of what is as in its baseline
    where the other one searched it.

    Args:
        features: the coordinates of this search.
        baseline: this spec's `trial:` section.
        searched: paths that the other sweep searched.
        records: its ended trials of the search.
    """
    fixed = [path for path in searched if path not in {column.path for column in features.columns}]
    kept = [
        record
        for record in records
        if all(_fits(features, column, record) for column in features.columns)
        and all(value_at(record.settings, path) in (None, value_at(baseline, path)) for path in fixed)
    ]
    said = observe(features, kept)
    by_number = {record.number: record for record in kept}
    return tuple(
        Observed(_values(features, by_number[number]), float(loss), float(variance))
        for number, loss, variance in zip(said.numbers, said.losses, said.variances, strict=True)
    )


def _values(features: Features, record: TrialRecord) -> dict[str, Any]:
    there = (column for column in features.columns if features.exists(column, record.settings))
    found = {column.path: value_at(record.settings, column.path) for column in there}
    return {path: value for path, value in found.items() if value is not None}


def _fits(features: Features, column: Column, record: TrialRecord) -> bool:
    """Whether a trial's value is one of the choices, or in the range or little beyond it."""
    value = value_at(record.settings, column.path)
    if value is None or not features.exists(column, record.settings):
        return True
    if column.choice:
        return any(type(value) is type(each) and value == each for each in column.ends)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -_OUTSIDE <= column.coordinate(value) <= 1 + _OUTSIDE
