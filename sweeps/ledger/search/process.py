"""Exact Gaussian process regression over searched settings (Rasmussen and Williams, 2006, chapters 2 and 5).

The covariance is a sum: what the ranges do whatever is chosen (the valley of the learning rate), what each
choice does on its own, and what they do together. Numbers have Matern 5/2 covariances with a length scale
each, labels are equally alike. A good learning rate that is known gives the prior mean: losses rise on both
sides of it, by how much is learned. Length scales, amplitudes and noise are those of the highest density.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sweeps.ledger.search.features import Column
from sweeps.ledger.search.normal import Array

_ROOT5 = math.sqrt(5.0)
_STEPS = 60  # of the search for hyperparameters
_JITTER = 1e-8
# Priors of the logarithms: mean and standard deviation; losses have mean 0 and variance 1.
_SHARED, _MAIN, _JOINT, _NOISE = (
    (math.log(0.5), 0.7),
    (math.log(0.4), 0.8),
    (math.log(0.3), 0.8),
    (math.log(0.03), 0.8),
)
# The valley of the rate: how the loss rises with the logarithm of the squared distance, in such units.
_RISE, _RISE_SPREAD, _FLOOR = 1.0, 0.35, 0.1
_RANGE, _ORDERED, _LABEL = (math.log(0.35), 0.5), (math.log(0.7), 0.6), (0.0, 0.6)


@dataclass(frozen=True)
class Basis:
    """A function that the losses are a multiple of, beside the rest; the multiple is learned."""

    of: Callable[[Array], Array]  # points, a row each
    weight: float  # prior mean of the multiple
    spread: float  # its standard deviation


class Covariance:
    """The covariance of settings, by logarithms of hyperparameters: three amplitudes, the noise, lengths."""

    def __init__(
        self,
        columns: Sequence[Column],
        valley: tuple[int, float] | None = None,
        bases: Sequence[Basis] = (),
    ) -> None:
        """Of these coordinates.

        Args:
            columns: what they are.
            valley: the column of a learning rate and the coordinate of a good one; None where none is known.
            bases: what is known from elsewhere; the valley is known from there, too, so far as they count.
        """
        self.valley = valley
        rest = max(0.0, 1.0 - sum(basis.weight for basis in bases))
        self.bases = (*bases, Basis(self._rise, rest * _RISE, _RISE_SPREAD))
        self.number = np.array([column.number for column in columns], dtype=bool)
        choice = np.array([column.choice for column in columns], dtype=bool)
        bound = np.array([bool(column.wanted.when) for column in columns], dtype=bool)
        self.shared = ~choice & ~bound
        self.main = choice
        lengths = [
            _LABEL if not number else _ORDERED if chosen else _RANGE
            for number, chosen in zip(self.number, choice, strict=True)
        ]
        self.priors = np.array([_SHARED, _MAIN, _JOINT, _NOISE, *lengths])

    def between(self, one: Array, other: Array, hyper: Array) -> Array:
        """Covariances, a row for each of `one`."""
        whole = self._parts(_apart(one, other, self.number), hyper)[0]
        found: Array = whole + self.risen(one, other)
        return found

    def mean(self, points: Array) -> Array:
        """The prior mean."""
        found: Array = sum((each.weight * each.of(points) for each in self.bases), np.zeros(len(points)))
        return found

    def variance(self, points: Array, hyper: Array) -> Array:
        """The prior variance at each of these."""
        amplitude = np.exp(2 * hyper[:3])
        shared = amplitude[0] if self.shared.any() else 0.0
        same = 1.0 + shared + amplitude[1] * self.main.sum() + amplitude[2]
        left = sum(((each.spread * each.of(points)) ** 2 for each in self.bases), np.zeros(len(points)))
        found: Array = same + left
        return found

    def _rise(self, points: Array) -> Array:
        if self.valley is None:
            return np.zeros(len(points))
        column, good = self.valley
        found: Array = np.log1p(((points[:, column] - good) / _FLOOR) ** 2)
        return found

    def risen(self, one: Array, other: Array) -> Array:
        """The part of the covariance that is what the valley's steepness, and other multiples, leave open."""
        found: Array = sum(
            (each.spread**2 * np.outer(each.of(one), each.of(other)) for each in self.bases),
            np.zeros((len(one), len(other))),
        )
        return found

    def with_gradient(self, apart: Array, hyper: Array) -> tuple[Array, list[Array]]:
        """Covariances of points, and their derivatives by each hyperparameter but the noise."""
        whole, (shared, mains, joint), slopes = self._parts(apart, hyper)
        gradient = [
            2 * shared,
            2 * sum(mains.values(), np.zeros_like(joint)),
            2 * joint,
            np.zeros_like(joint),
        ]
        gradient += [slopes[index] for index in range(len(self.number))]
        return whole, gradient

    def _parts(
        self, apart: Array, hyper: Array
    ) -> tuple[Array, tuple[Array, dict[int, Array], Array], list[Array]]:
        """The whole, its parts, and its derivatives by the logarithm of each length.

        `apart` has a layer for each column: squared distances of numbers, 1 where labels differ.
        """
        amplitude = np.exp(2 * hyper[:3])
        lengths = np.exp(hyper[4:])
        scaled = [
            apart[i] / (lengths[i] ** 2 if self.number[i] else lengths[i]) for i in range(len(self.number))
        ]
        shape = apart.shape[1:]
        shared = np.zeros(shape)
        slopes = [np.zeros(shape) for _ in scaled]
        if self.shared.any():
            chosen = [int(i) for i in np.flatnonzero(self.shared)]
            shared, slope = _matern(sum((scaled[i] for i in chosen), np.zeros(shape)))
            shared = amplitude[0] * shared
            for i in chosen:
                slopes[i] += amplitude[0] * slope * scaled[i]
        mains: dict[int, Array] = {}
        for i in map(int, np.flatnonzero(self.main)):
            alone, slope = _matern(scaled[i]) if self.number[i] else (np.exp(-scaled[i]),) * 2
            mains[i] = amplitude[1] * alone
            slopes[i] += amplitude[1] * slope * scaled[i]
        numbers, slope = _matern(
            sum((s for s, n in zip(scaled, self.number, strict=True) if n), np.zeros(shape))
        )
        labels = np.exp(-sum((s for s, n in zip(scaled, self.number, strict=True) if not n), np.zeros(shape)))
        joint = amplitude[2] * numbers * labels
        for i, each in enumerate(scaled):
            slopes[i] += (amplitude[2] * slope * labels if self.number[i] else joint) * each
        whole: Array = 1.0 + shared + joint
        for part in mains.values():
            whole = whole + part
        return whole, (shared, mains, joint), slopes


