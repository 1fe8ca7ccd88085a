"""Grids of parameters: by default the few of them in which every two values meet; the others are slow tests."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest


def every_pair(*axes: Sequence[Any]) -> list[Any]:
    """All combinations of the values of the axes, for `pytest.mark.parametrize`; which are kept is always the same."""
    grid = list(itertools.product(*(range(len(axis)) for axis in axes)))
    left, kept = {pair for place in grid for pair in _pairs(place)}, set()
    while left:
        most = max(grid, key=lambda place: len(left & _pairs(place)))
        kept.add(most)
        left -= _pairs(most)
    return [
        pytest.param(
            *(axis[at] for axis, at in zip(axes, place, strict=True)),
            marks=() if place in kept else pytest.mark.slow,
            id="-".join(_named(axis[at]) for axis, at in zip(axes, place, strict=True)),
        )
        for place in grid
    ]


def _pairs(place: Sequence[int]) -> set[tuple[tuple[int, int], ...]]:
    return set(itertools.combinations(enumerate(place), 2))


def _named(value: Any) -> str:
    return " ".join(f"{key}={each}" for key, each in value.items()) if isinstance(value, dict) else str(value)
