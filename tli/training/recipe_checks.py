"""Checks of a recipe: by itself, against a model's groups of parameters, and for what is installed."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from tli.errors import Problem
from tli.training.heldout import HeldOut, arrays_of
from tli.training.recipe import AUTO, GROUPS, OPTIMIZERS, PRECISIONS, SCHEDULES, TRAINED, Group, Recipe

if TYPE_CHECKING:
    import numpy as np

    from tli.data.batches import Batches

EXTRA = "adamw8bit"  # of this package, which the 8-bit moments come with
_NAMED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("optimizer", OPTIMIZERS),
    ("schedule", SCHEDULES),
    ("train", TRAINED),
    ("precision", PRECISIONS),
)


def recipe_problems(recipe: Recipe, sequence_length: int, where: str = "recipe") -> list[Problem]:
    """Everything about a recipe that cannot be run."""
    return [
        *_rate_problems(recipe, where),
        *_amount_problems(recipe, sequence_length, where),
        *_schedule_problems(recipe, where),
        *_name_problems(recipe, where),
    ]


def batch_problems(
    recipe: Recipe, batches: Batches, heldout: np.ndarray | HeldOut, injected: AbstractSet[str]
) -> Iterator[Problem]:
    """What of a recipe does not fit what is trained, and on what.

    Args:
        recipe: how.
        batches: on what.
        heldout: the held-out windows.
        injected: names of the injected layers' parameters.
    """
    size = batches.rows * batches.sequence_length
    if size != recipe.batch_tokens and not recipe.batch_tokens % batches.sequence_length:
        got = f"{recipe.batch_tokens} tokens"
        yield Problem("recipe.batch_tokens", got, f"{size}, as the batches have", str(size))
    if recipe.activation_checkpointing == AUTO:
        yield Problem("recipe.activation_checkpointing", "'auto'", "a number of layers to train with", "0")
    if recipe.train != "all" and not injected:
        yield Problem("recipe.train", repr(recipe.train), "a model with injected layers", "all")
    if any(batches.packed != (len(each.shape) == 3) for each in arrays_of(heldout)):
        yield Problem("heldout", "windows of another packing", "windows packed as the batches are")


def _rate_problems(recipe: Recipe, where: str) -> Iterator[Problem]:
    for name in ("learning_rate", "injected_learning_rate"):
        rate = getattr(recipe, name)
        if rate is not None and not (math.isfinite(rate) and rate > 0):
            yield _wrong(recipe, where, name, "a finite number above 0", "1.0e-3")
    for group in GROUPS:
        multiple = getattr(recipe.rates, group)
        if not (math.isfinite(multiple) and multiple >= 0):
            expected = "a finite number of at least 0 (times learning_rate; 0 freezes)"
            yield Problem(f"{where}.rates.{group}", repr(multiple), expected, "1.0")
    injected = recipe.rates.injected
    if recipe.injected_learning_rate is not None and injected != 1:
        got = f"{injected!r} beside injected_learning_rate {recipe.injected_learning_rate!r}"
        yield Problem(f"{where}.rates.injected", got, "one of the two", "injected_learning_rate: null")
    if injected == 0 and recipe.train == "injected":
        expected = "more than 0 where injected layers alone are trained"
        yield Problem(f"{where}.rates.injected", repr(injected), expected, "1.0")
    elif not any(getattr(recipe.rates, group) for group in GROUPS):
        expected = "at least one group that is trained"
        yield Problem(f"{where}.rates", "0 for every group", expected, "injected: 1.0")


def _amount_problems(recipe: Recipe, sequence_length: int, where: str) -> Iterator[Problem]:
    if recipe.batch_tokens < sequence_length or recipe.batch_tokens % sequence_length:
        expected = f"a multiple of the sequence length {sequence_length}"
        yield _wrong(recipe, where, "batch_tokens", expected, str(16 * sequence_length))
    if recipe.tokens < recipe.batch_tokens:
        expected = f"at least one batch of {recipe.batch_tokens} tokens"
        yield _wrong(recipe, where, "tokens", expected, str(50 * recipe.batch_tokens))
    micro = recipe.micro_batch_tokens
    if micro is not None and (
        micro < sequence_length or micro % sequence_length or recipe.batch_tokens % micro
    ):
        expected = "a multiple of the sequence length that divides batch_tokens"
        yield _wrong(recipe, where, "micro_batch_tokens", expected, "null")


def _schedule_problems(recipe: Recipe, where: str) -> Iterator[Problem]:
    if not 0 <= recipe.warmup < 1:
        yield _wrong(recipe, where, "warmup", "a share of the steps in [0, 1)", "0.1")
    elif recipe.warmup_tokens is not None and recipe.warmup not in (0, Recipe.warmup):
        got = f"{recipe.warmup_tokens} beside warmup {recipe.warmup!r}"
        yield Problem(f"{where}.warmup_tokens", got, "one of the two", "null")
    elif recipe.warmup_tokens is not None and not 0 <= recipe.warmup_tokens < max(1, recipe.tokens):
        expected = f"tokens in which the rate rises, from 0 to below tokens ({recipe.tokens})"
        yield _wrong(recipe, where, "warmup_tokens", expected, str(max(0, recipe.tokens) // 10))
    elif not 0 < recipe.decay <= 1:
        yield _wrong(recipe, where, "decay", "a share of the steps in (0, 1]", "0.2")


def _name_problems(recipe: Recipe, where: str) -> Iterator[Problem]:
    if not (math.isfinite(recipe.weight_decay) and recipe.weight_decay >= 0):
        yield _wrong(recipe, where, "weight_decay", "a finite number, 0 or more", "0.0")
    if recipe.clip is not None and not (math.isfinite(recipe.clip) and recipe.clip > 0):
        yield _wrong(recipe, where, "clip", "a finite number above 0, or null", "1.0")
    every = recipe.activation_checkpointing
    if every != AUTO and (isinstance(every, str) or every < 0):
        expected = "0 for no layer, 1 for every layer, 2 for every second one, or auto"
        yield _wrong(recipe, where, "activation_checkpointing", expected, "1")
    for name, known in _NAMED:
        if getattr(recipe, name) not in known:
            yield _wrong(recipe, where, name, f"one of {', '.join(known)}", known[0])


def _wrong(recipe: Recipe, where: str, name: str, expected: str, remedy: str = "") -> Problem:
    return Problem(f"{where}.{name}", repr(getattr(recipe, name)), expected, remedy)


def group_problems(recipe: Recipe, present: AbstractSet[Group], where: str = "recipe") -> Iterator[Problem]:
    """Multiples of the rate for groups that a model does not have.

    Args:
        recipe: a recipe without other problems.
        present: groups of the model's parameters.
        where: the recipe's place in messages.
    """
    for group in GROUPS:
        multiple = getattr(recipe.rates, group)
        if multiple != 1 and group not in present:
            got = f"{multiple!r}, of a model without {_IN_WORDS[group]}"
            expected = f"groups that it has: {', '.join(each for each in GROUPS if each in present)}"
            yield Problem(f"{where}.rates.{group}", got, expected, f"{group}: 1.0")


_IN_WORDS: dict[Group, str] = {
    "injected": "injected layers",
    "original": "matrices of its own layers",
    "norms": "norms outside injected layers",
    "embeddings": "embeddings",
    "router": "routers",
}


def optimizer_problems(recipe: Recipe, where: str = "recipe") -> Iterator[Problem]:
    """That what the recipe's optimizer comes with is not installed; imports nothing."""
    if recipe.optimizer == "adamw8bit" and importlib.util.find_spec("torchao") is None:
        got = f"'adamw8bit', which needs the `{EXTRA}` extra"
        remedy = f"pip install 'tli-sweeps[{EXTRA}]', or adamw"
        yield Problem(f"{where}.optimizer", got, "torchao installed", remedy)
