"""How far configurations lie from those that were tried: no trial is spent on what another one has shown.

Two are compared where all that has an effect is the same but for values of ranges. Choices and short grids
are compared by what they train (`sweeps.spec.equivalence`), values of ranges by their coordinates, and a
value that has no effect beside the others not at all.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

from sweeps.ledger.search.features import Features
from sweeps.ledger.search.space import Space

Alike = Callable[[Mapping[str, Any]], Hashable]

SHARES = (0.01, 0.005, 0.0025, 0.00125, 0.000625, 0.0)  # of a range, one after another while nothing is left
_EQUAL = 1e-9  # in coordinates
_LONG = 100  # values of a grid that is compared by coordinates where the space is not finite
_SEEN_AS = (0.382, 0.618)  # coordinates at which it is asked whether a range has an effect
_KEPT = 100_000  # answers to that


class Place(NamedTuple):
    """Where a configuration lies."""

    group: Hashable  # the same for all that differ by nothing but values of ranges
    at: tuple[float, ...]  # coordinates of those that have an effect, from 0 to 1


class Places:
    """The places of one space."""

    def __init__(self, space: Space, features: Features, alike: Alike) -> None:
        """Place nothing yet.

        Args:
            space: the dimensions.
            features: their coordinates.
            alike: what trials of some parameters have in common that train the same.
        """
        self._space, self._alike = space, alike
        self._columns = {
            column.path: column
            for column in features.columns
            if not column.choice and _is_long(space.dimensions[column.path].size, finite=space.finite)
        }
        self._groups: dict[Hashable, tuple[Hashable, tuple[str, ...]]] = {}

    @property
    def ranges(self) -> bool:
        """Whether anything is compared by coordinates."""
        return bool(self._columns)

    def of(self, params: Mapping[str, Any]) -> Place:
        """Where these parameters lie."""
        ranges = tuple(name for name in self._columns if name in params)
        short = {name: value for name, value in params.items() if name not in self._columns}
        known_by = self._space.key(short), ranges
        if known_by not in self._groups:
            if len(self._groups) >= _KEPT:
                self._groups.clear()
            self._groups[known_by] = self._group(short, ranges)
        group, names = self._groups[known_by]
        return Place(group, tuple(self._columns[name].coordinate(params[name]) for name in names))

    def _group(self, short: Mapping[str, Any], ranges: tuple[str, ...]) -> tuple[Hashable, tuple[str, ...]]:
        """What tells a group from others, and the ranges that have an effect in it."""
        seen, other = ({name: self._columns[name].value(at) for name in ranges} for at in _SEEN_AS)
        trained = self._alike({**short, **seen})
        names = tuple(name for name in ranges if self._alike({**short, **seen, name: other[name]}) != trained)
        return (trained, names), names


class Tried:
    """Places that were tried, in the order of their first coordinate."""

    def __init__(self) -> None:
        """Begin with none."""
        self._groups: defaultdict[Hashable, list[tuple[float, ...]]] = defaultdict(list)

    def add(self, place: Place) -> None:
        """Take one more."""
        bisect.insort(self._groups[place.group], place.at)

    def near(self, place: Place, share: float) -> bool:
        """Whether one lies closer than a share of every range; an end of a range is near to itself alone.

        Where no range has an effect, and at a share of 0, only what is the same is near.
        """
        tried = self._groups.get(place.group)
        if not tried or not place.at:
            return bool(tried)
        width = max(share, _EQUAL)
        first = bisect.bisect_left(tried, (place.at[0] - width,))
        last = bisect.bisect_right(tried, (place.at[0] + width, math.inf))
        return any(all(map(_near, place.at, at, itertools.repeat(width))) for at in tried[first:last])


def _near(wanted: float, tried: float, width: float) -> bool:
    at_end = min(abs(wanted), abs(wanted - 1.0)) <= _EQUAL
    return math.isclose(wanted, tried, rel_tol=0.0, abs_tol=_EQUAL if at_end else width)


def _is_long(size: int | None, *, finite: bool) -> bool:
    """Whether so many values of a range are compared by their coordinates."""
    return size is None or (not finite and size > _LONG)
