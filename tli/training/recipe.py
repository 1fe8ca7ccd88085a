"""How a model is trained: optimizer, rates, schedule, budget, and which parameters move."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, get_args

from tli.argument_types import FLAG, NUMBER, STRING, WHOLE, Kind, type_problems
from tli.errors import InputError, Problem

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    import torch
    from transformers import PreTrainedModel

Schedule = Literal["linear", "cosine", "constant"]
Trained = Literal["all", "injected"]
Precision = Literal["fp32", "bf16"]
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)
TRAINED: tuple[Trained, ...] = get_args(Trained)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


# By the annotation of a field; names are judged beside the other values.
_KINDS: dict[str, Kind] = {
    "float": NUMBER,
    "float | None": NUMBER.optional,
    "int": WHOLE,
    "int | None": WHOLE.optional,
    "bool": FLAG,
    "Schedule": STRING,
    "Trained": STRING,
    "Precision": STRING,
}


@dataclass(frozen=True)
class Recipe:
    """A complete training recipe. Values of another type are refused when it is made; whether it can be run
    depends on the text's sequence length, so `Training` says that, with all problems at once.

    Attributes
    ----------
    learning_rate : float
        Peak rate of AdamW for the original layers (and the injected ones, unless given).
    injected_learning_rate : float, optional
        Peak rate for the injected layers; where left out, the same.
    tokens : int
        The budget, in predicted tokens; rounded up to whole batches.
    batch_tokens : int
        Tokens of one optimizer step, a multiple of the sequence length.
    micro_batch_tokens : int, optional
        Tokens of one forward pass; where left out, the whole batch. The batch stays the same.
    warmup : float
        Share of the steps in which the rate rises, from 0 to below 1.
    schedule : {"linear", "cosine", "constant"}
        How the rate falls to zero by the budget; constant: it does not.
    weight_decay : float
        Of matrices; vectors (norms, biases) are never decayed.
    clip : float, optional
        Largest global norm of the gradient; None does not clip.
    train : {"all", "injected"}
        All parameters, or the injected layers alone.
    precision : {"fp32", "bf16"}
        bf16 is computation in bfloat16 over weights, gradients and moments in float32 (autocast).
    activation_checkpointing : int
        Every how many layers one keeps nothing but its input for the backward pass, and is calculated again
        there: 0 none, 1 all, 2 every second one. Less memory, more time, the same gradients.
    compile : bool
        Compile each layer (`torch.compile`): the first pass takes up to a minute, those after it less time.

    Raises
    ------
    InputError
        A value of another type, all of them at once.

    Examples
    --------
    >>> import tli
    >>> recipe = tli.Recipe(tokens=10_000, batch_tokens=1024, warmup=0.2)
    >>> recipe.steps, recipe.rate(0), recipe.rate(2)
    (10, 0.5, 1.0)
    """

    learning_rate: float = 1e-3
    injected_learning_rate: float | None = None
    tokens: int = 100_000
    batch_tokens: int = 2048
    micro_batch_tokens: int | None = None
    warmup: float = 0.1
    schedule: Schedule = "linear"
    weight_decay: float = 0.0
    clip: float | None = 1.0
    train: Trained = "all"
    precision: Precision = "fp32"
    activation_checkpointing: int = 0
    compile: bool = False

    def __post_init__(self) -> None:
        given = {item.name: (getattr(self, item.name), _KINDS[str(item.type)]) for item in fields(self)}
        if problems := type_problems(given, "recipe."):
            raise InputError(*problems)

    @property
    def steps(self) -> int:
        """Optimizer steps in the budget."""
        return math.ceil(self.tokens / self.batch_tokens)

    def rate(self, step: int) -> float:
        """Share of the peak rate at one step.

        Parameters
        ----------
        step : int
            Counted from 0.

        Returns
        -------
        float
            From 0 to 1.
        """
        warm = math.ceil(self.warmup * self.steps)
        if step < warm:
            return (step + 1) / warm
        left = (self.steps - step) / max(1, self.steps - warm)
        if self.schedule == "linear":
            return left
        return 0.5 - 0.5 * math.cos(math.pi * left) if self.schedule == "cosine" else 1.0


def recipe_problems(recipe: Recipe, sequence_length: int, where: str = "recipe") -> list[Problem]:
    """Everything about a recipe that cannot be run."""
    problems = []

    def wrong(field: str, expected: str, remedy: str = "") -> None:
        problems.append(Problem(f"{where}.{field}", repr(getattr(recipe, field)), expected, remedy))

    for field in ("learning_rate", "injected_learning_rate"):
        rate = getattr(recipe, field)
        if rate is not None and not (math.isfinite(rate) and rate > 0):
            wrong(field, "a finite number above 0", "1.0e-3")
    if recipe.batch_tokens < sequence_length or recipe.batch_tokens % sequence_length:
        wrong(
            "batch_tokens", f"a multiple of the sequence length {sequence_length}", str(16 * sequence_length)
        )
    if recipe.tokens < recipe.batch_tokens:
        wrong("tokens", f"at least one batch of {recipe.batch_tokens} tokens", str(50 * recipe.batch_tokens))
    micro = recipe.micro_batch_tokens
    if micro is not None and (
        micro < sequence_length or micro % sequence_length or recipe.batch_tokens % micro
    ):
        wrong("micro_batch_tokens", "a multiple of the sequence length that divides batch_tokens", "null")
    if not 0 <= recipe.warmup < 1:
        wrong("warmup", "a share of the steps in [0, 1)", "0.1")
    if not (math.isfinite(recipe.weight_decay) and recipe.weight_decay >= 0):
        wrong("weight_decay", "a finite number, 0 or more", "0.0")
    if recipe.clip is not None and not (math.isfinite(recipe.clip) and recipe.clip > 0):
        wrong("clip", "a finite number above 0, or null", "1.0")
    for field, names in (("schedule", SCHEDULES), ("train", TRAINED), ("precision", PRECISIONS)):
        if getattr(recipe, field) not in names:
            wrong(field, f"one of {', '.join(names)}", names[0])
    return problems + _layer_problems(recipe, where)


def _layer_problems(recipe: Recipe, where: str) -> list[Problem]:
    """About which layers keep their activations."""
    every = recipe.activation_checkpointing
    if every >= 0:
        return []
    expected = "0 for no layer, 1 for every layer, 2 for every second one"
    return [Problem(f"{where}.activation_checkpointing", str(every), expected, "1")]


def optimizer(model: PreTrainedModel, recipe: Recipe, injected: AbstractSet[str]) -> torch.optim.AdamW:
    """AdamW over what the recipe trains, with each group's peak rate kept as `peak`.

    Parameters that are not trained are frozen as a side effect. Tied parameters count once.

    Args:
        model: the model to train.
        recipe: a recipe without problems.
        injected: names of the parameters of injected layers.
    """
    import torch

    from tli.training.acceleration import fastest_kernel

    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        new = name in injected
        parameter.requires_grad_(recipe.train == "all" or new)
        if parameter.requires_grad:
            groups.setdefault((new, parameter.ndim > 1), []).append(parameter)
    new_rate = recipe.injected_learning_rate or recipe.learning_rate
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": new_rate if new else recipe.learning_rate,
                "peak": new_rate if new else recipe.learning_rate,
                "weight_decay": recipe.weight_decay if matrix else 0.0,
            }
            for (new, matrix), parameters in groups.items()
        ],
        betas=(0.9, 0.95),
        eps=1e-8,
        **fastest_kernel(model),
    )
