"""Losses at equal cost, and the page that shows them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.records import Point, Role, State, TrialRecord
from sweeps.report.comparison import comparison_text
from sweeps.results.equal_cost import AXES, Entry, compared, finite_part, loss_at, mean_curve, reached_at


def points(losses: list[float], *, flops: float = 1.0, seconds: float = 1.0) -> tuple[Point, ...]:
    """A measurement every 10 steps of 100 tokens; FLOPs a token and seconds a step."""
    return tuple(
        Point(10 * n, 1000 * n, 1000 * n * flops, 10 * n * seconds, loss) for n, loss in enumerate(losses)
    )


def entry(
    number: int, curves: dict[int, tuple[Point, ...]], method: str = "tli", sweep: str = "mine", **fields: Any
) -> Entry:
    settings = {"injection": {"method": method, "k": 4, "m": 1}, "recipe": {"learning_rate": 1e-3}}
    role = Role.CONTROL if method == "none" else Role.SEARCH
    record = TrialRecord(number, role, State.COMPLETE, {}, settings, seed=min(curves), steps=20)
    return Entry(sweep, record, curves, **{"parameters": 2_620_000, **fields})


def test_between_measurements_a_loss_lies_on_the_line() -> None:
    curve = points([4.0, 3.0, 2.0], flops=2.0, seconds=0.5)
    assert [loss_at(curve, "steps", step) for step in (0, 5, 10, 20)] == [4.0, 3.5, 3.0, 2.0]
    assert loss_at(curve, "tokens", 1500) == 2.5
    assert loss_at(curve, "flops", 3000) == 2.5
    assert loss_at(curve, "seconds", 7.5) == 2.5


@given(st.sampled_from(list(AXES)), st.floats(0.001, 1e6))
def test_nothing_is_said_beyond_the_last_measurement(axis: str, beyond: float) -> None:
    curve = points([4.0, 3.0])
    last = AXES[axis](curve[-1])
    assert loss_at(curve, axis, last) == 3.0
    assert loss_at(curve, axis, last + beyond) is None
    assert loss_at(curve[1:], axis, last - beyond) is None


def test_a_loss_is_reached_where_the_line_meets_it_first() -> None:
    curve = points([4.0, 3.0, 3.6, 2.0], seconds=2.0)
    assert reached_at(curve, "steps", 3.5) == 5
    assert reached_at(curve, "seconds", 3.0) == 20
    assert reached_at(curve, "tokens", 2.5) == pytest.approx(2000 + 1000 * 1.1 / 1.6)
    assert reached_at(curve, "steps", 4.0) == 0
    assert reached_at(curve, "steps", 1.9) is None


def test_a_curve_ends_where_its_loss_is_no_number() -> None:
    curve = points([4.0, 3.0, float("nan"), 2.0])
    assert finite_part(curve) == curve[:2]


def test_the_mean_of_curves_is_over_the_steps_that_all_measured() -> None:
    mean = mean_curve([points([4.0, 3.0, 2.0], seconds=1.0), points([5.0, 4.0], seconds=3.0)])
    assert [(point.step, point.eval_loss, point.seconds) for point in mean] == [
        (0, 4.5, 0.0),
        (10, 3.5, 20.0),
    ]


def small() -> tuple[Entry, ...]:
    """The grown model wins at equal steps, the control at equal FLOPs; dus starts far behind."""
    noise = {0: -0.4, 1: 0.0, 2: 0.002, 3: -0.002}  # seed 0 chose them, and does not count
    return (
        entry(3, {s: points([3.8, 3.62 + n, 3.5 + n], flops=2.0, seconds=2.0) for s, n in noise.items()}),
        entry(
            12,
            {s: points([4.2, 3.80 - n, 3.7 + 2 * n], flops=1.5, seconds=1.5) for s, n in noise.items()},
            "dus",
            parameters=None,
        ),
        entry(0, {s: points([3.8, 3.65 + n, 3.6]) for s, n in noise.items()}, "none", parameters=1_840_000),
    )


PAGE = """\
Compared: 3 trials of mine; means of 3 seeds

Held-out loss by step, in nats per token
  trial                 params       lr  initial  step 10  step 20
   0  control            1.84M  1.0e-03   3.8000   3.6500   3.6000
   3  tli K=4 identity   2.62M  1.0e-03   3.8000   3.6200   3.5000
  12  dus m=1 copy           -  1.0e-03   4.2000   3.8000   3.7000

Held-out loss at equal cost
                         steps   tokens      FLOPs   seconds
  all got to                20    2,000   2.00e+03      20.0
   0  control           3.6000   3.6000     3.6000*   3.6000*
   3  tli K=4 identity  3.5000*  3.5000*    3.6200    3.6200
  12  dus m=1 copy      3.7000   3.7000     3.7667    3.7667
  ended first              all      all    trial 0   trial 0

