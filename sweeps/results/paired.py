"""Paired differences of two configurations over seeds, with their t intervals.

Trials under the same seed train on the same batches in the same order, so most of what a seed does to a loss
is the same on both sides and drops out of the difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from statistics import fmean, stdev
from typing import Any

from sweeps.records import Role
from sweeps.results.bootstrap import interval

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """Loss of one configuration minus that of another, over the seeds both have finished; negative is better.

    `half_width` is that of the 95 % paired-t interval; None with one seed, where there is no interval.
    """

    mean: float
    half_width: float | None
    n: int
    bootstrap: tuple[float, float] | None = None  # 95 % interval of the mean, as `half_width`

    @property
    def significant(self) -> bool:
        """Whether the interval exists and leaves out 0, so that the sign can be believed."""
        return self.half_width is not None and abs(self.mean) > self.half_width


@dataclass(frozen=True)
class Candidate:
    """One configuration and its losses at budget (nats per token) by seed; the first is the trial's own."""

    number: int
    role: Role
    params: Mapping[str, Any]
    settings: Mapping[str, Any]
    losses: Mapping[int, float]
    initial_loss: float | None
    flops_per_token: float | None
    failed_seeds: Mapping[int, str]  # reason by seed, of replicates that failed
    open_seeds: tuple[int, ...]  # seeds wanted, neither finished nor failed
    against_control: Difference | None = None
    against_baseline: Difference | None = None  # None for the baseline itself
    against_winner: Difference | None = None  # None for the winner itself
    chance_best: float | None = None  # of all that are compared; None with fewer than two shared seeds

    @property
    def mean(self) -> float:
        """Mean loss over its own finished seeds."""
        return fmean(self.losses.values())


@cache
def t_quantile(degrees: int, confidence: float = CONFIDENCE) -> float:
    """The t for which P(|T| <= t) is `confidence`, T Student-distributed with that many degrees of freedom.

    Found by bisection on the closed form of P for whole degrees of freedom (Abramowitz and Stegun, Handbook
    of Mathematical Functions, 1964, 26.7.3 and 26.7.4).
    """
    assert degrees >= 1
    assert 0 < confidence < 1
    low, high = 0.0, math.pi / 2  # angles: t = sqrt(degrees) * tan(angle), which is finite
    for _ in range(100):
        middle = (low + high) / 2
        if _t_within(middle, degrees) < confidence:
            low = middle
        else:
            high = middle
    return math.sqrt(degrees) * math.tan(low)


def _t_within(angle: float, degrees: int) -> float:
    """P(|T| <= sqrt(degrees) tan(angle))."""
    cosine, odd = math.cos(angle), degrees % 2 == 1
    term, total = (cosine if odd else 1.0), 0.0
    for power in range(1 if odd else 0, degrees - 1, 2):
        total += term
        term *= cosine * cosine * (power + 1) / (power + 2)
    total *= math.sin(angle)
    return (2 / math.pi) * (angle + total) if odd else total


def difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference | None:
    """Compare two configurations' losses by seed; None when they share no seed."""
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        return None
    deltas = [ours[seed] - theirs[seed] for seed in shared]
    n = len(deltas)
    half_width = t_quantile(n - 1) * stdev(deltas) / math.sqrt(n) if n > 1 else None
    return Difference(fmean(deltas), half_width, n, interval(deltas, CONFIDENCE))
