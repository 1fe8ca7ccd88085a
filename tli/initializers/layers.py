"""Tensors by layer: names within a layer, shapes, tensors with a part for each layer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tli.architectures.family import Family
from tli.checkpoint.header import TensorInfo
from tli.errors import PlanError, Problem
from tli.initializers.combine import Layout
from tli.planning.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor, nn

_PIECE = 2**20  # bytes of a tensor that are in memory at once
Buffer = bytes | memoryview


def split(layers: str, name: str) -> tuple[int | None, str]:
    """`model.layers.3.mlp.up_proj.weight` -> (3, "mlp.up_proj.weight"); (None, name) outside the layers."""
    if not name.startswith(f"{layers}."):
        return None, name
    position, _, rest = name.removeprefix(f"{layers}.").partition(".")
    return int(position), rest


def layout_of(layers: Sequence[Mapping[str, tuple[int, ...]]], family: Family) -> Layout:
    """The shapes of the weights of every old layer by their names in it, from those of all its tensors."""
    return [{name: shape for name, shape in layer.items() if not family.is_buffer(name)} for layer in layers]


def widened(tensor: Tensor, axis: int, plan: Plan) -> Tensor:
    """The parts of a tensor along an axis, one for each layer, as the plan has the layers."""
    import torch

    parts = tensor.detach().chunk(plan.depth, dim=axis)
    return torch.cat([parts[source] for source in plan.sources], dim=axis)


def widened_pieces(info: TensorInfo, axis: int, plan: Plan) -> Iterator[Buffer]:
    """The bytes of the same for a tensor on disk, in pieces; the axis has as much of it for each layer."""
    import numpy as np

    rows = math.prod(info.shape[:axis])
    row = info.nbytes // rows if rows else 0  # bytes that hold a part of each layer
    part = row // plan.depth
    if 0 < row <= _PIECE:
        for data in info.pieces(_PIECE // row * row):
            table = np.frombuffer(data, np.uint8).reshape(-1, plan.depth, part)
            yield table.take(plan.sources, axis=1).reshape(-1).data
        return
    for number in range(rows):
        for source in plan.sources:
            start = info.start + number * row + source * part
            yield from replace(info, start=start, end=start + part).pieces(_PIECE)


def same_depth(depth: int, plan: Plan) -> None:
    """Raises PlanError for a plan of another depth."""
    if depth != plan.depth:
        raise PlanError(Problem("plan.depth", str(plan.depth), f"{depth}, the model's number of layers"))


def place(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds a tensor, and what it is called there."""
    path, _, leaf = name.rpartition(".")
    return model.get_submodule(path), leaf
