"""Searched settings as coordinates: numbers between 0 and 1, choices as numbers or as labels.

A choice among numbers is in order: K=2 is more like K=4 than like K=8. A setting that does not exist under
the values of the others has one coordinate of its own, so that it tells no two trials apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from sweeps.ledger.search.normal import Array
from sweeps.spec import Range
from sweeps.spec.equivalence import value_at

_WIDE = 4.0  # a choice among positive numbers is taken by logarithms from this ratio on
_IDLE = -1.0  # the label of a choice that does not exist


@dataclass(frozen=True)
class Column:
    """One searched setting."""

    path: str
    wanted: Range
    number: bool  # otherwise a label
    log: bool = False
    codes: Mapping[Any, float] = field(default_factory=dict)

    @cached_property
    def ends(self) -> tuple[Any, ...]:
        """The choices, or the lower and the upper end."""
        return self.wanted.ends

    @cached_property
    def choice(self) -> bool:
        """Whether it has few values, which answers are given for."""
        return self.wanted.choice is not None

    @cached_property
    def _bounds(self) -> tuple[float, float]:
        low, high = min(self.ends), max(self.ends)
        return (math.log(low), math.log(high)) if self.log else (low, high)

    @cached_property
    def _step(self) -> float | None:
        return self.wanted.step or (1 if self.wanted.kind == "int" else None)

    def coordinate(self, value: Any) -> float:
        """Where a value lies; beyond 0 and 1 outside the range."""
        if not self.number:
            return self.codes.get((type(value), value), len(self.codes))
        low, high = self._bounds
        if high <= low:
            return 0.5
        return ((math.log(max(value, 1e-300)) if self.log else value) - low) / (high - low)

    def value(self, coordinate: float) -> Any:
        """The value of a range at a coordinate from 0 to 1, on its step; at 0 and 1 exactly an end."""
        if self._step is None and coordinate in (0.0, 1.0):
            return float(self.ends[int(coordinate)])
        low, high = self._bounds
        value = low + coordinate * (high - low)
        if self.log:
            return min(max(math.exp(value), self.ends[0]), self.ends[1])
        if self._step is not None:
            value = low + round((value - low) / self._step) * self._step
        return int(value) if self.wanted.kind == "int" else min(max(float(value), low), high)


class Features:
    """The coordinates of one search."""

    def __init__(self, search: Mapping[str, Range]) -> None:
        """Take the ranges of a spec."""
        self.columns = tuple(_column(path, wanted) for path, wanted in search.items())

    def row(self, params: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> list[float]:
        """The coordinates of a trial.

        Args:
            params: its searched values.
            settings: its whole `trial:` section, for values outside their ranges, as the baseline's may be.
        """
        found = []
        for column in self.columns:
            value = params.get(column.path)
            if column.path not in params and settings is not None and self.exists(column, settings):
                value = value_at(settings, column.path)
            idle = value is None and column.path not in params
            if idle or (column.number and (isinstance(value, bool) or not isinstance(value, int | float))):
                found.append(0.5 if column.number else _IDLE)
            else:
                found.append(column.coordinate(value))
        return found

    def rows(self, params: Sequence[Mapping[str, Any]]) -> Array:
        """The coordinates of configurations, a row each."""
        return np.array([self.row(each) for each in params]).reshape(len(params), len(self.columns))

    def valley(self, path: str, value: float | None) -> tuple[int, float] | None:
        """The place of a range and the coordinate of a good value on it; None where there is none."""
        paths = [column.path for column in self.columns]
        if value is None or path not in paths or self.columns[paths.index(path)].choice:
            return None
        place = paths.index(path)
        return place, self.columns[place].coordinate(value)

    def exists(self, column: Column, settings: Mapping[str, Any]) -> bool:
        """Whether a setting exists under the values of the others in a `trial:` section."""
        return all(value_at(settings, path) in allowed for path, allowed in column.wanted.when.items())


def _column(path: str, wanted: Range) -> Column:
    if wanted.choice is None:
        return Column(path, wanted, number=True, log=wanted.log is not None)
    values = wanted.choice
    if len(values) > 1 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        positive = min(values) > 0
        return Column(path, wanted, number=True, log=positive and max(values) >= _WIDE * min(values))
    return Column(path, wanted, number=False, codes={(type(v), v): float(i) for i, v in enumerate(values)})
