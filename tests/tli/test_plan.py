from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tli.errors import PlanError
from tli.planning.checks import injection_problems
from tli.planning.experts import Experts
from tli.planning.injection import INITS, METHODS, PLACES, RULES, SOURCES, Injection
from tli.planning.keywords import InjectionKeywords
from tli.planning.plan import Plan, plan, plan_for

depths = st.integers(1, 100)


@st.composite
def injections(draw: st.DrawFn, depth: int) -> Injection:
    start = draw(st.integers(0, depth - 1))
    stop = draw(st.integers(start + 1, depth))
    k = draw(st.integers(1, depth))
    after = draw(st.none() | st.sets(st.integers(0, depth - 1), min_size=1))
    return Injection(
        method=draw(st.sampled_from([name for name in METHODS if depth > 1 or name != "dus"])),
        k=k,
        place=draw(st.sampled_from(PLACES)),
        layers=draw(st.sampled_from([None, f"{start}:{stop}", f"{start}:", f":{stop}"])),
        after=None if after is None else ",".join(map(str, sorted(after))),
        block=draw(st.integers(1, min(depth, 5))),
        m=draw(st.integers(0, max((depth - 1) // 2, 0))),
        g=draw(st.integers(2, 4)),
        init=draw(st.none() | st.sampled_from(INITS)),
        scale=draw(st.none() | st.floats(0, 1) | st.sampled_from(RULES)),
        source=draw(st.sampled_from(SOURCES)),
    )


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    depth = draw(depths)
    return plan_for(draw(injections(depth)), depth)


@st.composite
def sets_of_k(draw: st.DrawFn) -> Plan:
    depth = draw(depths)
    return plan(depth, draw(st.integers(1, depth)), init=draw(st.sampled_from(INITS)))


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
    assert decided.injection.k is None
    assert decided.unchanged
    assert decided.preserves
    assert "control" in str(decided)


def test_neighbours_are_the_layers_on_both_sides() -> None:
    decided = plan(6, 3)
    assert [decided.neighbours(position) for position in decided.injected] == [(2, 3), (4, 5)]
    assert plan(1, 1).neighbours(1) == (0, 0)


@given(plans())
def test_every_plan_keeps_the_old_layers_in_order(decided: Plan) -> None:
    """So with new layers that add nothing to the stream, every method leaves the function as it is."""
    kept = [source for i, source in enumerate(decided.sources) if i not in decided.injected]
    assert kept == list(range(decided.depth))
    assert decided.new_depth == decided.depth + len(decided.injected)
    assert (decided.new_depth > decided.depth) == decided.injection.deepens


@given(plans())
def test_neighbours_lie_in_the_stack_and_apart_where_there_is_room(decided: Plan) -> None:
    for position in decided.injected:
        below, above = decided.neighbours(position)
        assert 0 <= below <= above < decided.depth
        if decided.depth >= 2 * decided.injection.block:
            assert below < above
        assert 0 < decided.scale(position) <= 1 or decided.injection.scale == 0


@given(sets_of_k())
def test_every_set_of_k_gets_one_layer_at_its_end(decided: Plan) -> None:
    k = decided.injection.k
    assert k is not None
    assert list(decided.sources) == sorted(decided.sources)
    assert len(decided.injected) == len(decided.sets) == -(-decided.depth // k)
    assert sum(decided.sets) == decided.depth
    assert all(size == k for size in decided.sets[:-1])
    for number, position in enumerate(decided.injected, 1):
        assert position == sum(decided.sets[:number]) + number - 1
        assert decided.sources[position] == decided.sources[position - 1]
        assert decided.sources[position] in decided.neighbours(position)


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
    with pytest.raises(PlanError, match=r"plan: got no depth, injection, sources"):
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
        (Injection(place="top"), "injection.place: got 'top'; expected one of end, start, middle"),
        (Injection(source="after"), "injection.source: got 'after'; expected one of previous, next, both"),
        (
            Injection(layers="4-8"),
            "injection.layers: got '4-8'; expected a range of layers from 0, the last one excluded, as in '4:8'; try 4:8",
        ),
        (
            Injection(layers="4:9"),
            "injection.layers: got '4:9'; expected a range of layers from 0, the last one excluded, as in '4:8', within 0:8; try 4:8",
        ),
        (
            Injection(layers="5:5"),
            "injection.layers: got '5:5'; expected a range of layers from 0, the last one excluded, as in '4:8', within 0:8; try 4:8",
        ),
        (
            Injection(after="3;7"),
            "injection.after: got '3;7'; expected layers from 0, each once, in order, as in '3,7'; try 3,7",
        ),
        (
            Injection(after="7,3,3"),
            "injection.after: got '7,3,3'; expected layers from 0, each once, in order, as in '3,7'; try 3,7",
        ),
        (Injection(after="3,8"), "injection.after: got 8; expected at most 7, the model's last layer; try 7"),
        (
            Injection(least_important_sets=0),
            "injection.least_important_sets: got 0; expected at least 1 set, or null for all of them; try 1",
        ),
        (
            Injection(k=3, least_important_sets=4),
            "injection.least_important_sets: got 4; expected at most 3, the number of sets; try 3",
        ),
        (
            Injection(least_important_sets=1),
            "injection.least_important_sets: got 1; expected the change of every layer too, measured on text (tli.growth.importance)",
        ),
        (Injection(block=0), "injection.block: got 0; expected at least 1 layer; try 1"),
        (
            Injection(block=9),
            "injection.block: got 9; expected at most 8, the model's number of layers; try 8",
        ),
        (Injection(method="stack", g=1), "injection.g: got 1; expected 2 to 100 times; try 2"),
        (
            Injection(method="dus"),
            "injection.m: got None; expected a whole number of layers to drop from each copy; try 1",
        ),
        (
            Injection(method="dus", m=4),
            "injection.m: got 4; expected below 4, half the model's layers, or nothing is gained; try 2",
        ),
        (Injection(noise=-0.1), "injection.noise: got -0.1; expected a deviation of at least 0; try 0.01"),
        (
            Injection(scale="1/k"),
            "injection.scale: got '1/k'; expected a residual scale between 0 and 1, or 1/n or 1/sqrt(n); try 0.5",
        ),
        (
            Injection(identity="zero"),
            "injection.identity: got 'zero'; expected one of zero-output, zero-gain; try zero-gain",
        ),
        (
            Injection(experts=Experts(1)),
            "injection.experts.count: got 1; expected at least 2 experts, or null for none; try 8",
        ),
        (
            Injection(experts=Experts(4, 5)),
            "injection.experts.top_k: got 5; expected at most 4, the number of experts; try 4",
        ),
        (
            Injection(experts=Experts(4, drop=2.0)),
            "injection.experts.drop: got 2.0; expected a share from 0 to 1; try 0.5",
        ),
        (
            Injection(method="tly"),
            "injection.method: got 'tly'; expected one of tli, dus, stack, repeat, moe, none; try tli",
        ),
        (
            Injection(init="identiy"),
            "injection.init: got 'identiy'; expected one of copy, identity, damped, mean, slerp, aligned, predicted, random; try identity",
        ),
        (
            Injection(scale=1.5),
            "injection.scale: got 1.5; expected a residual scale between 0 and 1, or 1/n or 1/sqrt(n); try 0.5",
        ),
        (
            Injection(scale=float("nan")),
            "injection.scale: got nan; expected a residual scale between 0 and 1, or 1/n or 1/sqrt(n); try 0.5",
        ),
    ],
)
def test_each_mistake_has_its_message(injection: Injection, message: str) -> None:
    if injection.least_important_sets != 1:  # a measurement that is missing is no mistake of the settings
        assert [str(problem) for problem in injection_problems(injection, 8)] == [message]
    with pytest.raises(PlanError) as caught:
        plan_for(injection, 8)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("injection", "sources", "injected", "words"),
    [
        (
            Injection(place="start"),
            (0, 0, 1, 2, 3, 3, 4, 5, 6, 7),
            (0, 5),
            "one new layer (identity) before every 4",
        ),
        (
            Injection(k=2, place="middle", layers="4:"),
            (0, 1, 2, 3, 4, 4, 5, 6, 6, 7),
            (5, 8),
            "one new layer (identity) amid every 2 of layers 4:",
        ),
        (
            Injection(layers=":4"),
            (0, 1, 2, 3, 3, 4, 5, 6, 7),
            (4,),
            "one new layer (identity) after every 4 of layers :4",
        ),
        (
            Injection(after="1,5", init="copy", source="next"),
            (0, 1, 2, 2, 3, 4, 5, 6, 6, 7),
            (2, 7),
            "one new layer (copy) after 1, 5",
        ),
        (
            Injection(block=2),
            (0, 1, 2, 3, 2, 3, 4, 5, 6, 7, 6, 7),
            (4, 5, 10, 11),
            "a block of 2 new layers (identity) after every 4",
        ),
        (
            Injection(method="dus", m=3),
            (0, 1, 2, 3, 4, 3, 4, 5, 6, 7),
            (5, 6),
            "two copies of the stack (copy), without the last 3 of the first and the first 3 of the second",
        ),
        (
            Injection(method="stack"),
            (*range(8), *range(8)),
            tuple(range(8, 16)),
            "the whole stack 2 times (copy)",
        ),
        (
            Injection(method="repeat", layers="2:4", g=3),
            (0, 1, 2, 2, 2, 3, 3, 3, 4, 5, 6, 7),
            (3, 4, 6, 7),
            "each of layers 2 to 3 3 times (copy)",
        ),
    ],
)
def test_each_method_has_its_stack(
    injection: Injection, sources: tuple[int, ...], injected: tuple[int, ...], words: str
) -> None:
    decided = plan_for(injection, 8)
    assert decided.sources == sources
    assert decided.injected == injected
    assert str(decided) == f"8 -> {len(sources)} layers: {words}"


def test_the_papers_depth_is_reached() -> None:
    assert plan(32, method="dus", m=8).new_depth == 48  # SOLAR
    assert plan(32, 4).new_depth == 40  # LLaMA Pro


def test_the_sets_that_change_least_are_chosen() -> None:
    change = (0.9, 0.8, 0.1, 0.1, 0.4, 0.4, 0.3, 0.2)
    decided = plan_for(Injection(k=2, least_important_sets=2), 8, block_influence=change)
    assert decided.injected == (4, 9)
    assert decided.sources == (0, 1, 2, 3, 3, 4, 5, 6, 7, 7)
    assert decided.block_influence == change
    assert Plan.from_json(json.loads(json.dumps(decided.to_json()))) == decided
    assert plan_for(Injection(k=2), 8, block_influence=change).block_influence is None  # it decided nothing


def test_residual_scales_by_rule_count_the_sources_layers() -> None:
    thrice = plan(4, method="repeat", g=3, init="damped", scale="1/n")
    assert {thrice.scale(position) for position in thrice.injected} == {1 / 3}
    assert plan(4, 2, init="damped", scale="1/sqrt(n)").scale(2) == 2**-0.5


def test_settings_that_say_the_same_are_equal() -> None:
    unread = Injection(m=3, g=5, experts=Experts(top_k=1), scale=0.3, source="next", init="mean")
    assert plan_for(unread, 8) == plan(8, 4, scale=0.3, init="mean")
    assert plan(8, 4, init="copy", scale=0.3) == plan(8, 4, init="copy")
    assert plan(8, 4) == plan(8, 4, init="identity")


def test_experts_are_added_to_any_method_but_the_control() -> None:
    assert plan(8, method="moe").experts == Experts(8)
    assert str(plan(8, method="moe")) == "8 layers, none injected; 8 experts, 2 a token"
    both = plan(8, 4, experts=Experts(4, granularity=2))
    assert str(both).endswith("after every 4; 8 experts, 4 a token, each a part of 2")
    assert not both.unchanged
    assert both.preserves
    assert not plan(8, method="moe", experts=Experts(8, drop=0.5)).preserves
    assert plan(8, method="none", experts=Experts(8)).unchanged
    assert Plan.from_json(json.loads(json.dumps(both.to_json()))) == both


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(PlanError) as caught:
        plan(8, 0, place="x", init="y", scale=2)
    assert [problem.where for problem in caught.value.problems] == [
        "injection.init",
        "injection.place",
        "injection.k",
        "injection.scale",
    ]


def test_without_a_depth_only_k_itself_is_checked() -> None:
    assert injection_problems(Injection(k=1000), None) == []


def test_a_depth_that_no_model_has_is_refused() -> None:
    with pytest.raises(PlanError, match="at most 10000 layers"):
        plan(2**70, 1)


@pytest.mark.parametrize("depth", [0, -1, True, 2.0])
def test_a_depth_that_is_none_is_refused(depth: int) -> None:
    with pytest.raises(PlanError, match="at least 1 layer"):
        plan(depth, 1)


def test_the_control_does_not_read_k() -> None:
    assert plan_for(Injection("none", k=99), 8).new_depth == 8


def test_a_keyword_that_is_not_read_or_not_known_is_refused() -> None:
    with pytest.raises(PlanError) as caught:
        plan(8, 4, method="dus", m=2, g=3, inti="copy", experts=8)  # type: ignore[call-arg, arg-type]
    told = {problem.where: problem.remedy for problem in caught.value.problems}
    assert told == {
        "injection.inti": "init",
        "injection.experts": "tli.Experts(count=8)",
        "injection.k": "method=tli",
        "injection.g": "method=stack",
    }
    with pytest.raises(PlanError) as caught:
        plan(8, 2, after="3")
    assert [problem.where for problem in caught.value.problems] == ["injection.k"]


def test_keywords_are_the_fields_of_an_injection() -> None:
    assert get_type_hints(InjectionKeywords) == get_type_hints(Injection)
    assert plan(8) == plan(8, 4)


def test_planning_needs_no_torch() -> None:
    code = "import sys, tli.planning.plan; tli.planning.plan.plan(8, 4); assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("change", [math.nan, math.inf, -math.inf])
def test_a_change_that_is_no_number_decides_nothing(change: float) -> None:
    """Sorted by NaN, the sets would be any; and the plan's JSON would be read by no other program."""
    with pytest.raises(
        PlanError,
        match=r"injection\.least_important_sets: got layers that change the hidden state by no finite",
    ):
        plan_for(Injection(k=2, least_important_sets=1), 4, block_influence=(change, 0.1, 0.2, 0.3))
    told = plan_for(Injection(k=2, least_important_sets=1), 4, block_influence=(0.4, 0.1, 0.2, 0.3)).to_json()
    with pytest.raises(
        PlanError, match=r"plan\.block_influence: got .*; expected a finite number for each layer"
    ):
        Plan.from_json({**told, "block_influence": [change, 0.1, 0.2, 0.3]})


def test_more_experts_than_can_be_listed() -> None:
    with pytest.raises(PlanError, match=r"count: got 1000000000; expected at most 65,536 experts"):
        plan_for(Injection(k=2, experts=Experts(10**9)), 4)


def test_a_plan_of_an_earlier_version_is_read_under_todays_names() -> None:
    decided = plan_for(Injection(k=2, least_important_sets=1), 4, block_influence=(0.4, 0.1, 0.2, 0.3))
    kept = decided.to_json()
    kept["change"] = kept.pop("block_influence")
    kept["injection"]["sets"] = kept["injection"].pop("least_important_sets")
    assert Plan.from_json(kept) == decided
    both = {**kept, "injection": {**kept["injection"], "least_important_sets": 1}}
    with pytest.raises(PlanError, match=r"plan\.injection: got .*sets"):
        Plan.from_json(both)
