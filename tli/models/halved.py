"""Models of which some weights are kept in bfloat16 and stand for numbers in float32.

A module with such a weight is of a class that says so by `halved_of`, the class that it is otherwise
(`tli.training.frozen`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def halved_weights(model: nn.Module) -> Iterator[str]:
    """Names of the weights that are kept so."""
    for name, module in model.named_modules():
        if hasattr(type(module), "halved_of"):
            yield f"{name}.weight"


def restore(module: nn.Module) -> None:
    """Give a module with such a weight one in float32, in a memory of its own."""
    weight: Any = module.weight
    weight.data = weight.detach().float()
    whole: Any = type(module)
    module.__class__ = whole.halved_of
