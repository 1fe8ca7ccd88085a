from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tli.registry import tiny
from tli.errors import InputError
from tli.growth.in_memory import grow, injected_parameters
from tli.models.loading import load_model
from tli.planning.plan import plan
from tli.training.optimizer import groups_of, optimizer
from tli.training.recipe import GROUPS, PRECISIONS, SCHEDULES, Recipe
from tli.training.recipe_checks import EXTRA, recipe_problems

Tiny = Callable[[str], Path]


def recipe(steps: int = 20, **values: object) -> Recipe:
    return replace(Recipe(tokens=steps * 16, batch_tokens=16), **values)  # type: ignore[arg-type]


# -- the schedule ---------------------------------------------------------------------------------------------


def test_the_budget_is_rounded_up_to_whole_batches() -> None:
    assert [Recipe(tokens=tokens, batch_tokens=16).steps for tokens in (16, 17, 32)] == [1, 2, 2]


def test_linear_rates() -> None:
    rates = [recipe(warmup=0.2).rate(step) for step in range(20)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[4:] == pytest.approx([left / 16 for left in range(16, 0, -1)])


def test_cosine_rates() -> None:
    rates = [recipe(warmup=0.2, schedule="cosine").rate(step) for step in range(20)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4:] == pytest.approx([(1 + math.cos(math.pi * done / 16)) / 2 for done in range(16)])


def test_constant_rates() -> None:
    rates = [recipe(warmup=0.2, schedule="constant").rate(step) for step in range(20)]
    assert rates == [0.25, 0.5, 0.75, *[1.0] * 17]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 333])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.5, 0.99])
def test_a_rate_rises_to_its_peak_and_falls_to_nearly_nothing(
    schedule: str, steps: int, warmup: float
) -> None:
    made = recipe(steps, schedule=schedule, warmup=warmup)
    rates = [made.rate(step) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates), "a step that does nothing is a step lost"
    assert max(rates) == 1
    top = rates.index(1)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert top <= math.ceil(warmup * steps)
    if schedule != "constant" and steps == 333 and warmup < 0.9:
        assert rates[-1] < (0.02 if schedule == "wsd" else 0.01)


def test_rates_that_stay_and_then_fall() -> None:
    rates = [recipe(warmup=0.2, schedule="wsd", decay=0.25).rate(step) for step in range(20)]
    assert rates[:15] == [0.25, 0.5, 0.75, *[1.0] * 12]
    assert rates[15:] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
    whole = recipe(warmup=0.0, schedule="wsd", decay=1.0)
    assert [whole.rate(step) for step in range(20)] == [
        recipe(warmup=0.0, schedule="linear").rate(step) for step in range(20)
    ]


def test_warm_up_in_tokens() -> None:
    """48 tokens are three steps, 49 four; none are none."""
    rates = [recipe(warmup_tokens=48).rate(step) for step in range(4)]
    assert rates == pytest.approx([1 / 3, 2 / 3, 1.0, 1.0])
    assert recipe(warmup_tokens=49).warmup_steps == 4
    assert recipe(warmup_tokens=0).rate(0) == 1.0
    assert recipe(400, warmup_tokens=48).warmup_steps == 3


# -- problems -------------------------------------------------------------------------------------------------


