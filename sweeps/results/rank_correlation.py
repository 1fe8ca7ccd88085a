"""Spearman's rank correlation of two rankings of the same things, with an interval from five on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import StatisticsError, correlation

FEWEST = 5  # things, below which no interval is given: any order of four may be chance
_QUANTILE = 1.959964  # of the normal distribution: 95 % lie within


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rho; None where all of one ranking are equal.

    `interval` holds it at 95 %, by Fisher's z with the variance of Bonett and Wright (2000); None for fewer
    than `FEWEST`.
    """

    value: float | None
    n: int
    interval: tuple[float, float] | None


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> RankCorrelation:
    """Of two losses of each thing, in the same order; equal losses share the mean of their ranks."""
    n = len(one)
    try:
        value = correlation(_ranks(one), _ranks(other)) if n > 1 else None
    except StatisticsError:  # all are equal
        value = None
    if value is None or n < FEWEST:
        return RankCorrelation(value, n, None)
    if abs(value) >= 1 - 1e-12:  # Fisher's z has no end there: what one exchange of neighbours would give
        value = math.copysign(1.0, value)
        inner = 1 - 6 * 2 / (n * (n * n - 1))
        low = _ends(inner, n)[0]
        return RankCorrelation(value, n, (low, 1.0) if value > 0 else (-1.0, -low))
    return RankCorrelation(value, n, _ends(value, n))


def _ends(value: float, n: int) -> tuple[float, float]:
    half = _QUANTILE * math.sqrt((1 + value * value / 2) / (n - 3))
    z = math.atanh(value)
    return math.tanh(z - half), math.tanh(z + half)


def _ranks(values: Sequence[float]) -> list[float]:
    """From 0; equal ones share the mean of theirs."""
    ordered = sorted(values)
    return [ordered.index(value) + (ordered.count(value) - 1) / 2 for value in values]
