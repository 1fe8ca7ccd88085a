"""Paired bootstrap: by hand where that can be done, against random draws where not."""

from __future__ import annotations

import itertools
import random
from statistics import fmean

import pytest

from sweeps.results.bootstrap import _EXACT, chances, interval


def test_chances_by_hand() -> None:
    # Of 27 draws of three seeds, b is below a where seed 0 is drawn at most once: 8 + 3 * 4 = 20.
    losses = {1: {0: 1.0, 1: 2.0, 2: 2.0}, 2: {0: 1.9, 1: 1.5, 2: 1.5}}
    assert chances(losses) == {1: pytest.approx(7 / 27), 2: pytest.approx(20 / 27)}


def test_chances_are_those_of_all_draws() -> None:
    source = random.Random(3)
    losses = {name: {seed: source.random() for seed in range(4)} for name in range(3)}
    wins = [
        min(losses, key=lambda name: sum(losses[name][seed] for seed in draw))
        for draw in itertools.product(range(4), repeat=4)
    ]
    assert chances(losses) == {name: pytest.approx(wins.count(name) / len(wins)) for name in losses}


def test_equals_share() -> None:
    assert chances({7: {0: 1.0, 1: 2.0}, 8: {0: 1.0, 1: 2.0}}) == {7: 0.5, 8: 0.5}


@pytest.mark.parametrize("losses", [{}, {1: {0: 1.0}}, {1: {0: 1.0, 1: 1.0}, 2: {1: 1.0, 2: 1.0}}])
def test_without_two_shared_seeds_nothing_is_known(losses: dict[int, dict[int, float]]) -> None:
    assert chances(losses) == {}


def test_the_interval_is_that_of_all_draws() -> None:
    values = [0.1, 0.5, 0.2, 0.9]
    means = sorted(fmean(draw) for draw in itertools.product(values, repeat=4))
    found = interval(values)
    assert found is not None
    assert found[0] == pytest.approx(means[int(0.025 * len(means))], abs=0.03)
    assert found[1] == pytest.approx(means[int(0.975 * len(means))], abs=0.03)
    assert interval([1.0]) is None
    assert interval([2.0, 2.0]) == (2.0, 2.0)


def test_many_seeds_are_drawn_at_random_and_alike_each_time() -> None:
    source = random.Random(0)
    values = [source.gauss(0, 1) for _ in range(_EXACT + 12)]
    found = interval(values)
    assert found == interval(values)
    assert found is not None
    assert found[0] < fmean(values) < found[1]
    assert found[1] - found[0] == pytest.approx(2 * 1.96 / len(values) ** 0.5, rel=0.4)