def test_a_good_recipe_has_no_problems() -> None:
    for precision in PRECISIONS:
        assert recipe_problems(Recipe(precision=precision), 128) == []
    assert recipe_problems(recipe(micro_batch_tokens=8, clip=None, injected_learning_rate=1.0), 8) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("injected_learning_rate", -1.0),
        ("injected_learning_rate", math.inf),
        ("batch_tokens", 12),
        ("batch_tokens", 0),
        ("tokens", 15),
        ("micro_batch_tokens", 0),
        ("micro_batch_tokens", 12),
        ("micro_batch_tokens", 32),
        ("warmup", 1.0),
        ("warmup", math.nan),
        ("weight_decay", -0.1),
        ("clip", 0.0),
        ("schedule", "step"),
        ("train", "none"),
        ("precision", "fp16"),
        ("optimizer", "sgd"),
        ("decay", 0.0),
        ("decay", 1.5),
        ("warmup_tokens", -1),
        ("warmup_tokens", 320),
        ("activation_checkpointing", -1),
    ],
)
def test_each_mistake_is_told_of_alone(field: str, value: object) -> None:
    (problem,) = recipe_problems(recipe(**{field: value}), 8, "trial.recipe")
    assert problem.where == f"trial.recipe.{field}"
    assert problem.got == repr(value)


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"rates": {"norms": -1.0}}, "rates.norms"),
        ({"rates": {"router": math.inf}}, "rates.router"),
        ({"rates": {"injected": 2.0}, "injected_learning_rate": 1e-3}, "rates.injected"),
        ({"rates": {"injected": 0.0}, "train": "injected"}, "rates.injected"),
        ({"rates": dict.fromkeys(GROUPS, 0.0)}, "rates"),
        ({"warmup_tokens": 32, "warmup": 0.3}, "warmup_tokens"),
    ],
)
def test_settings_that_do_not_go_together(values: dict[str, Any], where: str) -> None:
    (problem,) = recipe_problems(Recipe(**{"tokens": 320, "batch_tokens": 16, **values}), 8, "trial.recipe")
    assert problem.where == f"trial.recipe.{where}"
    assert problem.remedy


def test_rates_of_another_name_or_type() -> None:
    with pytest.raises(InputError) as caught:
        Recipe(rates={"injceted": 1.0, "norm": 1.0})  # type: ignore[arg-type]
    assert [each.where for each in caught.value.problems] == ["recipe.rates.injceted", "recipe.rates.norm"]
    with pytest.raises(InputError) as caught:
        Recipe(rates={"injected": "2"}, decay="x")  # type: ignore[arg-type]
    assert {each.where for each in caught.value.problems} == {"recipe.rates.injected", "recipe.decay"}
    with pytest.raises(InputError, match=r"^recipe.rates: got 2.0"):
        Recipe(rates=2.0)  # type: ignore[arg-type]


def test_all_mistakes_are_told_of_at_once() -> None:
    problems = recipe_problems(recipe(learning_rate=-1.0, clip=-1.0, train="some"), 8)
    assert [problem.where for problem in problems] == [
        "recipe.learning_rate",
        "recipe.clip",
        "recipe.train",
    ]


# -- the optimizer --------------------------------------------------------------------------------------------


def test_groups_have_their_own_rates_and_decay(tiny_model: Tiny) -> None:
    """Tied embeddings once; vectors (norms, biases) undecayed; injected layers at their own rate."""
    base = load_model(tiny_model("llama"))
    injection = plan(4, 2)
    model = grow(base, injection)
    injected = injected_parameters(model, injection)
    made = optimizer(
        model, recipe(learning_rate=1e-3, injected_learning_rate=2e-3, weight_decay=0.1), injected
    )
    names = {parameter: name for name, parameter in model.named_parameters()}
    seen = [names[parameter] for group in made.param_groups for parameter in group["params"]]
    assert sorted(seen) == sorted(names.values())
    assert "lm_head.weight" not in seen
    for group in made.param_groups:
        for parameter in group["params"]:
            assert group["peak"] == (2e-3 if names[parameter] in injected else 1e-3), names[parameter]
            assert group["weight_decay"] == (0.1 if parameter.ndim > 1 else 0), names[parameter]
    assert len(made.param_groups) == 4


