"""Parameters in groups with rates of their own, what is not trained frozen, and AdamW over the rest."""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

from tli.errors import InputError, Problem
from tli.training.eight_bits import adamw_in_8_bits
from tli.training.recipe import Group, Recipe
from tli.training.recipe_checks import group_problems, optimizer_problems

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_BETAS, _EPSILON = (0.9, 0.95), 1e-8
_ROUTER = re.compile(r"router|gating|topkgate", re.IGNORECASE)
_NORM = re.compile(r"norm", re.IGNORECASE)
_MIXTURE = re.compile(r"moe|mixture", re.IGNORECASE)


def groups_of(model: PreTrainedModel, injected: AbstractSet[str]) -> dict[str, Group]:
    """The group that each parameter's rate is of, by the parameter's name; tied ones once.

    Args:
        model: a causal language model.
        injected: names of the parameters that its base has none of.

    Returns:
        Names as `named_parameters` gives them, in that order.
    """
    return {
        name: _group(model, name, parameter, new=name in injected)
        for name, parameter in model.named_parameters()
    }


def _group(model: PreTrainedModel, name: str, parameter: torch.nn.Parameter, *, new: bool) -> Group:
    from torch.nn import Embedding

    around = list(_around(model, name))
    if any(_is_router(*each) for each in around):
        return "router"
    if new:
        return "injected"
    holder = around[-1][1]
    head = model.get_output_embeddings()
    if isinstance(holder, Embedding) or holder is head or parameter is model.get_input_embeddings().weight:
        return "embeddings"
    return "norms" if _NORM.search(type(holder).__name__) else "original"


def _around(model: PreTrainedModel, name: str) -> Iterator[tuple[str, torch.nn.Module, str]]:
    """The modules that hold a parameter, outermost first: name, module, and the class of what holds it."""
    module: Any = model
    for part in name.split(".")[:-1]:
        holder, module = type(module).__name__, getattr(module, part)
        yield part, module, holder
    if "." not in name:
        yield "", model, ""


def _is_router(name: str, module: torch.nn.Module, holder: str) -> bool:
    """Whether a module chooses experts: by its class, or as the gate of a mixture."""
    from torch.nn import Linear

    if _ROUTER.search(type(module).__name__):
        return True
    return isinstance(module, Linear) and (
        name == "router" or (name == "gate" and _MIXTURE.search(holder) is not None)
    )


def untrained(model: PreTrainedModel, recipe: Recipe, injected: AbstractSet[str]) -> frozenset[str]:
    """Names of the parameters that a recipe leaves as they are, tied ones once.

    Args:
        model: a causal language model.
        recipe: a recipe without problems.
        injected: names of the parameters that count as new.
    """
    groups = groups_of(model, injected)
    return frozenset(name for name, group in groups.items() if not _peak(recipe, group, new=name in injected))


def optimizer(model: PreTrainedModel, recipe: Recipe, injected: AbstractSet[str]) -> torch.optim.Optimizer:
    """AdamW over what the recipe trains, with each group's peak rate kept as `peak`.

    Parameters that are not trained are frozen as a side effect: they get no gradient and no moments, autograd
    records nothing of what is calculated below the lowest that is trained, and under bf16 they take half the
    bytes (`tli.training.frozen`; over ranks `tli.sharded.growth`). Tied parameters count once.

    Args:
        model: the model to train.
        recipe: a recipe without problems.
        injected: names of the parameters of injected layers.

    Raises:
        InputError: groups that the model does not have, nothing that is trained, or torchao is missing.
    """
    import torch

    from tli.training.acceleration import fastest_kernel
    from tli.training.frozen import halve_frozen
    from tli.training.losses import is_sharded

    groups = groups_of(model, injected)
    problems = [*group_problems(recipe, frozenset(groups.values())), *optimizer_problems(recipe)]
    if problems:
        raise InputError(*problems)
    trained: dict[tuple[float, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        peak = _peak(recipe, groups[name], new=name in injected)
        parameter.requires_grad_(peak > 0)
        if parameter.requires_grad:
            trained.setdefault((peak, parameter.ndim > 1), []).append(parameter)
    if not trained:
        raise InputError(Problem("recipe.rates", "0 for all that is trained", "a group that moves", "1.0"))
    if recipe.precision == "bf16" and not is_sharded(model):  # whose shards were made so
        halve_frozen(model)
    settings: list[dict[str, Any]] = [
        {
            "params": parameters,
            "lr": peak,
            "peak": peak,
            "weight_decay": recipe.weight_decay if matrix else 0.0,
        }
        for (peak, matrix), parameters in trained.items()
    ]
    if recipe.optimizer == "adamw8bit":
        device = settings[0]["params"][0].device.type
        return adamw_in_8_bits(settings, betas=_BETAS, epsilon=_EPSILON, device=device)
    return torch.optim.AdamW(settings, betas=_BETAS, eps=_EPSILON, **fastest_kernel(model))


def set_rate(group: dict[str, Any], rate: float) -> None:
    """Set the learning rate of one of an optimizer's groups, which some keep in a tensor."""
    if isinstance(group["lr"], float | int):
        group["lr"] = rate
    else:
        group["lr"].fill_(rate)


def _peak(recipe: Recipe, group: Group, *, new: bool) -> float:
    """The peak rate of a parameter; 0 where it is not trained."""
    if recipe.train != "all" and not new and not (recipe.train == "injected+norms" and group == "norms"):
        return 0.0
    rate = (recipe.injected_learning_rate if new else None) or recipe.learning_rate
    return rate * float(getattr(recipe.rates, group))
