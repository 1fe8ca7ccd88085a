"""Noise of a paired difference: that of seeds, pooled over all that is compared, and that of the test text.

Seeds. The losses of configuration c under seed s are taken as mu_c + a_s + e_cs: what a seed does to all
alike drops out of a difference, and the e differ in size between configurations. Three seeds leave a paired
difference two degrees of freedom, with which little can be shown; one variance for all is wrong where one
configuration is noisier. So the variance of a difference is drawn towards the mean of all paired variances,
which counts for two degrees of freedom (Smyth 2004, Statistical Applications in Genetics and Molecular
Biology 3(1), the moderated t, with its prior degrees of freedom fixed). Simulated with this program's
shapes, two hold the promised error rates with variances that differ fourfold (tests/sweeps/test_claims_*).

Text. The test text is a sample, too: where its losses come by block, the variance of the difference over
blocks is added, so that intervals speak of other text of the same source and other seeds, not of this text.
The degrees of freedom of the sum are Satterthwaite's (1946, Biometrics Bulletin 2), rounded down.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from sweeps.student import t_quantile

Losses = Mapping[int, tuple[float, ...]]  # of one configuration: by seed, the loss of each block of the text
Table = Mapping[int, Losses]  # by number

PRIOR = 2  # degrees of freedom that the mean of all paired variances counts for


@dataclass(frozen=True)
class Pool:
    """The mean variance of a paired difference between configurations (nats squared), of one seed."""

    variance: float
    degrees: int


@dataclass(frozen=True)
class Noisy:
    """The mean paired difference of two configurations (nats), and what is known of its error."""

    mean: float
    n: int  # seeds
    seed_variance: float  # of the difference under one seed, moderated
    seed_degrees: int
    text_variance: float  # of the mean over the text; 0 where there are no blocks
    text_degrees: int

    def error(self, n: int | None = None, text: float = 1.0) -> float:
        """Standard error; with `n` seeds and `text` times the test text."""
        return math.sqrt(self.seed_variance / (n or self.n) + self.text_variance / text)

    def degrees(self, n: int | None = None, text: float = 1.0) -> int:
        """Of the standard error, at least 1."""
        seeds = self.seed_variance / (n or self.n)
        known = self.seed_degrees + (n or self.n) - self.n
        read = self.text_variance / text
        weight = seeds**2 / known + (read**2 / self.text_degrees if self.text_degrees else 0.0)
        return max(1, math.floor((seeds + read) ** 2 / weight + 1e-9)) if weight else known

    def half_width(self, tail: float, n: int | None = None, text: float = 1.0) -> float:
        """Of the interval that leaves out so much on each side, as `looks.tail_of` gives it."""
        return t_quantile(self.degrees(n, text), 1 - 2 * tail) * self.error(n, text)


def pool(table: Table) -> Pool | None:
    """Over all pairs that share two seeds or more; None where none does."""
    means = {
        number: {seed: fmean(losses) for seed, losses in by_seed.items()} for number, by_seed in table.items()
    }
    total = weights = 0.0
    inside: set[int] = set()
    for ours, theirs in itertools.combinations(table, 2):
        shared = table[ours].keys() & table[theirs].keys()
        if len(shared) < 2:
            continue
        inside |= {ours, theirs}
        spread = variance([means[ours][seed] - means[theirs][seed] for seed in sorted(shared)])
        total += (len(shared) - 1) * spread
        weights += len(shared) - 1
    if not inside:
        return None
    seeds = {seed for number in inside for seed in table[number]}
    cells = sum(len(table[number]) for number in inside)
    return Pool(total / weights, max(1, cells - len(inside) - len(seeds) + 1))


def paired(ours: Losses, theirs: Losses, pooled: Pool | None) -> tuple[float, int, Noisy | None] | None:
    """Mean difference, number of shared seeds, and the noise.

    The last is None under one seed; and where the difference is the same in every block and under every seed,
    here and in the pool: there is no variance then to estimate an error from, which is not an error of 0.
    """
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        return None
    deltas = [fmean(ours[seed]) - fmean(theirs[seed]) for seed in shared]
    mean, n = fmean(deltas), len(deltas)
    if n < 2 or pooled is None:
        return mean, n, None
    own = n - 1
    prior = max(0, min(PRIOR, pooled.degrees - own))  # a pool that is this pair alone adds nothing
    moderated = (own * variance(deltas) + prior * pooled.variance) / (own + prior)
    text, blocks = _text_variance(ours, theirs, shared)
    if moderated == text == 0:
        return mean, n, None
    return mean, n, Noisy(mean, n, moderated, own + prior, text, max(0, blocks - 1))


def variance(values: Sequence[float]) -> float:
    """Unbiased, of two values or more; statistics.variance is exact, and fifty times as slow."""
    mean = fmean(values)
    return sum((value - mean) ** 2 for value in values) / (len(values) - 1)


def _text_variance(ours: Losses, theirs: Losses, seeds: list[int]) -> tuple[float, int]:
    """Variance of the mean difference over blocks of text, and their number; of the mean over seeds."""
    counts = {len(losses[seed]) for losses in (ours, theirs) for seed in seeds}
    blocks = counts.pop()
    if counts or blocks < 2:
        return 0.0, 0
    by_block = [fmean(ours[seed][block] - theirs[seed][block] for seed in seeds) for block in range(blocks)]
    return variance(by_block) / blocks, blocks
