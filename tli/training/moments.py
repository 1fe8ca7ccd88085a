"""An optimizer's moments as plain tensors, for states on disk: in float32, or codes and scales in 8 bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from tli.training.loop import Training

MOMENTS = ("exp_avg", "exp_avg_sq")


def trained(training: Training) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Parameters that move; the frozen ones are those of the model that the training was made with."""
    return ((name, each) for name, each in training.model.named_parameters() if each.requires_grad)


def parts_of(value: Any) -> dict[str, torch.Tensor]:
    """The plain tensors that hold an optimizer's value: itself, or codes and scales of one in 8 bits."""
    if not hasattr(value, "__tensor_flatten__"):
        return {"": torch.as_tensor(value)}
    names, _ = value.__tensor_flatten__()
    return {f".{name}": getattr(value, name) for name in names if name != "qmap"}  # always the same map


def moments(training: Training, name: str, parameter: torch.nn.Parameter) -> dict[str, torch.Tensor]:
    """Tensors of the types and shapes, by their names in a state, that hold a parameter's moments."""
    if isinstance(training.optimizer, torch.optim.AdamW):
        return {f"optimizer.{key}.{name}": parameter.detach() for key in MOMENTS}
    return {
        f"optimizer.{key}{part}.{name}": tensor
        for key in MOMENTS
        for part, tensor in parts_of(moment(training, parameter, key)).items()
    }


def counter(training: Training, parameter: torch.nn.Parameter, steps: torch.Tensor) -> torch.Tensor:
    """A parameter's count of steps where the optimizer wants it: on the CPU, but for the fused kernel."""
    return steps.to(parameter.device) if training.optimizer.defaults.get("fused") else steps


def moment(training: Training, parameter: torch.nn.Parameter, key: str) -> torch.Tensor:
    """Room for a moment of a parameter as the optimizer keeps it; nothing is in it."""
    if isinstance(training.optimizer, torch.optim.AdamW):
        return torch.empty_like(parameter, requires_grad=False)
    eight_bits: Any = training.optimizer  # torchao's, whose values are made by it alone
    made: torch.Tensor = eight_bits._new_buffer(parameter.detach(), key == "exp_avg")
    return made