@dataclass(frozen=True)
class Process:
    """A posterior over functions, of observations with noise."""

    covariance: Covariance
    hyper: Array
    x: Array  # a row a point
    y: Array
    noise: Array  # variances of the single points, on top of the common one

    @cached_property
    def _solved(self) -> tuple[Array, Array]:
        covariance = self.covariance.between(self.x, self.x, self.hyper)
        noise = np.diag(self.noise + math.exp(2 * self.hyper[3]) + _JITTER)
        inverse = np.asarray(np.linalg.inv(covariance + noise), dtype=np.float64)
        return inverse, inverse @ (self.y - self.covariance.mean(self.x))

    def predict(self, points: Array) -> tuple[Array, Array]:
        """Means and standard deviations of the function at points, without noise."""
        inverse, weights = self._solved
        cross = self.covariance.between(points, self.x, self.hyper)
        variance = self.covariance.variance(points, self.hyper) - np.sum((cross @ inverse) * cross, axis=1)
        return self.covariance.mean(points) + cross @ weights, np.sqrt(np.maximum(variance, 1e-12))

    def sample(self, points: Array, normal: Array) -> Array:
        """Functions at points, a row each, from standard normal numbers, a row a function."""
        inverse, weights = self._solved
        cross = self.covariance.between(points, self.x, self.hyper)
        spread = self.covariance.between(points, points, self.hyper) - cross @ inverse @ cross.T
        values, vectors = np.linalg.eigh(0.5 * (spread + spread.T))
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        drawn: Array = self.covariance.mean(points) + cross @ weights + normal @ root.T
        return drawn

    def conditioned(self, x: Array, y: Array) -> Process:
        """With more points, known without noise of their own."""
        noise = np.concatenate([self.noise, np.zeros(len(y))])
        return Process(
            self.covariance, self.hyper, np.vstack([self.x, x]), np.concatenate([self.y, y]), noise
        )


