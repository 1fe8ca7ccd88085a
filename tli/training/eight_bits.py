"""AdamW with moments in 8 bits a value (torchao's), the same for one process and for any number of ranks.

Values that lie in a row together are kept as codes with one scale a block. Blocks end with the rows, which
ranks divide: codes and scales are then those of one process, and a state fits every number of ranks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_LEAST = 4096  # values of a tensor that are worth codes
_BLOCK, _SMALLEST = 256, 32  # values that have a scale in common


def block_of(shape: Sequence[int]) -> int | None:
    """Values that have a scale in common in the moments of a parameter; None where these stay in float32.

    Args:
        shape: of the whole parameter.

    Returns:
        The largest divisor of the values in a row, of at most 256. Small parameters stay in float32, and so
        do those whose rows have no such divisor of at least 32.
    """
    row = math.prod(shape[1:])
    if row * (shape[0] if shape else 1) < _LEAST:
        return None
    return next((size for size in range(min(_BLOCK, row), _SMALLEST - 1, -1) if row % size == 0), None)


def moment_bytes(shape: Sequence[int]) -> float:
    """Bytes that one moment takes for each value of a parameter: a code and its share of a scale, or 4."""
    block = block_of(shape)
    return 4.0 if block is None else 1 + 4 / block


def adamw_in_8_bits(
    settings: list[dict[str, Any]], *, betas: tuple[float, float], epsilon: float, device: str
) -> torch.optim.Optimizer:
    """The optimizer of groups of parameters, whole ones or shards. Its step is compiled, but for a CPU, which
    saves less than that takes.

    Args:
        settings: a dict a group, as torch's optimizers take them.
        betas: decay of both moments.
        epsilon: added to the root of the second.
        device: the kind of device that the parameters are on.
    """
    made: torch.optim.Optimizer = _kind(eager=device == "cpu")(settings, betas=betas, eps=epsilon)
    return made


@cache
def _kind(*, eager: bool) -> Any:
    """The class, which takes its time to load."""
    import torch
    from torch.distributed.tensor import DTensor
    from torchao.optim import AdamW8bit

    base: Any = AdamW8bit

    class RowsIn8Bits(base):  # type: ignore[misc] # torchao is not typed
        def _new_buffer(self, p: Any, signed: bool) -> Any:  # noqa: FBT001 - torchao's
            """Room for a moment of a parameter, all 0; this rank's rows of it under FSDP."""
            sharded = isinstance(p, DTensor)
            local, block = p.to_local() if sharded else p, block_of(p.shape)
            if block is None or not local.numel():
                made = torch.zeros_like(local)
            else:
                made = self._subclass_zeros(local, signed, block)
            if not sharded:
                return made
            return DTensor.from_local(
                made, p.device_mesh, p.placements, run_check=False, shape=p.shape, stride=p.stride()
            )

        def step(self, closure: Any = None) -> Any:
            if not eager:
                return super().step(closure)
            with torch.compiler.set_stance("force_eager"):
                return super().step(closure)

    return RowsIn8Bits
