"""Matrices that are not trained in half the memory: kept in bfloat16 where that loses no bit of them.

Published weights usually are bfloat16 numbers, which models in float32 hold with two bytes of zeros. Under
autocast a frozen matrix gives the same products from either; everywhere else it is widened while it is used.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from transformers.pytorch_utils import Conv1D

from tli.models.halved import halved_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class FrozenLinear(torch.nn.Linear):
    """A linear layer whose weight, of shape [outputs, inputs], is kept in bfloat16 and never trained."""

    halved_of = torch.nn.Linear

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's name
        """As `torch.nn.Linear` with the weight in float32."""
        return torch.nn.functional.linear(input, _as_used(self.weight, input), self.bias)


class FrozenConv1D(Conv1D):  # type: ignore[misc] # transformers is not typed
    """A layer of GPT-2, whose weight is of shape [inputs, outputs], kept in bfloat16 and never trained."""

    halved_of = Conv1D

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As transformers' `Conv1D` with the weight in float32."""
        rows = torch.addmm(self.bias, x.view(-1, x.size(-1)), _as_used(self.weight, x))
        return rows.view(*x.shape[:-1], self.nf)


class FrozenEmbedding(torch.nn.Embedding):
    """An embedding whose table, of shape [tokens, width], is kept in bfloat16 and never trained."""

    halved_of = torch.nn.Embedding

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's name
        """As `torch.nn.Embedding` with the table in float32."""
        return super().forward(input).float()


_FROZEN: dict[type[torch.nn.Module], type[torch.nn.Module]] = {
    each.halved_of: each for each in (FrozenLinear, FrozenConv1D, FrozenEmbedding)
}


def halve_frozen(model: PreTrainedModel) -> int:
    """Keep frozen float32 matrices in bfloat16 where all of their values are bfloat16 numbers.

    Values stay the same: of the matrices, of what a model calculates with them in float32, and under autocast
    to bfloat16. Others are left alone, and so are tied heads with their embeddings, embeddings that do more
    than look up, and experts in one tensor.

    Args:
        model: changed in place.

    Returns:
        Bytes that are free again.
    """
    names = Counter(id(each) for _, each in model.named_parameters(remove_duplicate=False))
    freed = 0
    for module in model.modules():
        kept = _FROZEN.get(type(module))
        weight: Any = getattr(module, "weight", None)
        if kept is None or weight is None or weight.requires_grad or weight.dtype != torch.float32:
            continue
        half = weight.detach().to(torch.bfloat16)
        if names[id(weight)] > 1 or not torch.equal(half.float(), weight.detach()):
            continue
        freed += weight.nbytes - half.nbytes
        weight.data = half
        keep_halved(module)
    return freed


def keep_halved(module: torch.nn.Module) -> None:
    """Have a module that was given a weight in bfloat16 use it as one in float32."""
    module.__class__ = _FROZEN[type(module)]


def whole_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A model's state as files hold it: every tensor of the type and with the bits that were loaded."""
    halved = set(halved_weights(model))
    state = model.state_dict()
    return {name: each.cpu().float() if name in halved else each for name, each in state.items()}


def _as_used(weight: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    """The weight as it is under autocast, which wants bfloat16 itself; else of the type of what it meets."""
    return weight if torch.is_autocast_enabled(given.device.type) else weight.to(given.dtype)
