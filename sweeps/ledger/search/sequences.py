"""Configurations spread evenly over a space, by their places in a sequence: quasi-Monte Carlo."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from sweeps.ledger.search.features import Features
from sweeps.ledger.search.space import Space


def spread(
    space: Space, features: Features, seed: int, place: int, fixed: Mapping[str, Any]
) -> dict[str, Any]:
    """The configuration at a place of the additive recurrence of generalised golden ratios (Roberts, 2018).

    Args:
        space: the dimensions.
        features: their coordinates.
        seed: of the shift of the whole sequence.
        place: from 0.
        fixed: values that were chosen elsewhere.
    """
    columns = features.columns
    ratio = _ratio(len(columns))
    shift = random.Random(seed)  # noqa: S311 - no secret
    at = {
        column.path: (shift.random() + (place + 1) * ratio ** -(index + 1)) % 1.0
        for index, column in enumerate(columns)
    }
    by_path = {column.path: column for column in columns}
    params: dict[str, Any] = {}
    for name, _ in space.walk(params):
        column, where = by_path[name], at[name]
        ends = column.wanted.ends
        value = ends[int(where * len(ends))] if column.choice else column.value(where)
        params[name] = fixed.get(name, value)
    return params


def _ratio(dimensions: int) -> float:
    """The positive root of x^(d+1) = x + 1."""
    found = 2.0
    for _ in range(60):
        found = (1.0 + found) ** (1.0 / (dimensions + 1))
    return found
