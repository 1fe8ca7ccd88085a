"""An optimizer's moments as plain tensors, for states on disk: in float32, or codes and scales in 8 bits.

Every tensor here is divided by its rows as its parameter is, scales too: a state fits any number of ranks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from tli.training.eight_bits import block_of

if TYPE_CHECKING:
    from tli.training.loop import Training

MOMENTS = ("exp_avg", "exp_avg_sq")


def trained(training: Training) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Parameters that move; the frozen ones are those of the model that the training was made with."""
    return ((name, each) for name, each in training.model.named_parameters() if each.requires_grad)


def moment_types(
    training: Training, name: str, parameter: torch.nn.Parameter
) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Types and whole shapes of the tensors that hold a parameter's moments, by their names in a state."""
    return {
        f"optimizer.{key}{part}.{name}": kind
        for key in MOMENTS
        for part, kind in _parts(training, parameter).items()
    }


def moment_tensors(training: Training, name: str, parameter: torch.nn.Parameter) -> dict[str, torch.Tensor]:
    """The same tensors as the optimizer has them, in its own memory; under FSDP this rank's rows of them.

    None before the first step.
    """
    kept: dict[str, Any] = training.optimizer.state.get(parameter, {})
    kinds, found = _parts(training, parameter), {}
    for key in MOMENTS if kept else ():
        local = _local(kept[key])
        if len(kinds) == 1:
            found[f"optimizer.{key}.{name}"] = local
        elif not local.numel():  # the rank has no row, and torchao no codes of nothing
            for part, (kind, shape) in kinds.items():
                found[f"optimizer.{key}{part}.{name}"] = torch.empty((0, *shape[1:]), dtype=kind)
        else:
            found[f"optimizer.{key}.codes.{name}"] = local.codes
            found[f"optimizer.{key}.scale.{name}"] = local.scale.view(len(local.codes), -1)
    return found


def make_moments(training: Training, parameter: torch.nn.Parameter, steps: torch.Tensor) -> None:
    """Give the optimizer a parameter's count of steps, and room for its moments, which are to be read."""
    # The count is on the CPU, but for the fused kernel.
    counted = steps.to(parameter.device) if training.optimizer.defaults.get("fused") else steps
    training.optimizer.state[parameter] = {"step": counted}
    for key in MOMENTS:
        training.optimizer.state[parameter][key] = _moment(training, parameter.detach(), key)


def _moment(training: Training, parameter: torch.Tensor, key: str) -> torch.Tensor:
    if isinstance(training.optimizer, torch.optim.AdamW):
        return torch.zeros_like(parameter)
    eight_bits: Any = training.optimizer  # torchao's, whose values are made by it alone
    made: torch.Tensor = eight_bits._new_buffer(parameter, key == "exp_avg")
    return made


def _parts(
    training: Training, parameter: torch.nn.Parameter
) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Type and whole shape of what holds one moment: itself, or codes and their scales, row by row."""
    shape = tuple(parameter.shape)
    block = None if isinstance(training.optimizer, torch.optim.AdamW) else block_of(shape)
    if block is None:
        return {"": (parameter.dtype, shape)}
    scales = (shape[0], math.prod(shape[1:]) // block)
    return {".codes": (torch.uint8, shape), ".scale": (torch.float32, scales)}


def _local(value: Any) -> Any:
    """This rank's rows of a value that is a DTensor."""
    return value.to_local() if hasattr(value, "to_local") else value
