"""Which trials train the same: against the models that are really grown, and in selection and sampling."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import pytest

from sweeps.ledger import Ledger
from sweeps.records import Role, State, TrialRecord
from sweeps.results.finalists import finalists, replicates_due
from sweeps.results.selection import verdict
from sweeps.spec import load_spec
from sweeps.spec.equivalence import key, replaced, value_at
from tests.sweeps.conftest import agenda_of
from tli.growth.in_memory import grow
from tli.models.loading import load_model
from tli.planning.checks import injection_problems
from tli.planning.injection import Injection
from tli.planning.plan import plan_for

DEPTH = 4
SETTINGS = [
    *({"k": k, "init": init} for k in (1, 2, 3, 4) for init in ("copy", "identity", "mean", "random", None)),
    *({"k": 2, "place": place, "init": init} for place in ("start", "middle") for init in ("copy", "mean")),
    {"after": "1,3", "init": "copy"},
    {"after": "1,3", "init": "copy", "k": 1, "place": "middle"},
    {"after": "3", "init": "mean"},
    *({"k": 2, "layers": layers, "init": "copy"} for layers in ("0:4", ":", ":2", "2:")),
    *({"k": 2, "init": "damped", "scale": scale} for scale in (None, 0.0, 0.5, 1.0, "1/n", "1/sqrt(n)")),
    {"k": 2, "init": "identity", "identity": "zero-output"},  # zero-gain is the same here, and elsewhere not
    *({"k": 2, "init": "copy", "source": source} for source in ("next", "both")),
    *({"k": 2, "init": "copy", "noise": noise} for noise in (0.0, 0.1)),
    *({"k": 2, "block": 2, "init": init} for init in ("copy", "slerp")),
    *(
        {"method": "dus", "m": m, "k": k, "init": init}
        for m in (0, 1)
        for k in (2, 4)
        for init in ("copy", "mean")
    ),
    *({"method": "stack", "g": g, "m": m} for g in (2, 3) for m in (None, 1)),
    *({"method": "repeat", "g": 2, "layers": layers} for layers in (None, "0:4", "1:3")),
    *({"method": method, "k": k} for method in ("none", "moe") for k in (2, 4)),
    {"method": "moe", "experts": {"count": 8, "top_k": 2}, "init": "random"},
    {"method": "tli", "k": 4, "experts": {"count": 2}},
]


def test_what_is_alike_has_the_same_bytes_and_what_is_not_has_others(
    tiny_model: Callable[[str], Path],
) -> None:
    base = load_model(tiny_model("mistral"))
    models_of: dict[Hashable, set[Hashable]] = defaultdict(set)
    keys_of: dict[Hashable, set[Hashable]] = defaultdict(set)
    for written in SETTINGS:
        injection = Injection.from_json(written)
        assert injection_problems(injection, DEPTH) == [], written
        plan = plan_for(injection, DEPTH)
        model = grow(base, plan, seed=3)
        weights = b"".join(p.detach().numpy().tobytes() for _, p in sorted(model.named_parameters()))
        what = key({"injection": written}, DEPTH)
        models_of[what].add((weights, plan.injected))  # which layers are new matters where they alone train
        keys_of[weights, plan.injected].add(what)
    assert all(len(models) == 1 for models in models_of.values()), "a model that is taken for another"
    assert all(len(keys) == 1 for keys in keys_of.values()), "a model that is tried twice"
    assert len(models_of) < len(SETTINGS) - 10


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ({}, {"micro_batch_tokens": 64}, True),
        ({}, {"activation_checkpointing": 1, "compile": True}, True),
        ({"learning_rate": 1e-3}, {"learning_rate": 1e-3, "injected_learning_rate": 1e-3}, True),
        ({"learning_rate": 1e-3}, {"injected_learning_rate": 1e-2}, False),
        (
            {"train": "injected", "injected_learning_rate": 1e-2},
            {"train": "injected", "learning_rate": 1e-2},
            True,
        ),
        ({"train": "injected"}, {"train": "all"}, False),
        ({"warmup": 0.1}, {"warmup": 0.09}, True),
        ({"warmup": 0.1}, {"warmup": 0.3}, False),
        ({"schedule": "linear"}, {"schedule": "cosine"}, False),
        ({"weight_decay": 0.0}, {"weight_decay": 0.1}, False),
    ],
)
def test_recipes_that_train_alike(one: dict[str, Any], other: dict[str, Any], *, alike: bool) -> None:
    short = {"tokens": 640, "batch_tokens": 64}
    keys = [key({"injection": {"k": 2}, "recipe": {**short, **each}}, DEPTH) for each in (one, other)]
    assert (keys[0] == keys[1]) is alike


def test_the_original_model_has_no_layers_that_a_rate_of_theirs_could_train() -> None:
    rates: list[dict[str, float]] = [{}, {"injected_learning_rate": 1e-2}]
    keys = {
        key({"injection": {"method": "none", "k": k}, "recipe": rate}, DEPTH)
        for k in (1, 2)
        for rate in rates
    }
    assert len(keys) == 1


@pytest.mark.parametrize(
    "settings",
    [{}, {"injection": None}, {"injection": {"k": [1]}}, {"injection": {"k": "x"}}, {"injection": {"K": 1}},
     {"injection": {}, "recipe": {"batch_tokens": 0}}, {"injection": {}, "recipe": {"warmup": "x"}},
     {"injection": {"k": 9}}, {"injection": {}, "recipe": 3}, {"injection": {}, "later": 1}],
)  # fmt: skip
def test_settings_that_are_not_ours_are_told_apart_as_they_are_written(settings: dict[str, Any]) -> None:
    assert key(settings, DEPTH) == key(dict(settings), DEPTH)
    assert key(settings, DEPTH) != key({**settings, "injection": {"k": 2}}, DEPTH)
    assert hash(key(settings, None)) is not None


def test_values_that_have_no_effect_are_none() -> None:
    dus: dict[str, Any] = {"injection": {"method": "dus", "m": 1, "k": 4}, "recipe": {"learning_rate": 1e-3}}
    assert value_at(dus, "injection.k") is None
    assert value_at(dus, "injection.m") == 1
    assert value_at(dus, "injection.init") == "copy"
    assert value_at(dus, "recipe.learning_rate") == 1e-3
    assert value_at(dus, "recipe.nothing") is None
    assert value_at({"injection": {"k": 4}}, "injection.k") == 4
    assert value_at({"injection": {"k": 4, "after": "1"}}, "injection.k") is None
    assert value_at({"injection": {"method": "moe"}}, "injection.experts.count") == 8
    assert replaced(dus, {"injection.k": 2, "seed": 1}) == {
        **dus,
        "injection": {**dus["injection"], "k": 2},
        "seed": 1,
    }


# -- where it matters ---------------------------------------------------------------------------------------------


def trial(number: int, value: float, role: Role = Role.SEARCH, **injection: Any) -> TrialRecord:
    settings = {"injection": injection, "recipe": {"learning_rate": 1e-3}}
    return TrialRecord(
        number, role, State.COMPLETE, {}, settings, 0, 10, {0: 4.0, 10: value}, value, tokens=1000, flops=1e6
    )


COPIES = [
    trial(0, 3.5, Role.CONTROL, method="none"),
    trial(1, 3.4, Role.BASELINE, method="tli", k=4),
    trial(2, 3.1, method="dus", m=2, k=1),
    trial(3, 3.1, method="dus", m=2, k=2),
    trial(4, 3.1, method="dus", m=2, k=4),
    trial(5, 3.2, method="tli", k=2),
    trial(6, 3.3, method="tli", after="1,3,5,7"),
]


def test_three_copies_of_one_model_are_one_finalist() -> None:
    assert [record.number for record in finalists(COPIES, 3)] == [2, 5, 6]
    assert [record.number for record in finalists(COPIES, 3, depth=8)] == [2, 5, 1]
    assert [finalist.number for finalist in verdict(COPIES, depth=8).finalists] == [2, 5, 1]
    assert {number for number, _ in replicates_due(COPIES, 3, 2, depth=8)} == {0, 1, 2, 5}


def test_the_baseline_stands_for_a_trial_that_is_no_other() -> None:
    """Else both would be replicated, and one compared with itself."""
    again = trial(7, 3.39999, method="tli", k=4, m=3)
    records = [*COPIES[:2], again]
    assert [record.number for record in finalists(records, 2)] == [1]
    assert replicates_due(records, 2, 1) == [(0, 1), (1, 1)]


def test_a_value_that_has_no_effect_is_no_value_to_choose_by() -> None:
    best = [record.number for record in finalists(COPIES, 1, "injection.k")]
    assert best == [2, 5, 1], "the best of K=2, of K=4, and of what has no K"


def test_as_many_finalists_are_expected_as_there_may_be(write_spec: Callable[..., Path]) -> None:
    lines = {"injection.init: {choice": "injection.method: {choice: [tli, dus, none]}\n  injection.init: {choice",
             "k: 2, init": "k: 2, m: 1, init"}  # fmt: skip
    for per, expected in (("injection.k", 4), ("injection.init", 3), ("injection.method", 2)):
        replace = {**lines, "top: 1": f"top: 1, per: {per}"}
        assert load_spec(str(write_spec(replace=replace))).most_finalists == expected, per


def test_nothing_is_asked_twice(write_spec: Callable[..., Path]) -> None:
    """Of 2 methods and 3 values of k there are 4 models: DUS has no k."""
    path = write_spec(
        trials=20,
        replace={
            "injection.init: {choice: [copy, identity, random]}": "injection.method: {choice: [tli, dus]}",
            "  recipe.learning_rate: {log: [1e-4, 1e-2]}\n": "",
            "k: 2, init": "k: 2, m: 1, init",
        },
    )
    agenda = agenda_of(spec := load_spec(str(path)), parallel=20)
    ledger: Ledger = agenda.ledger
    while (asked := ledger.ask()) is not None:
        assert len(ledger.trials()) < 10, asked
    built = [(r.params["injection.method"], r.params["injection.k"]) for r in ledger.trials()]
    assert sorted(k for method, k in built if method == "tli") == [1, 2, 4]
    assert len(built) == 4
    assert spec.finalists.per is None
    for one, two in itertools.combinations(ledger.trials(), 2):
        assert key(one.settings, None) != key(two.settings, None)


def test_the_study_knows_how_many_layers_its_base_has(write_spec: Callable[..., Path]) -> None:
    spec = load_spec(str(write_spec()))
    spec.root.mkdir()
    with Ledger.driven(spec.study_url, spec, depth=4) as ledger:
        assert ledger.depth == 4
    assert Ledger.read(spec.study_url, spec.name).depth == 4
    with Ledger.driven(spec.study_url, spec) as ledger:
        assert ledger.depth == 4
