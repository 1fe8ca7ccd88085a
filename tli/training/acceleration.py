"""What trades memory for time, or start-up for speed, and changes no result beyond rounding."""

from __future__ import annotations

import re
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.utils.checkpoint import checkpoint

from tli.architectures.lookup import family_of
from tli.architectures.mixtures import dense_type
from tli.errors import FamilyError, InputError, Problem

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


# What the loader says of half a library.
_BROKEN = re.compile(r"(/\S+\.so): (?:invalid ELF header|file too short|cannot read file data)")


def fastest_kernel(model: PreTrainedModel) -> dict[str, bool]:
    """AdamW's settings for where a model is: one kernel for all of a step on a GPU, which needs no memory for
    intermediate results; elsewhere the operations of a step over many tensors at once.
    """
    return {"fused": True} if next(model.parameters()).device.type == "cuda" else {"foreach": True}


def checkpoint_activations(model: PreTrainedModel, every: int) -> None:
    """Have every n-th layer keep nothing but its input while training; the rest is calculated again backward.

    Args:
        model: in training mode from now on, or later.
        every: 1 for all layers, 2 for every second one; 0 for none.

    Raises:
        FamilyError: the layers of this architecture cannot do that.
    """
    layers = _layers(model)
    if not every and not any(getattr(layer, "gradient_checkpointing", False) for layer in layers):
        return
    if not all(hasattr(layer, "gradient_checkpointing") for layer in layers):
        got = f"{every} with layers of {model.config.model_type!r}"
        expected = "an architecture whose layers can be calculated again"
        raise FamilyError(Problem("recipe.activation_checkpointing", got, expected, "0"))
    for index, layer in enumerate(cast("Any", layers)):
        layer.gradient_checkpointing = bool(every) and index % every == 0
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)


def compile_layers(model: PreTrainedModel) -> None:
    """Compile the layers one by one, so that models of any depth share what was compiled.

    Nothing is compiled before the first pass, which then takes up to a minute.

    Raises:
        InputError: there is no compiler for the device that the model is on.
    """
    reason = _without_compiler(next(model.parameters()).device.type)
    if reason is not None:
        needed = "a C++ compiler, and Triton where there is a GPU"
        raise InputError(Problem("recipe.compile", f"true, but {reason}", needed, "false"))
    for layer in _layers(model):
        layer.compile(fullgraph=True)


def handle_compiler_error(error: Exception, model: PreTrainedModel) -> None:
    """Say in words of the recipe that a model's layers cannot be compiled, if that is what an error says; and
    where it is a compiled kernel that cannot be loaded, remove that, so that the next attempt compiles it
    again.

    Raises:
        FamilyError: layers are no single graph.
    """
    _drop_broken_kernels(error)
    if type(error).__module__.startswith("torch._dynamo"):
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        got = f"true with layers of {model.config.model_type!r} ({said})"
        expected = "an architecture whose layers can be compiled as one graph"
        raise FamilyError(Problem("recipe.compile", got, expected, "false")) from error


def _drop_broken_kernels(error: Exception) -> None:
    """Remove what cannot be loaded from torch's cache on disk. A process that is killed while its compiler
    writes leaves half a library under the name of a whole one, and torch never writes over it.
    """
    broken = _BROKEN.findall(str(error))
    if not broken:
        return
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    for name in broken:
        path = Path(name)
        if path.resolve().is_relative_to(Path(cache_dir()).resolve()):
            path.unlink(missing_ok=True)


@cache
def _without_compiler(device: str) -> str | None:
    """Why nothing can be compiled for a kind of device; None where it can be."""
    tried = torch.compile(lambda value: value * 2 + 1, fullgraph=True)
    try:
        tried(torch.ones(8, device=device))
    except Exception as error:  # noqa: BLE001 - each backend has its own
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        return f"a trial of it ended in {type(error).__name__}: {said}"
    return None


def _layers(model: PreTrainedModel) -> nn.ModuleList:
    family = family_of(dense_type(model.config.model_type), "model_type")
    return cast("nn.ModuleList", model.get_submodule(family.layers))
