"""The bootstrap, paired over seeds: the chance of each finalist to be the best.

Seeds are drawn again from those that were run, with replacement, the same draw for every configuration. Up to
eight seeds every possible draw is counted, so nothing is left to chance; with more, draws are random under a
seed of their own. With three seeds there are ten different draws: an interval from them is too narrow (a t
interval stands beside it), and a chance of 100 % says no more than that one was best under each seed.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from statistics import fmean

_EXACT = 8  # seeds up to which all draws are counted: 6,435 of eight
_DRAWS = 10_000


def interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """The percentile interval of the mean of `values`; None of fewer than two."""
    if len(values) < 2:
        return None
    means = sorted((fmean(values[place] for place in draw), weight) for draw, weight in _draws(len(values)))
    tail = (1 - confidence) / 2
    return _quantile(means, tail), _quantile(means, 1 - tail)


def chances(losses: Mapping[int, Mapping[int, float]]) -> dict[int, float]:
    """For each configuration the share of draws in which its mean loss is the lowest; equals share a draw.

    Args:
        losses: by configuration and seed. Only seeds that all have count; without two of them nothing is
            known and the result is empty.
    """
    shared = sorted(set.intersection(*(set(by_seed) for by_seed in losses.values()))) if losses else []
    if len(shared) < 2:
        return {}
    won = dict.fromkeys(losses, 0.0)
    for draw, weight in _draws(len(shared)):
        sums = {name: sum(by_seed[shared[place]] for place in draw) for name, by_seed in losses.items()}
        lowest = min(sums.values())
        best = [name for name, total in sums.items() if total == lowest]
        for name in best:
            won[name] += weight / len(best)
    total = sum(weight for _, weight in _draws(len(shared)))
    return {name: count / total for name, count in won.items()}


@cache
def _draws(n: int) -> tuple[tuple[tuple[int, ...], int], ...]:
    """Draws of n from n places with replacement, in order, and how often each comes."""
    return tuple(_all(n) if n <= _EXACT else _some(n))


def _all(n: int) -> Iterator[tuple[tuple[int, ...], int]]:
    for draw in itertools.combinations_with_replacement(range(n), n):
        repeats = math.prod(math.factorial(count) for count in Counter(draw).values())
        yield draw, math.factorial(n) // repeats


def _some(n: int) -> Iterator[tuple[tuple[int, ...], int]]:
    source = random.Random(n)  # noqa: S311 - no secret
    for _ in range(_DRAWS):
        yield tuple(source.choices(range(n), k=n)), 1


def _quantile(weighted: Sequence[tuple[float, int]], share: float) -> float:
    """The smallest value that at least this share of the weight does not exceed."""
    total = sum(weight for _, weight in weighted)
    reached = 0
    for value, weight in weighted:
        reached += weight
        if reached >= share * total:
            return value
    return weighted[-1][0]
