"""Every two values of a grid meet in what is kept of it."""

from __future__ import annotations

import itertools

import pytest

from tests.pairs import every_pair


@pytest.mark.parametrize("sizes", [(4, 3, 2, 4), (2, 2, 2, 2, 2), (5, 2, 3)])
def test_every_two_values_meet_and_none_is_lost(sizes: tuple[int, ...]) -> None:
    axes = [[f"{axis}{value}" for value in range(size)] for axis, size in enumerate(sizes)]
    grid = every_pair(*axes)
    assert [each.values for each in grid] == list(itertools.product(*axes))
    kept = [set(each.values) for each in grid if not each.marks]
    for one, other in itertools.combinations(axes, 2):
        assert all(any({a, b} <= place for place in kept) for a in one for b in other)
    assert len(kept) < len(grid)
    assert all(each.marks == (pytest.mark.slow,) for each in grid if set(each.values) not in kept)
