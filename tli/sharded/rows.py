"""Rows of a tensor by rank, as FSDP divides them; and a tensor put together from everyone's rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from tli.sharded.processes import Group
from tli.training.ranks import Ranks


def own_rows(count: int, ranks: Ranks) -> tuple[int, int]:
    """First row of a rank and the one behind its last, of `count`; the last ranks may have fewer, or none."""
    each = -(-count // ranks.size)
    return min(count, ranks.rank * each), min(count, (ranks.rank + 1) * each)


@dataclass(frozen=True)
class Rows:
    """A tensor of which each rank holds its rows: `local`, of a whole of shape `shape`.

    Rows may be kept in bfloat16, on all ranks alike, and then stand for numbers in float32.
    """

    local: Tensor
    shape: tuple[int, ...]

    @property
    def wide(self) -> Tensor:
        """The rows in float32."""
        return self.local.float() if self.local.dtype == torch.bfloat16 else self.local

    def whole(self, group: Group) -> Tensor:
        """All of it in float32, on this rank's device; called by every rank."""
        return Rows(sharded(self.local, self.shape, group).full_tensor(), self.shape).wide


def sharded(local: Tensor, shape: Sequence[int], group: Group) -> DTensor:
    """The distributed tensor that everyone's rows make; shares the memory of `local`."""
    mesh = group.host_mesh if local.device.type == "cpu" else group.mesh
    stride = torch.empty(tuple(shape), device="meta").stride()
    return DTensor.from_local(
        local, mesh, [Shard(0)], run_check=False, shape=torch.Size(shape), stride=stride
    )


def own_part(whole: Tensor, ranks: Ranks) -> Tensor:
    """This rank's rows of a whole tensor; a view."""
    low, high = own_rows(whole.shape[0], ranks)
    return whole[low:high]


def local_of(tensor: Tensor) -> Tensor:
    """This rank's rows of a parameter, to be read and written in place."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shape_problem(name: str, tensor: Tensor) -> str | None:
    """Why a tensor has no rows to divide; None where it has."""
    return f"{name}, a weight that is a single number" if tensor.dim() == 0 else None
