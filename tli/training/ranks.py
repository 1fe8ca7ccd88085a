"""The processes that hold one model together, as the loop sees them: rows of a batch, sums over all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tli.errors import Problem

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Ranks:
    """One of `size` processes, numbered `rank`, that hold a model together; alone by default.

    With more than one, torch's default process group is there and has a backend for CPU tensors; every method
    that sums is called by all of them in the same order.
    """

    rank: int = 0
    size: int = 1

    def share(self, rows: Tensor) -> Tensor:
        """This rank's part of the rows of a batch, which the ranks divide."""
        return rows if self.size == 1 else rows.chunk(self.size)[self.rank]

    def total(self, value: float) -> float:
        """The sum of every rank's number, in float64 and the same on all."""
        if self.size == 1:
            return value
        import torch
        from torch import distributed

        summed = torch.tensor(value, dtype=torch.float64)
        distributed.all_reduce(summed)
        return float(summed)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of every rank's number, on its device; not waited for."""
        if self.size == 1:
            return value
        from torch import distributed

        summed = value.clone()
        distributed.all_reduce(summed)
        return summed / self.size


ALONE = Ranks()


def ranks_of(model: nn.Module) -> Ranks:
    """This process among those that hold a model together (`tli.sharded`); alone where it has all of it."""
    mesh = getattr(next(model.parameters(), None), "device_mesh", None)
    return Ranks() if mesh is None else Ranks(mesh.get_local_rank(), mesh.size())


def rows_problems(
    rows: int, sequence_length: int, ranks: Ranks, where: str = "recipe.batch_tokens"
) -> list[Problem]:
    """Whether the rows of a batch are as many for every rank."""
    if rows % ranks.size == 0:
        return []
    got = f"{rows * sequence_length} tokens, {rows} rows of {sequence_length}"
    fits = -(-rows // ranks.size) * ranks.size * sequence_length
    return [Problem(where, got, f"as many rows for each of {ranks.size} ranks", str(fits))]


def whole_norm(norm: Tensor) -> Tensor:
    """A norm over all ranks, where it was left as the norms of their rows."""
    gather = getattr(norm, "full_tensor", None)
    found: Tensor = norm if gather is None else gather()
    return found
