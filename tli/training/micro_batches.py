"""Micro batches that fit the device's memory: found once for a model, text length and way of training.

The first training of a kind in a process finds out how many tokens can go through the model at once, by
halving them whenever memory runs out; those after it begin with what was found. The batch of a step stays the
same.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tli.training.recipe import Recipe

_found: dict[Hashable, int] = {}  # tokens, by what `kind_of` tells apart


def kind_of(model: PreTrainedModel, recipe: Recipe, sequence_length: int) -> Hashable:
    """What decides how much memory a token takes, and how much there is for it."""
    first = next(model.parameters())
    shapes = hash(tuple(tuple(parameter.shape) for parameter in model.parameters()))
    how = (recipe.precision, recipe.train, recipe.activation_checkpointing, recipe.compile)
    return (type(model), shapes, str(first.device), first.dtype, sequence_length, *how)


def most_tokens(kind: Hashable, wanted: int) -> int:
    """Tokens of a micro batch: those wanted, or fewer where so many were found to be too many."""
    return min(wanted, _found.get(kind, wanted))


def halved(kind: Hashable, tokens: int, sequence_length: int) -> int | None:
    """Half the sequences of a micro batch that was too large, in tokens, from now on; None if it was one."""
    sequences = tokens // sequence_length
    if sequences <= 1:
        return None
    _found[kind] = sequences // 2 * sequence_length
    return _found[kind]
