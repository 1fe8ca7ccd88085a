"""Paired differences, and Student's t under them."""

from __future__ import annotations

import math
from statistics import NormalDist, stdev

import pytest

from sweeps.results.noise import paired, pool
from sweeps.results.paired import difference
from sweeps.student import t_below, t_quantile


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [(1, 12.70620474), (2, 4.30265273), (3, 3.18244631), (4, 2.77644511), (7, 2.36462425), (30, 2.04227246)],
)
def test_the_t_quantiles_are_those_of_the_printed_tables(degrees: int, expected: float) -> None:
    assert t_quantile(degrees) == pytest.approx(expected, abs=5e-8)


def test_the_t_quantile_approaches_the_normal_one() -> None:
    assert t_quantile(2000) == pytest.approx(NormalDist().inv_cdf(0.975), abs=2e-3)
    assert t_quantile(10, 0.99) == pytest.approx(3.16927267, abs=5e-8)


def test_a_difference_is_paired_by_seed() -> None:
    # The seeds differ by whole nats, the configurations by 0.01 within each seed.
    delta = difference({0: 3.00, 1: 5.01, 2: 7.02}, {2: 7.03, 1: 5.02, 0: 3.01})
    assert delta is not None
    assert delta.n == 3
    assert delta.mean == pytest.approx(-0.01)
    assert delta.half_width == pytest.approx(0, abs=1e-12)
    assert delta.significant


def test_a_difference_has_the_textbook_interval() -> None:
    delta = difference({0: 1.0, 1: 2.0, 2: 4.0}, {0: 0.0, 1: 0.0, 2: 0.0})
    assert delta is not None
    assert delta.half_width == pytest.approx(4.30265273 * stdev([1, 2, 4]) / math.sqrt(3))
    assert not delta.significant


def test_one_shared_seed_gives_no_interval_and_none_gives_no_difference() -> None:
    single = difference({0: 3.0, 1: 3.1}, {0: 3.5, 2: 9.0})
    assert single is not None
    assert (single.mean, single.half_width, single.n, single.significant) == (-0.5, None, 1, False)
    assert difference({0: 3.0}, {1: 3.0}) is None


def test_seeds_that_all_differ_alike_give_no_interval() -> None:
    for gap in (0.0, 0.5):
        delta = difference({0: 3.0, 1: 4.0, 2: 5.0}, {0: 3.0 + gap, 1: 4.0 + gap, 2: 5.0 + gap})
        assert delta is not None
        assert (delta.mean, delta.half_width, delta.n, delta.significant) == (-gap, None, 3, False)


def test_models_that_differ_alike_everywhere_have_no_error_to_go_by() -> None:
    one: dict[int, tuple[float, ...]] = dict.fromkeys((1, 2, 3), (3.0, 4.0))
    other: dict[int, tuple[float, ...]] = dict.fromkeys((1, 2, 3), (2.5, 3.5))
    assert paired(one, other, pool({0: one, 1: other})) == (0.5, 3, None)


@pytest.mark.parametrize(("degrees", "value"), [(2, 4.30265273), (3, 3.18244631), (30, 2.04227246)])
def test_the_tail_of_t_is_the_inverse_of_its_quantile(degrees: int, value: float) -> None:
    assert t_below(-value, degrees) == pytest.approx(0.025, abs=1e-9)
    assert t_below(value, degrees) == pytest.approx(0.975, abs=1e-9)
    assert t_below(0.0, degrees) == pytest.approx(0.5)
