"""Answers from the model: for each value of each choice, and each pair, the best loss over all others.

The posterior of that minimum is drawn jointly: functions at the points of each cell that may hold its lowest
loss, under several hyperparameters by their density, so that what few trials leave open is in the interval.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sweeps.ledger.search.features import Column, Features
from sweeps.ledger.search.model import RATE, Model, Modeller
from sweeps.ledger.search.normal import Array
from sweeps.ledger.search.process import Process, density
from sweeps.ledger.search.threads import one_thread
from sweeps.records import Role, State, TrialRecord
from sweeps.search_answers import Estimate, Pair, Value
from sweeps.spec import Spec
from sweeps.spec.equivalence import value_at
from sweeps.student import CONFIDENCE

_CELLS = 256  # of all choices together; of more, each choice is asked on its own
_ALONG = 33  # points along a range, at which a cell is looked at
_KEPT = 10  # of them, those that may hold the lowest loss
_DRAWS = 600
_HYPERS = 10  # that hyperparameters are drawn of, beside the likeliest
_WIDTH = 0.35  # of their logarithms


@dataclass(frozen=True)
class Surface:
    """What a search says of its choices.

    Attributes:
        values: by path and value.
        pairs: by two paths and two values.
        chances: by path and value, the chance that its best is within the margin of the best of all.
        margin: in nats per token.
    """

    values: Mapping[str, Mapping[Value, Estimate]]
    pairs: Mapping[Pair, Mapping[tuple[Value, Value], Estimate]]
    chances: Mapping[str, Mapping[Value, float]]
    margin: float

    def answer(self, path: str) -> Value | None:
        """The value that is as good as the best with enough confidence, the likeliest; None where none is."""
        found = self.chances.get(path, {})
        likeliest = max(found, key=lambda value: found[value], default=None)
        return likeliest if likeliest is not None and found[likeliest] >= CONFIDENCE else None


@dataclass(frozen=True)
class SearchModel:
    """What a search knows: the coordinates of its settings, its trials, and the model of ended ones."""

    features: Features
    searched: Sequence[TrialRecord]
    model: Model | None  # None while they say too little


def search_model(spec: Spec, records: Sequence[TrialRecord]) -> SearchModel:
    """Of all trials of a sweep, fitted once for all that is asked of it."""
    features = Features(spec.search)
    searched = [r for r in records if r.role in (Role.BASELINE, Role.SEARCH) and r.settings]
    model = Modeller(features).model([r for r in searched if r.state.finished], good_rate(spec, records))
    return SearchModel(features, searched, model)


@one_thread
def surface(
    spec: Spec,
    records: Sequence[TrialRecord],
    *,
    margin: float = 0.002,
    seed: int = 0,
    known: SearchModel | None = None,
) -> Surface:
    """The best loss of each value of each searched choice, and of each pair, by the model of a search.

    Args:
        spec: of the sweep.
        records: its trials; controls give a good rate, replicates say nothing.
        margin: how near to the best counts as good, in nats per token.
        seed: of the draws.
        known: the model of these trials, where it was fitted before.
    """
    known = known or search_model(spec, records)
    features, searched, model = known.features, known.searched, known.model
    choices = [column for column in features.columns if column.choice]
    counts = _counts(choices, searched)
    if model is None or not choices:
        return Surface({}, {}, {}, margin)
    cells = list(_cells(features, choices))
    points, owners = _points(features, model, cells)
    values_drawn = drawn(model, points, seed)
    lows = np.stack([values_drawn[:, owners == index].min(axis=1) for index in range(len(cells))], axis=1)
    values: dict[str, dict[Value, Estimate]] = {}
    pairs: dict[Pair, dict[tuple[Value, Value], Estimate]] = {}
    chances: dict[str, dict[Value, float]] = {}
    overall = lows.min(axis=1)
    for column in choices:
        path = column.path
        for value in column.ends:
            inside = [i for i, cell in enumerate(cells) if path in cell and _same(cell[path], value)]
            if inside:
                low = lows[:, inside].min(axis=1)
                values.setdefault(path, {})[value] = _estimate(low, counts.get((path, value), (0, 0)))
                chances.setdefault(path, {})[value] = float(np.mean(low <= overall + margin))
    for one, other in itertools.combinations(choices, 2):
        for a, b in itertools.product(one.ends, other.ends):
            inside = [
                i
                for i, cell in enumerate(cells)
                if _same(cell.get(one.path), a) and _same(cell.get(other.path), b)
            ]
            if inside:
                count = _counts_of(searched, {one.path: a, other.path: b})
                low = lows[:, inside].min(axis=1)
                pairs.setdefault((one.path, other.path), {})[a, b] = _estimate(low, count)
    return Surface(values, pairs, chances, margin)


def good_rate(spec: Spec, records: Sequence[TrialRecord]) -> float:
    """The learning rate under which the original model ended best; until one has ended, the baseline's.

    Or a third of the lowest one that a trial failed at, where that is lower still: it diverged there.
    """
    found = [
        (record.minimised, record.settings["recipe"]["learning_rate"])
        for record in records
        if record.role is Role.CONTROL and record.value is not None and math.isfinite(record.value)
    ]
    if found:
        return float(min(found)[1])
    searched = (r for r in records if r.role in (Role.BASELINE, Role.SEARCH) and r.state is State.FAIL)
    failed = [record.settings["recipe"]["learning_rate"] for record in searched if record.settings]
    return float(min([spec.trial.recipe.learning_rate, *(rate / 3 for rate in failed)]))


def _estimate(low: Array, count: tuple[int, int]) -> Estimate:
    below, above = np.quantile(low, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2])
    middle = float(np.mean(low))
    return Estimate(middle, float(max(above - middle, middle - below)), *count)


def _same(one: Value, other: Value) -> bool:
    return type(one) is type(other) and bool(one == other)


def _counts(choices: Sequence[Column], searched: Sequence[TrialRecord]) -> dict[Any, tuple[int, int]]:
    return {
        (column.path, value): _counts_of(searched, {column.path: value})
        for column in choices
        for value in column.ends
    }


def _counts_of(searched: Sequence[TrialRecord], values: Mapping[str, Value]) -> tuple[int, int]:
    """How many trials have these values, and how many of them ran to their end."""
    found = [r for r in searched if all(_same(value_at(r.settings, p), v) for p, v in values.items())]
    return len(found), sum(record.state is State.COMPLETE for record in found)


def _cells(features: Features, choices: Sequence[Column]) -> Iterator[dict[str, Value]]:
    """Every combination of choices; a choice that does not exist in one is left out."""
    if math.prod(len(column.ends) for column in choices) > _CELLS:
        choices = choices[:2]
    seen = set()
    for values in itertools.product(*(column.ends for column in choices)):
        whole = dict(zip([column.path for column in choices], values, strict=True))
        cell = {path: value for path, value in whole.items() if exists(features, path, whole)}
        key = tuple((path, type(value), value) for path, value in cell.items())
        if key not in seen:
            seen.add(key)
            yield cell


def exists(features: Features, path: str, cell: Mapping[str, Value]) -> bool:
    """Whether a setting exists beside these values."""
    column = next(column for column in features.columns if column.path == path)
    return all(other not in cell or cell[other] in allowed for other, allowed in column.wanted.when.items())


def _points(features: Features, model: Model, cells: Sequence[Mapping[str, Value]]) -> tuple[Array, Array]:
    """For each cell the points that may hold its lowest loss, and whose each of them is."""
    ranges = [column for column in features.columns if not column.choice]
    chance = np.random.default_rng(0)
    found, owners = [], []
    for index, cell in enumerate(cells):
        inside = [column for column in ranges if exists(features, column.path, cell)]
        count = _ALONG if len(inside) <= 1 else 3 * _ALONG
        at = chance.random((count, len(inside)))
        for place, column in enumerate(inside):
            if column.path == RATE or len(inside) == 1:
                at[:, place] = np.tile(np.linspace(0.0, 1.0, _ALONG), count // _ALONG)
        params = [
            {**cell, **{c.path: c.value(float(u)) for c, u in zip(inside, row, strict=True)}} for row in at
        ]
        rows = features.rows(params if inside else [dict(cell)])
        means, deviations = model.posterior(rows)
        kept = rows[np.argsort(means - 2 * deviations, kind="stable")[:_KEPT]]
        found.append(kept)
        owners += [index] * len(kept)
    return np.vstack(found), np.array(owners)


def drawn(model: Model, points: Array, seed: int) -> Array:
    """Functions at points, in nats per token, under several hyperparameters by their density."""
    chance = np.random.default_rng(seed)
    base = model.process
    spread = _WIDTH * chance.standard_normal((_HYPERS, len(base.hyper)))
    hypers = [base.hyper, *(base.hyper + each for each in spread)]
    weights = np.array([density(base, hyper) for hyper in hypers])
    weights = np.exp(weights - weights.max())
    counts = chance.multinomial(_DRAWS, weights / weights.sum())
    parts = []
    for hyper, count in zip(hypers, counts, strict=True):
        if count:
            process: Process = replace(base, hyper=hyper)
            parts.append(process.sample(points, chance.standard_normal((count, len(points)))))
    return model.scale.losses(np.vstack(parts))
