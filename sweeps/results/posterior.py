"""P(best): the posterior probability that a configuration has the lowest expected loss of all compared.

Model: the loss of configuration c under seed s is mu_c + a_s + e_cs, the seed's effect shared by all, e
normal with one variance, Jeffreys' prior. Given the losses, the mu less what all share are then a
multivariate t about the means with (C - 1)(S - 1) degrees of freedom (Box and Tiao, Bayesian Inference in
Statistical Analysis, 1973, 2.11); the test text's own variance is added where its blocks are known, as in a
claim. The chance of each to be the lowest is an integral over the common scale and over its own mu, taken on
a grid.
"""

from __future__ import annotations

import math
from statistics import fmean

from sweeps.results.noise import Table

LEAST_SEEDS = 3  # below this a chance says more about the prior than about the losses
_SCALES, _PLACES = 13, 25  # of the grid; ten times as many change no chance by 0.0005
_ROOT_HALF = math.sqrt(0.5)


def shared(table: Table) -> list[int]:
    """Seeds under which all have a loss."""
    return sorted(set.intersection(*(set(losses) for losses in table.values()))) if table else []


def lowest_under(table: Table) -> dict[int, int]:
    """By number, under how many of the shared seeds it has the lowest loss; equals count for both."""
    found = dict.fromkeys(table, 0)
    for seed in shared(table):
        losses = {number: fmean(table[number][seed]) for number in table}
        least = min(losses.values())
        for number, loss in losses.items():
            found[number] += loss == least
    return found


def chances(table: Table) -> dict[int, float]:
    """By number; they sum to 1. Empty below three shared seeds, and of fewer than two configurations."""
    seeds = shared(table)
    if len(seeds) < LEAST_SEEDS or len(table) < 2:
        return {}
    losses = {number: [fmean(by_seed[seed]) for seed in seeds] for number, by_seed in table.items()}
    means = {number: fmean(values) for number, values in losses.items()}
    by_seed = [fmean(column) for column in zip(*losses.values(), strict=True)]
    grand = fmean(means.values())
    residuals = [
        value - means[number] - at + grand
        for number, values in losses.items()
        for value, at in zip(values, by_seed, strict=True)
    ]
    degrees = (len(table) - 1) * (len(seeds) - 1)
    scale2 = sum(each * each for each in residuals) / degrees / len(seeds) + _text_variance(table, seeds)
    if scale2 <= 1e-24 * max(1.0, grand * grand):  # no noise beyond rounding
        least = min(means.values())
        best = [number for number in means if means[number] == least]
        return {number: (number in best) / len(best) for number in means}
    return _integrated(means, math.sqrt(scale2), degrees)


def _text_variance(table: Table, seeds: list[int]) -> float:
    """Of a configuration's mean over blocks of text, less what all share on a block; 0 without blocks."""
    counts = {len(by_seed[seed]) for by_seed in table.values() for seed in seeds}
    blocks = counts.pop()
    if counts or blocks < 2:
        return 0.0
    rows = [
        [fmean(by_seed[seed][block] for seed in seeds) for block in range(blocks)]
        for by_seed in table.values()
    ]
    columns = [fmean(column) for column in zip(*rows, strict=True)]
    grand = fmean(columns)
    total = sum(
        (value - fmean(row) - at + grand) ** 2 for row in rows for value, at in zip(row, columns, strict=True)
    )
    return total / ((len(rows) - 1) * (blocks - 1)) / blocks


def _integrated(means: dict[int, float], scale: float, degrees: int) -> dict[int, float]:
    """Over the scale's posterior (scaled inverse chi-squared) and each configuration's own place."""
    wide = math.sqrt(2 / degrees)  # standard deviation of the log of chi-squared by its degrees, roughly
    logs = [(-5 + 8.5 * step / (_SCALES - 1)) * wide for step in range(_SCALES)]
    weights = [math.exp(degrees / 2 * (at - math.exp(at) + 1)) for at in logs]
    places = [-5.6 + 11.2 * step / (_PLACES - 1) for step in range(_PLACES)]
    densities = [math.exp(-place * place / 2) for place in places]
    found = dict.fromkeys(means, 0.0)
    for at, weight in zip(logs, weights, strict=True):
        spread = scale * math.exp(-at / 2)
        for number, mean in means.items():
            others = [(value - mean) / spread for other, value in means.items() if other != number]
            for place, density in zip(places, densities, strict=True):
                chance = weight * density
                for other in others:
                    chance *= _above(place - other)
                found[number] += chance
    total = sum(found.values())
    return {number: value / total for number, value in found.items()}


def _above(value: float) -> float:
    """P(Z > value), Z standard normal."""
    return math.erfc(value * _ROOT_HALF) / 2
