"""Paired differences of two configurations over seeds, with their t intervals.

Trials under the same seed train on the same batches in the same order, so most of what a seed does to a loss
is the same on both sides and drops out of the difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, stdev

from sweeps.student import t_quantile


@dataclass(frozen=True)
class Difference:
    """Loss of one configuration minus that of another, over the seeds both have finished; negative is better.

    `half_width` is that of the 95 % interval. It is None where there is no interval: with one seed, and where
    all seeds have the same difference, which has no variance to estimate one from.
    """

    mean: float
    half_width: float | None
    n: int

    @property
    def significant(self) -> bool:
        """Whether the interval exists and leaves out 0, so that the sign can be believed."""
        return self.half_width is not None and abs(self.mean) > self.half_width


def difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference | None:
    """Compare two configurations' losses by seed; None when they share no seed."""
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        return None
    deltas = [ours[seed] - theirs[seed] for seed in shared]
    n = len(deltas)
    spread = stdev(deltas) if n > 1 else 0.0
    half_width = t_quantile(n - 1) * spread / math.sqrt(n) if spread else None
    return Difference(fmean(deltas), half_width, n)