def fitted(covariance: Covariance, x: Array, y: Array, noise: Array) -> Array:
    """The hyperparameters of the highest posterior density, by Rprop (Riedmiller and Braun, 1993) from the
    priors' means; the same points give the same ones.

    Args:
        covariance: of the coordinates.
        x: a row a point.
        y: with mean near 0 and variance near 1.
        noise: variances of the single points.
    """
    y, risen = y - covariance.mean(x), covariance.risen(x, x)
    mean, spread = covariance.priors[:, 0], covariance.priors[:, 1]
    apart = _apart(x, x, covariance.number)
    hyper, steps = mean.copy(), np.full(len(mean), 0.15)
    best, found, before = -math.inf, hyper.copy(), np.zeros(len(mean))
    for _ in range(_STEPS):
        value, gradient = _evidence(covariance, apart, y, risen + np.diag(noise), hyper)
        if value > best:
            best, found = value, hyper.copy()
        agreed = np.sign(gradient * before)
        steps = np.clip(steps * np.where(agreed > 0, 1.3, np.where(agreed < 0, 0.5, 1.0)), 1e-3, 0.6)
        gradient = np.where(agreed < 0, 0.0, gradient)
        hyper = np.clip(hyper + np.sign(gradient) * steps, mean - 3 * spread, mean + 3 * spread)
        before = gradient
    return found


def density(process: Process, hyper: Array) -> float:
    """The logarithm of the posterior density of hyperparameters, but for a constant."""
    covariance, x = process.covariance, process.x
    fixed = covariance.risen(x, x) + np.diag(process.noise)
    y = process.y - covariance.mean(x)
    return _evidence(covariance, _apart(x, x, covariance.number), y, fixed, hyper)[0]


def _evidence(
    covariance: Covariance, apart: Array, y: Array, fixed: Array, hyper: Array
) -> tuple[float, Array]:
    """The log posterior density of hyperparameters, and its gradient."""
    whole, parts = covariance.with_gradient(apart, hyper)
    common = math.exp(2 * hyper[3])
    whole = whole + fixed + (common + _JITTER) * np.eye(len(y))
    inverse = np.linalg.inv(whole)
    weights = inverse @ y
    _, determinant = np.linalg.slogdet(whole)
    value = -0.5 * float(y @ weights) - 0.5 * float(determinant)
    pull = np.outer(weights, weights) - inverse
    gradient = np.array([0.5 * float(np.sum(pull * part)) for part in parts])
    gradient[3] = float(np.trace(pull)) * common
    off = (hyper - covariance.priors[:, 0]) / covariance.priors[:, 1]
    return value - 0.5 * float(off @ off), gradient - off / covariance.priors[:, 1]


def _apart(one: Array, other: Array, number: Any) -> Array:
    """For each column the squared distances of numbers, or 1 where labels differ."""
    difference = one.T[:, :, None] - other.T[:, None, :]
    return np.where(number[:, None, None], difference**2, (difference != 0).astype(float))


def _matern(squared: Any) -> tuple[Array, Array]:
    """Matern 5/2 of squared distances, and the factor of one of them in the derivative by its log length."""
    distance = _ROOT5 * np.sqrt(squared)
    decay = np.exp(-distance)
    return (1.0 + distance + distance**2 / 3.0) * decay, 5.0 / 3.0 * (1.0 + distance) * decay
