"""How often the interval of `sweeps.results.annealing` holds: `python -m tests.bench.bench_longer`.

The recorded tables have the same cells at one budget and at 4 times that (`builtin`, `builtin-long`, and so on): of each
cell the short curve is fitted, and the end of the long one is the truth. Printed are, for each table and rate, the share of
ends within the 90 % interval, the mean absolute error, and half the interval beside the fall that was still to come;
then pairs of grown models whose order at the long end is said, and how many of these were right; then whether rankings
held between the budgets: Spearman's rank correlation over all grown cells, and over the best of the short table, whose
order is what a sweep goes on with.
"""

from __future__ import annotations

import itertools
import json
import lzma
import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

from sweeps.results.annealing import expected_loss
from sweeps.results.longer import TIMES, Expected, stays_ahead
from sweeps.results.rank_correlation import rank_correlation
from tests.bench.record import RECORDED
from tli.training.recipe import Recipe

TABLES = ("builtin", "wikitext")
_QUANTILE = 1.6449
_BEST = (5, 10, 20)
Cell = tuple[Any, ...]  # K, first weights, scale, rate, seed


def pairs_of(name: str) -> Iterator[tuple[Cell, Recipe, dict[int, float], float]]:
    """The cells that both tables have: the short one's recipe and curve, and the end of the long one."""
    short, long = _read(name), _read(f"{name}-long")
    assert long["tokens"] == TIMES * short["tokens"]
    ends = {_cell(each): each["validation"][-1] for each in long["cells"] if not each["matched"]}
    for each in short["cells"]:
        if each["matched"] or _cell(each) not in ends:
            continue
        recipe = Recipe(
            learning_rate=each["learning_rate"], tokens=short["tokens"], batch_tokens=short["batch_tokens"]
        )
        curve = dict(zip(short["measured"], each["validation"], strict=True))
        yield _cell(each), recipe, curve, ends[_cell(each)]


def coverage(
    name: str, rates: Sequence[float] | None = None, cells: int | None = None
) -> dict[float, list[tuple[float, float, float]]]:
    """By rate: error of the expected loss, half of its interval, and the fall that was still to come.

    Args:
        name: of the table.
        rates: to look at; all where left out.
        cells: of each rate, the first ones; all where left out.
    """
    found: defaultdict[float, list[tuple[float, float, float]]] = defaultdict(list)
    for cell, recipe, curve, end in pairs_of(name):
        if (rates is not None and cell[3] not in rates) or len(found[cell[3]]) == cells:
            continue
        loss, deviation = expected_loss(recipe, curve, TIMES)
        found[cell[3]].append((loss - end, _QUANTILE * deviation, curve[max(curve)] - end))
    return dict(sorted(found.items()))


def main() -> None:
    """Print all."""
    for name in TABLES:
        by_rate = coverage(name)
        everything = [row for rows in by_rate.values() for row in rows]
        for rate, rows in [*by_rate.items(), ("all", everything)]:
            inside = fmean(abs(error) <= half for error, half, _ in rows)
            print(
                f"{name:9} rate {rate!s:7} {len(rows):4} ends, {inside:4.0%} within 90 %; "
                f"error {fmean(abs(error) for error, _, _ in rows):.4f} (bias {fmean(e for e, _, _ in rows):+.4f}), "
                f"half an interval {fmean(half for _, half, _ in rows):.4f}, "
                f"fall {fmean(fall for _, _, fall in rows):.4f}"
            )
        said, right, pairs = _orders(name)
        print(f"{name:9} order of {said} of {pairs} pairs said, {right} rightly")
        for most, (rank, low, high, n) in _rankings(name).items():
            print(f"{name:9} {most:>12}: Spearman {rank:+.2f} (95 %: {low:+.2f} to {high:+.2f}) of {n}")


def _orders(name: str) -> tuple[int, int, int]:
    """Pairs of grown models under one seed: whose order is said, of which rightly, and all."""
    rows = []
    for cell, recipe, curve, end in pairs_of(name):
        if cell[0] is not None:
            loss, deviation = expected_loss(recipe, curve, TIMES)
            half = _QUANTILE * deviation
            rows.append(
                (cell[4], curve[max(curve)], Expected(0, 0, loss, loss - half, loss + half, 0, 1), end)
            )
    said = right = pairs = 0
    for one, other in itertools.combinations(rows, 2):
        if one[0] != other[0]:
            continue
        first, second = sorted((one, other), key=lambda row: row[1])
        pairs += 1
        if stays_ahead(first[2], second[2]):
            said += 1
            right += first[3] < second[3]
    return said, right, pairs


def _rankings(name: str) -> dict[str, tuple[float, float, float, int]]:
    """Rank correlations between the budgets, losses being means over the seeds."""
    losses: defaultdict[Cell, list[tuple[float, float]]] = defaultdict(list)
    for cell, _, curve, end in pairs_of(name):
        if cell[0] is not None:
            losses[cell[:4]].append((curve[max(curve)], end))
    means = sorted(
        (fmean(short for short, _ in each), fmean(end for _, end in each)) for each in losses.values()
    )
    found = {}
    for most in (*_BEST, len(means)):
        best = means[:most]
        each = rank_correlation([short for short, _ in best], [end for _, end in best])
        found["all" if most == len(means) else f"the best {most}"] = (
            each.value, *(each.interval or (math.nan, math.nan)), len(best)
        )  # fmt: skip
    return found


def _cell(each: dict[str, Any]) -> Cell:
    return each["k"], each["init"], each["scale"], each["learning_rate"], each["seed"]


def _read(name: str) -> dict[str, Any]:
    with lzma.open(RECORDED / f"{name}.json.xz", "rt") as file:
        plain: dict[str, Any] = json.load(file)
        return plain


if __name__ == "__main__":
    sys.exit(main())