Ahead
           lowest                next                               by  significant
  steps     3  tli K=4 identity   0  control           0.1000 ± 0.0050  yes
  tokens    3  tli K=4 identity   0  control           0.1000 ± 0.0050  yes
  FLOPs     0  control            3  tli K=4 identity  0.0200 ± 0.0050  yes
  seconds   0  control            3  tli K=4 identity  0.0200 ± 0.0050  yes

Spent to reach the base's own loss, 3.8000
                        steps  tokens     FLOPs  seconds
   0  control               0       0         0        0
   3  tli K=4 identity      0       0         0        0
  12  dus m=1 copy         10   1,000  1.50e+03     15.0

*: the lowest. Each column is read where the first curve ends, on the lines
between measurements. ±: 95 % t intervals, paired by seed; significant: without
0. 0: has the base's loss from the start. FLOPs and seconds are those of
training. Costlier models are met there before their learning rate has fallen,
which counts against them; seconds depend on what else the machine did.

Caveats
  - something else
"""


def test_the_whole_page() -> None:
    page = comparison_text(compared(small(), ["something else"]))
    assert page + "\n" == PAGE


def test_the_control_comes_first_and_who_is_ahead_depends_on_what_is_equal() -> None:
    found = compared(small())
    assert [each.key for each in found.entries] == ["mine:0", "mine:3", "mine:12"]
    assert (found.base_loss, found.seeds) == (pytest.approx(3.8), (1, 2, 3))
    equal = {each.axis: each for each in found.equal}
    assert {axis: each.order[0] for axis, each in equal.items()} == {
        "steps": "mine:3",
        "tokens": "mine:3",
        "flops": "mine:0",
        "seconds": "mine:0",
    }
    assert {axis: each.amount for axis, each in equal.items()} == {
        "steps": 20,
        "tokens": 2000,
        "flops": 2000,
        "seconds": 20,
    }
    assert equal["steps"].ended_first == ()
    assert equal["flops"].ended_first == ("mine:0",)
    assert equal["flops"].mean("mine:3") == pytest.approx(3.62)  # of step 10
    lead = equal["steps"].against_control
    assert lead is not None
    assert (lead.mean, lead.n) == (pytest.approx(-0.1), 3)
    assert found.reached["mine:3"] == {"steps": 0, "tokens": 0, "flops": 0, "seconds": 0}
    assert found.reached["mine:12"]["steps"] == pytest.approx(10, abs=0.05)


def test_only_seeds_that_all_have_are_compared() -> None:
    two = {0: points([3.8, 3.6]), 1: points([3.8, 9.0])}
    found = compared([entry(0, {0: points([3.8, 3.7])}, "none"), entry(1, two)])
    assert found.seeds == (0,)
    assert found.equal[0].order == ("mine:1", "mine:0")
    assert found.warnings == ("one seed is shared by all: no intervals, so small differences may be chance",)
    apart = compared([entry(0, {5: points([3.8, 3.7])}, "none"), entry(1, two)])
    assert apart.seeds == ()
    assert apart.equal[0].lead is None
    assert apart.warnings[0].startswith("no seed is shared by all")


def test_without_a_control_nothing_is_said_of_the_base() -> None:
    found = compared([entry(1, {0: points([3.8, 3.6])})])
    assert found.base_loss is None
    assert set(found.reached["mine:1"].values()) == {None}
    assert "base's own loss" not in comparison_text(found)
    assert "Ahead" not in comparison_text(found)


def test_trials_of_several_sweeps_go_by_letters() -> None:
    name = "a-very-long-name-for-a-sweep-that-somebody-chose-in-a-hurry"
    told = {"told": "train=injected and a lot more of it"}
    page = comparison_text(
        compared([*small(), entry(123, {0: points([3.8, 3.6])}, sweep=name, **told)], ["long " * 40])
    )
    assert page.startswith(f"Compared: 4 trials of A mine, B\n{name}; one seed each\n")
    assert "  B:123  tli K=4 identity t…  " in page
    assert max(len(line) for line in page.splitlines()) <= 80


def test_the_answer_is_plain_json() -> None:
    value = compared(small()).to_json()
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert value["trials"][0]["control"] is True
    assert value["trials"][1]["losses"] == pytest.approx({"0": 3.8, "10": 3.62, "20": 3.5})
    assert value["equal"]["flops"]["lowest"] == "mine:0"
    assert value["equal"]["flops"]["at"] == 2000
    assert value["equal"]["steps"]["against_control"]["mean"] == pytest.approx(-0.1)
