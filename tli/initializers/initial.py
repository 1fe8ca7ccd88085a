"""The first weights of a new layer, tensor by tensor, from the layers beside it.

copy      the layer that it is made from, as it is
identity  the same, with all that it adds to the residual stream at zero: the model computes what it did
damped    the same, with all that it adds times the plan's residual scale
mean      the average of the layers before and after (`Plan.neighbours`)
slerp     the middle of the arc between them instead (`tli.initializers.combine`)
aligned   their mean, heads and neurons in the order of the lower layer's (`tli.initializers.align`)
predicted what the other layers tell of the layer between two (`tli.initializers.predict`)
random    as the architecture starts its training: matrices from a normal distribution of the deviation in the
          config, gains one, biases zero

A tensor is one of the model's files, under its name there, in memory as well (`tli.growth.stored`).

A residual scale other than 1 and noise act on top of any of them. Which tensors of a layer are touched is
known without torch (`init_kind`), so the copy path never loads it. What is made number by number is described
once (`steps`) and done twice: in memory with torch (`initialize`), on disk part by part with numpy
(`tli.initializers.elementwise`), with the same results. Aligned and predicted layers take torch in both.
The arithmetic is done in float32 (float64 for float64 weights) and rounded once to the tensor's own type. A
new layer between two that do not hold the same tensors cannot be made from both, and is refused before
anything is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from tli.architectures.family import Family
from tli.errors import FamilyError, Problem
from tli.initializers.align import Aligned
from tli.initializers.combine import (
    Combine,
    Layout,
    Read,
    mean,
    neighbour_problems,
    precise,
    slerp,
    spread,
    tensor_parts,
)
from tli.initializers.elementwise import Start, Steps
from tli.initializers.normal import normal_tensor
from tli.initializers.predict import Predicted
from tli.planning.injection import Injection
from tli.planning.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor

_BETWEEN = ("mean", "slerp", "aligned", "predicted")  # inits that make a layer from two


class InitKind(Enum):
    """How one tensor of a new layer comes about."""

    COPY = "copy"
    ZEROS = "zeros"
    COMPUTED = "computed"


@dataclass(frozen=True)
class Initial:
    """All that decides the new layers of one model besides the weights that are there."""

    plan: Plan
    family: Family
    seed: int
    deviation: float  # standard deviation of freshly drawn matrices
    normed: bool  # whether norms follow the sublayers: some architectures leave that to the configuration
    combine: Combine = mean  # of two neighbours

    @classmethod
    def of(cls, plan: Plan, family: Family, config: Mapping[str, Any], seed: int, layout: Layout) -> Initial:
        """With what `config` (as in config.json) and the weights of every old layer say.

        The deviation is that of the class in transformers where the config names none. Raises FamilyError
        where the layers cannot be combined, scaled or drawn as the plan wants it.
        """
        named = config.get("initializer_range") or config.get("init_std")
        deviation = named or family.deviation or 0.0
        normed = any(family.is_gain(name) for names in layout for name in names)
        initial = cls(plan, family, seed, float(deviation), normed)
        problems = scale_problems(plan.injection, family) if plan.injected else []
        if plan.injected and plan.injection.init == "random" and deviation == 0:
            got = f"none, and {family.model_type} calculates it from other settings"
            expected = "the standard deviation that random weights are drawn with"
            problems.append(Problem("config.json: initializer_range", got, expected))
        if plan.injected and initial.uses_two_layers:
            ways: dict[str | None, Combine] = {
                "slerp": slerp,
                "aligned": Aligned(config, layout),
                "predicted": Predicted(layout),
            }
            combine = ways.get(plan.injection.init, mean)
            problems += neighbour_problems(plan, layout)
            if isinstance(combine, Aligned | Predicted):
                problems += combine.problems({plan.sources[position] for position in plan.injected})
            initial = replace(initial, combine=combine)
        if problems:
            raise FamilyError(*problems)
        return initial

    @property
    def uses_two_layers(self) -> bool:
        """Whether a new layer is made from two old ones."""
        injection = self.plan.injection
        return bool(self.plan.injected) and (injection.source == "both" or injection.init in _BETWEEN)

    def init_kind(self, name: str, *, floating: bool = True) -> InitKind:
        """How tensor `name` of a new layer (`mlp.down_proj.weight`) is made; integers are always copied."""
        if self.family.is_buffer(name) or not floating:
            return InitKind.COPY
        injection = self.plan.injection
        if self._scaled(name) and injection.scale == 0:
            return InitKind.COMPUTED if self.family.offset(name) else InitKind.ZEROS
        made = self.uses_two_layers or injection.init == "random" or injection.noise > 0
        return InitKind.COMPUTED if made or (self._scaled(name) and injection.scale != 1) else InitKind.COPY

    @property
    def elementwise(self) -> bool:
        """Whether each number of a new layer comes from the numbers at its place alone, as `steps` says."""
        return not isinstance(self.combine, Aligned | Predicted)

    def steps(self, position: int, name: str, dims: int) -> Steps:
        """How tensor `name`, of `dims` dimensions, of the new layer at `position` comes about elementwise."""
        injection, source = self.plan.injection, self.plan.sources[position]
        scaled = self._scaled(name)
        steps = Steps(
            Start.SOURCE,
            source,
            scale=self.plan.scale(position) if scaled else 1.0,
            offset=self.family.offset(name) if scaled else 0.0,
            noise=injection.noise if dims > 1 else 0.0,
            noise_seed=self._seed_of(position, name, "noise"),
        )
        if injection.init == "random":
            return self._drawn(steps, position, name, dims)
        if self.uses_two_layers:
            start = Start.ARC if self.combine is slerp else Start.MEAN
            return replace(steps, start=start, layers=self.plan.neighbours(position))
        return steps

    def initialize(self, position: int, name: str, read: Read) -> Tensor:
        """Tensor `name` of the new layer at `position`; `read(layer, name)` gives a tensor of an old layer.

        Returns a new tensor of the shape, type and device of the old ones.
        """
        import torch

        old = read(self.plan.sources[position], name)
        kind = self.init_kind(name, floating=old.is_floating_point())
        if kind is InitKind.COPY:
            return old.clone()
        if kind is InitKind.ZEROS:
            return torch.zeros_like(old)
        steps = self.steps(position, name, old.dim())
        value = self._started(position, name, old, read, steps)
        if steps.scale != 1:
            value = (value + steps.offset) * steps.scale - steps.offset
        if steps.noise > 0:
            drawn = normal_tensor(old.shape, steps.noise_seed).to(value)
            value = value + drawn * spread(tensor_parts(value)) * steps.noise
        return value.to(old.dtype)

    def _started(self, position: int, name: str, old: Tensor, read: Read, steps: Steps) -> Tensor:
        """What the init alone gives, in at least float32."""
        import torch

        if steps.start is Start.SOURCE:
            return precise(old)
        if steps.start is Start.CONSTANT:
            return precise(torch.full_like(old, steps.constant))
        if steps.start is Start.DRAWN:
            return precise(normal_tensor(old.shape, steps.seed, steps.deviation).to(old))
        return self.combine(self.plan.neighbours(position), name, read)

    def _drawn(self, steps: Steps, position: int, name: str, dims: int) -> Steps:
        """The same, with a start as the architecture has it."""
        if name.endswith("bias"):
            return replace(steps, start=Start.CONSTANT)
        if dims < 2:
            # Rates and time constants of state spaces have starts of their own: the source's will do.
            if not self.family.is_norm(name):
                return steps
            return replace(steps, start=Start.CONSTANT, constant=1.0 - self.family.offset(name))
        deviation = self.deviation
        if self.family.drawn_by_depth and self.family.writes_residual(name):
            deviation /= (2 * self.plan.new_depth) ** 0.5
        return replace(steps, start=Start.DRAWN, deviation=deviation, seed=self._seed_of(position, name))

    def _seed_of(self, position: int, name: str, use: str = "") -> int:
        """A seed for each tensor: their order does not matter."""
        key = hashlib.sha256(f"{self.seed}/{position}/{name}{use and '/' + use}".encode()).digest()
        return int.from_bytes(key[:8], "little") >> 1

    def _scaled(self, name: str) -> bool:
        """Whether the residual scale acts on a tensor.

        Where a norm follows a sublayer it undoes a scale of what it norms, so there the gain is scaled; only
        zero may stand before the norm instead.
        """
        injection = self.plan.injection
        by_output = injection.scale == 0 and injection.identity == "zero-output"
        if self.normed and not by_output:
            return self.family.is_gain(name) or self.family.is_multiplier(name)
        return self.family.writes_residual(name) or self.family.is_multiplier(name)


def scale_problems(injection: Injection, family: Family, where: str = "injection") -> list[Problem]:
    """Why a residual scale, resolved, cannot be had of an architecture; none where it can."""
    scale, init = injection.scale, injection.init
    if family.no_scale and scale != 1:
        got = f"{init!r} for {family.model_type} ({family.no_scale})"
        return [Problem(f"{where}.init", got, "a residual scale of 1", "copy")]
    if family.only_zero and (scale not in (0, 1) or (scale == 0 and injection.identity == "zero-gain")):
        setting = "identity" if scale == 0 else "init"
        got = f"{getattr(injection, setting)!r} for {family.model_type} ({family.only_zero})"
        return [
            Problem(f"{where}.{setting}", got, "identity by zero-output, or a residual scale of 1", "copy")
        ]
    return []
