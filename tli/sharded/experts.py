"""Experts from dense feed-forward parts that stay sharded: every rank makes its own experts.

The dense matrices of a layer are gathered one after the other; the numbers are those of
`tli.initializers.upcycle`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tli.architectures.lookup import family_of
from tli.architectures.mixtures import DENSE, FUSED
from tli.initializers.layers import split
from tli.initializers.upcycle import Upcycling, empty_mixture
from tli.sharded.processes import Group
from tli.sharded.rows import Rows, local_of, own_part, own_rows
from tli.sharded.wrapping import Frozen, common_rows, rows_of_weights, set_buffers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def with_experts(
    dense: PreTrainedModel,
    rows: Mapping[str, Rows],
    upcycling: Upcycling,
    group: Group,
    precision: str,
    frozen: Frozen | None,
) -> PreTrainedModel:
    """A model under FSDP with experts in every layer, of a dense one whose rows lie on the ranks.

    `dense` gives class, configuration and buffers alone; `frozen` weights are the dense one's own rows.
    Raises FamilyError where it is of another class.
    """
    family, shared = family_of(upcycling.mixture.model_type), common_rows(frozen, rows.get, precision)
    model = rows_of_weights(lambda: empty_mixture(dense, upcycling), family, group, precision, shared)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        local = local_of(parameter)
        if name in rows:
            local.copy_(rows[name].local)
            continue
        position, rest = split(family.layers, name)
        assert position is not None, "what a mixture has more is in its layers"
        _fill(
            local,
            tuple(parameter.shape),
            rest,
            _Layer(f"{family.layers}.{position}", position, rows, group),
            upcycling,
        )
    buffers = dict(dense.named_buffers(remove_duplicate=False))
    set_buffers(model, buffers.__getitem__, group.device)
    return model


class _Layer:
    """The dense matrices of one layer, gathered when they are asked for."""

    def __init__(self, prefix: str, position: int, rows: Mapping[str, Rows], group: Group) -> None:
        self.position, self.group = position, group
        self._rows = {kind: rows[f"{prefix}.{name}"] for name, kind in DENSE.items()}

    def whole(self, kind: str) -> Tensor:
        return self._rows[kind].whole(self.group)

    @property
    def hidden(self) -> int:
        return self._rows["down"].shape[0]


def _fill(local: Tensor, shape: tuple[int, ...], rest: str, layer: _Layer, upcycling: Upcycling) -> None:
    """Set this rank's rows of a tensor that the dense model has none of, by its name in the layer."""
    if rest == FUSED["router"]:
        drawn = torch.from_numpy(upcycling.router(layer.position, layer.hidden))
        local.copy_(own_part(drawn, layer.group.ranks))
    elif rest == FUSED["gate_up"]:
        width = shape[1] // 2
        _experts(local[:, :width], "gate", layer, upcycling, shape[0])
        _experts(local[:, width:], "up", layer, upcycling, shape[0])
    elif rest == FUSED["down"]:
        _experts(local, "down", layer, upcycling, shape[0])
    else:
        assert rest in upcycling.mixture.shared_tensors(layer.hidden), f"{rest} is of no mixture"
        local.zero_()


def _experts(local: Tensor, kind: str, layer: _Layer, upcycling: Upcycling, count: int) -> None:
    """Set this rank's parts of experts, of `count` in all; each part is a row of the fused tensor."""
    dense = layer.whole(kind)
    low, high = own_rows(count, layer.group.ranks)
    granularity = upcycling.experts.granularity
    for expert in range(low // granularity, -(-high // granularity)):
        matrix = upcycling.matrix(layer.position, kind, expert, dense)
        for part in range(granularity):
            row = expert * granularity + part
            if low <= row < high:
                local[row - low].copy_(upcycling.part(kind, part, matrix))