def test_only_injected_layers_are_trained_where_asked(tiny_model: Tiny) -> None:
    base = load_model(tiny_model("llama"))
    injection = plan(4, 2)
    model = grow(base, injection)
    injected = injected_parameters(model, injection)
    made = optimizer(model, recipe(train="injected"), injected)
    trained = {id(parameter) for group in made.param_groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (name in injected) == (id(parameter) in trained), name
    optimizer(model, recipe(train="all"), injected)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_injected_layers_and_all_norms(tiny_model: Tiny) -> None:
    model = grow(load_model(tiny_model("llama")), plan(4, 2))
    injected = injected_parameters(model, plan(4, 2))
    optimizer(model, recipe(train="injected+norms"), injected)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (name in injected or "norm" in name), name


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gpt_neox", "bloom", "phi"])
def test_each_parameter_is_in_the_group_of_its_name(tiny_model: Tiny, model_type: str) -> None:
    model = grow(load_model(tiny_model(model_type)), plan(4, 2))
    injected = injected_parameters(model, plan(4, 2))
    names = dict(model.named_parameters())
    found = groups_of(model, injected)
    assert list(found) == list(names)
    for name, group in found.items():
        outer = re.search(r"embed|wte|wpe|lm_head", name) and not re.search("norm", name)
        norm = re.search(r"norm|ln_", name)
        wanted = (
            "injected" if name in injected else "embeddings" if outer else "norms" if norm else "original"
        )
        assert group == wanted, name
    assert set(found.values()) == {"injected", "embeddings", "norms", "original"}


@pytest.mark.parametrize(
    "model_type", ["mixtral", "qwen3_moe", "olmoe", "deepseek_v3", "gpt_oss", "jamba", "phimoe", "granitemoe"]
)
def test_routers_are_found_by_what_they_are(model_type: str) -> None:
    """In each layer of experts one matrix [experts, width]; a shared expert's gate is none."""
    model = tiny(model_type)
    weights = dict(model.named_parameters())
    routers = [name for name, group in groups_of(model, frozenset()).items() if group == "router"]
    assert routers
    for name in routers:
        assert re.search(r"router|gate", name), name
        assert weights[name].shape[0] in (2, 4, 8, 16), name
    experts = {name.split(".experts")[0] for name in weights if ".experts" in name}
    assert len({re.sub(r"\.(gate|router)\..*", "", name) for name in routers}) == len(experts)


def test_rates_of_groups(tiny_model: Tiny) -> None:
    """A group at 0 is frozen; a group that the model does not have is refused, all of them at once."""
    model = grow(load_model(tiny_model("llama")), plan(4, 2))
    injected = injected_parameters(model, plan(4, 2))
    rates = {"injected": 2.0, "norms": 0.0, "embeddings": 0.5}
    made = optimizer(model, Recipe(learning_rate=1e-3, rates=rates), injected)  # type: ignore[arg-type]
    peaks = {id(p): group["peak"] for group in made.param_groups for p in group["params"]}
    groups = groups_of(model, injected)
    for name, parameter in model.named_parameters():
        wanted = rates.get(groups[name], 1.0) * 1e-3
        assert peaks.get(id(parameter), 0.0) == pytest.approx(wanted), name
        assert parameter.requires_grad == (wanted > 0), name
    with pytest.raises(InputError) as caught:
        optimizer(model, Recipe(rates={"injected": 2.0, "router": 0.1}), frozenset())  # type: ignore[arg-type]
    problems = caught.value.problems
    assert [each.where for each in problems] == ["recipe.rates.injected", "recipe.rates.router"]
    assert problems[1].remedy == "router: 1.0"
    present = frozenset(groups_of(model, frozenset()).values())
    kept = Recipe(rates={"injected": 2.0, "norms": 0.1}).for_groups(present)  # type: ignore[arg-type]
    assert (kept.rates.injected, kept.rates.norms) == (1.0, 0.1)


def test_eight_bit_moments_need_their_extra(tiny_model: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(InputError) as caught:
        optimizer(load_model(tiny_model("llama")), recipe(optimizer="adamw8bit"), frozenset())
    (problem,) = caught.value.problems
    assert (problem.where, EXTRA in problem.remedy) == ("recipe.optimizer", True)


@pytest.mark.parametrize(
    ("values", "moves"),
    [
        ({}, "all"),
        ({"train": "injected"}, "injected"),
        ({"train": "injected+norms"}, "injected+norms"),
        ({"train": "injected+norms", "rates": {"norms": 0.0}}, "injected"),
        ({"rates": {"original": 0.0}}, "injected+norms"),
        ({"rates": {"original": 0.0, "norms": 0.0}}, "injected+norms"),  # down to the embeddings
        ({"rates": {"original": 0.0, "norms": 0.0, "embeddings": 0.0}}, "injected"),
    ],
)
def test_what_moves(values: dict[str, Any], moves: str) -> None:
    assert Recipe(**values).moves == moves
