from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tli.growth.in_memory import grow, injected_parameters
from tli.models.loading import load_model
from tli.planning.plan import plan
from tli.training.optimizer import optimizer
from tli.training.recipe import PRECISIONS, SCHEDULES, Recipe
from tli.training.recipe_checks import recipe_problems

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
    ],
)
def test_each_mistake_is_told_of_alone(field: str, value: object) -> None:
    (problem,) = recipe_problems(recipe(**{field: value}), 8, "trial.recipe")
    assert problem.where == f"trial.recipe.{field}"
    assert problem.got == repr(value)


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
