"""The first weights of a new layer, tensor by tensor, from the layers beside it.

copy      the layer before, as it is
identity  the same, with everything that writes to the residual stream at zero: the model computes what it did
damped    the same, with everything that writes to the residual stream times the plan's `scale`
mean      the average of the layers before and after (`Plan.neighbours`)
random    as the architecture starts its training: matrices from a normal distribution of the deviation in the
          config, gains one, biases zero

Which of these touches a tensor is known without torch (`way`), so the copy path never loads it; the
arithmetic (`first_values`) is shared by models in memory and on disk, so both give the same numbers. It is
done in float32 (float64 for float64 weights) and rounded once to the tensor's own type.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from tli.families import Family
from tli.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor


class Way(Enum):
    """How one tensor of a new layer comes about."""

    COPY = "copy"
    ZEROS = "zeros"
    SCALED = "scaled"
    MEAN = "mean"
    DRAWN = "drawn"


@dataclass(frozen=True)
class Initial:
    """All that decides the new layers of one model besides the weights that are there."""

    plan: Plan
    family: Family
    seed: int
    deviation: float  # standard deviation of freshly drawn matrices

    @classmethod
    def of(cls, plan: Plan, family: Family, config: Mapping[str, Any], seed: int) -> Initial:
        """With the deviation that `config` (as in config.json) names; 0.02, as in transformers, when none."""
        deviation = config.get("initializer_range") or config.get("init_std") or 0.02
        return cls(plan, family, seed, float(deviation))

    def way(self, name: str, *, floating: bool = True) -> Way:
        """How tensor `name` of a new layer (`mlp.down_proj.weight`) is made; integers are always copied."""
        if self.family.is_buffer(name) or not floating:
            return Way.COPY
        init = self.plan.init
        if init in ("mean", "random"):
            return Way.MEAN if init == "mean" else Way.DRAWN
        if init == "copy" or not self.family.writes_residual(name):
            return Way.COPY
        scale = 0.0 if init == "identity" else self.plan.scale
        return {0.0: Way.ZEROS, 1.0: Way.COPY}.get(scale, Way.SCALED)

    def first_values(self, position: int, name: str, read: Callable[[int], Tensor]) -> Tensor:
        """Tensor `name` of the new layer at `position`; `read(layer)` gives that tensor of an old layer.

        Returns a new tensor of the shape, type and device of the old ones.
        """
        import torch

        old = read(self.plan.sources[position])
        way = self.way(name, floating=old.is_floating_point())
        if way is Way.COPY:
            return old.clone()
        if way is Way.ZEROS:
            return torch.zeros_like(old)
        if way is Way.DRAWN:
            return self._drawn(position, name, old)
        precise = torch.promote_types(old.dtype, torch.float32)
        if way is Way.SCALED:
            return (old.to(precise) * self.plan.scale).to(old.dtype)
        before, after = (read(layer).to(precise) for layer in self.plan.neighbours(position))
        return ((before + after) / 2).to(old.dtype)

    def _drawn(self, position: int, name: str, like: Tensor) -> Tensor:
        import torch

        if name.endswith("bias"):
            return torch.zeros_like(like)
        if like.dim() < 2:  # the gain of a norm
            return torch.ones_like(like)
        deviation = self.deviation
        if self.family.drawn_by_depth and self.family.writes_residual(name):
            deviation /= (2 * self.plan.new_depth) ** 0.5
        # On the CPU whatever the device, and seeded for each tensor: the order of drawing does not matter.
        key = hashlib.sha256(f"{self.seed}/{position}/{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(key[:8], "little") >> 1)
        drawn = torch.empty(like.shape, dtype=torch.float32).normal_(0.0, deviation, generator=generator)
        return drawn.to(device=like.device, dtype=like.dtype)
