from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tli.errors import PlanError
from tli.plan import INITS, METHODS, Injection, Plan, injection_problems, plan, plan_for

depths = st.integers(1, 200)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    depth = draw(depths)
    k = draw(st.integers(1, depth))
    scale = draw(st.floats(0, 1))
    return plan(
        depth, k, method=draw(st.sampled_from(METHODS)), init=draw(st.sampled_from(INITS)), scale=scale
    )


def test_eight_layers_in_sets_of_four() -> None:
    decided = plan(8, 4)
    assert decided.sources == (0, 1, 2, 3, 3, 4, 5, 6, 7, 7)
    assert decided.injected == (4, 9)
    assert decided.sets == (4, 4)
    assert decided.describe() == "8 -> 10 layers: one new layer (identity) after every 4"


def test_the_last_set_may_be_shorter_and_is_told_of() -> None:
    decided = plan(8, 3, init="copy")
    assert decided.sources == (0, 1, 2, 2, 3, 4, 5, 5, 6, 7, 7)
    assert decided.injected == (3, 7, 10)
    assert decided.sets == (3, 3, 2)
    assert str(decided).endswith("after every 3; the last set is shorter (2 of 3)")


def test_the_control_is_the_model_as_it_is() -> None:
    decided = plan_for(Injection(method="none"), 5)
    assert decided.sources == tuple(range(5))
    assert decided.injected == decided.sets == ()
    assert decided.k is None
    assert "control" in str(decided)


def test_neighbours_are_the_layers_on_both_sides() -> None:
    decided = plan(6, 3)
    assert [decided.neighbours(position) for position in decided.injected] == [(2, 3), (4, 5)]
    assert plan(1, 1).neighbours(1) == (0, 0)


@given(plans())
def test_every_plan_keeps_the_old_layers_in_order(decided: Plan) -> None:
    kept = [source for i, source in enumerate(decided.sources) if i not in decided.injected]
    assert kept == list(range(decided.depth))
    assert list(decided.sources) == sorted(decided.sources)
    assert decided.new_depth == decided.depth + len(decided.injected)


@given(plans())
def test_every_set_of_k_gets_one_layer_at_its_end(decided: Plan) -> None:
    if decided.k is None:
        assert decided.injected == ()
        return
    assert len(decided.injected) == len(decided.sets) == -(-decided.depth // decided.k)
    assert sum(decided.sets) == decided.depth
    assert all(size == decided.k for size in decided.sets[:-1])
    for number, position in enumerate(decided.injected, 1):
        assert position == sum(decided.sets[:number]) + number - 1
        assert decided.sources[position] == decided.sources[position - 1]
        before, after = decided.neighbours(position)
        assert 0 <= before <= after < decided.depth
        assert decided.sources[position] in (before, after)


@given(plans())
def test_json_round_trip(decided: Plan) -> None:
    assert Plan.from_json(json.loads(json.dumps(decided.to_json()))) == decided


@given(plans(), st.integers(0, 1000))
def test_a_tampered_plan_is_refused(decided: Plan, where: int) -> None:
    value = decided.to_json()
    value["sources"][where % len(value["sources"])] += 1
    with pytest.raises(PlanError, match=r"plan\.sources"):
        Plan.from_json(value)


def test_a_plan_with_holes_in_it_is_refused() -> None:
    with pytest.raises(PlanError, match=r"plan: got no depth, method, k"):
        Plan.from_json({})
    with pytest.raises(PlanError, match=r"plan\.depth: got '8'"):
        Plan.from_json({**plan(8, 4).to_json(), "depth": "8"})


@pytest.mark.parametrize(
    ("injection", "message"),
    [
        (Injection(k=0), "injection.k: got 0; expected at least 1 layer per set; try 1"),
        (Injection(k=-3), "injection.k: got -3; expected at least 1 layer per set; try 1"),
        (Injection(k=9), "injection.k: got 9; expected at most 8, the model's number of layers; try 8"),
        (Injection(k=None), "injection.k: got None; expected a whole number of layers per set; try 4"),
        (Injection(k=True), "injection.k: got True; expected a whole number of layers per set; try 4"),
        (Injection(k=2.5), "injection.k: got 2.5; expected a whole number of layers per set; try 4"),  # type: ignore[arg-type]
        (Injection(method="tly"), "injection.method: got 'tly'; expected one of tli, none; try tli"),
        (
            Injection(init="identiy"),
            "injection.init: got 'identiy'; expected one of copy, identity, damped, mean, random; try identity",
        ),
        (
            Injection(scale=1.5),
            "injection.scale: got 1.5; expected a residual scale between 0 and 1; try 0.5",
        ),
        (
            Injection(scale=float("nan")),
            "injection.scale: got nan; expected a residual scale between 0 and 1; try 0.5",
        ),
    ],
)
def test_each_mistake_has_its_message(injection: Injection, message: str) -> None:
    assert [str(problem) for problem in injection_problems(injection, 8)] == [message]
    with pytest.raises(PlanError) as caught:
        plan_for(injection, 8)
    assert str(caught.value) == message


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(PlanError) as caught:
        plan(8, 0, method="x", init="y", scale=2)
    assert [problem.where for problem in caught.value.problems] == [
        "injection.method",
        "injection.init",
        "injection.k",
        "injection.scale",
    ]


def test_without_a_depth_only_k_itself_is_checked() -> None:
    assert injection_problems(Injection(k=1000), None) == []


@pytest.mark.parametrize("depth", [0, -1, True, 2.0])
def test_a_depth_that_is_none_is_refused(depth: int) -> None:
    with pytest.raises(PlanError, match="at least 1 layer"):
        plan(depth, 1)


def test_the_control_does_not_read_k() -> None:
    assert plan(8, 99, method="none").new_depth == 8


def test_planning_needs_no_torch() -> None:
    code = "import sys, tli.plan; tli.plan.plan(8, 4); assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
