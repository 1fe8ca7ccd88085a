"""First weights computed in parts on disk: no whole tensor in memory, no torch.

`tli.initializers.initial` says by `Steps` how a tensor comes about, and does the same to models in memory
with torch. The operations are the same ones in the same order, each rounded as IEEE 754 says, so both give
the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING

from tli.checkpoint.header import TensorInfo
from tli.checkpoint.tensors import BLOCK, parts, read_parts, rounded, widened
from tli.initializers.combine import arc_weights, spread
from tli.initializers.normal import ROUGHNESS, Rough, normals, rough_normals

if TYPE_CHECKING:
    import numpy as np

_ROUNDING = 2.0**-21  # of a float32 that three operations made: more than they rounded
_KEPT = 2**22  # bytes
_LEAST = 2.0**-140  # the same of the smallest numbers
Infos = Callable[[int, str], TensorInfo]  # an old layer and the name of a tensor in it: where it is


class Start(Enum):
    """What the numbers of a tensor are before scale and noise."""

    SOURCE = "source"  # those of the layer that it is made from
    MEAN = "mean"  # of two layers
    ARC = "arc"  # its middle, between two layers
    CONSTANT = "constant"
    DRAWN = "drawn"  # from a normal distribution


@dataclass(frozen=True)
class Steps:
    """How one tensor of a new layer comes about, number by number, in at least float32.

    The start; one that is drawn or constant is rounded to the tensor's type. Then `(value + offset) * scale -
    offset`, where the scale is not 1; then normal noise, of `noise` times the deviation of what is there; and
    the result is rounded to the tensor's type.
    """

    start: Start
    source: int  # the old layer whose shape and type it has
    layers: tuple[int, ...] = ()  # the two that it lies between
    constant: float = 0.0
    deviation: float = 0.0  # of what is drawn
    seed: int = 0  # of it
    scale: float = 1.0
    offset: float = 0.0
    noise: float = 0.0
    noise_seed: int = 0


def first_pieces(steps: Steps, name: str, infos: Infos) -> Iterator[memoryview]:
    """The bytes of tensor `name` of a new layer, little-endian and row-major, in pieces one behind the other.

    Reads what it needs twice where lengths, angles or deviations have to be known first. Raises
    CheckpointError when a file is cut short.
    """
    import numpy as np

    _keep_freed_memory()
    info = infos(steps.source, name)
    pair = [infos(layer, name) for layer in steps.layers]
    weights = arc_weights(_side_by_side(*pair)) if steps.start is Start.ARC else None

    def values() -> Iterator[np.ndarray]:
        for value in _started(steps, info, pair, weights):
            yield value if steps.scale == 1 else _scaled(value, steps)

    # Rounding hides what rough numbers lack, if float32 is rounded to 16 bits.
    near = info.dtype in ("F16", "BF16") and info.count >= BLOCK and all(one.dtype != "F64" for one in pair)
    if steps.start is Start.DRAWN and steps.scale == 1 and steps.noise == 0 and near:
        for part in rough_normals(steps.seed, info.count):
            yield _rough(np.zeros_like(part.values), part, (steps.deviation,), info)
    elif steps.noise > 0:
        factors = spread(values()), steps.noise
        if near and math.prod(factors) > 0:  # without any noise, exact numbers give the signs of zeros
            for value, part in zip(values(), rough_normals(steps.noise_seed, info.count), strict=True):
                yield _rough(value, part, factors, info)
            return
        for value, drawn in zip(values(), normals(steps.noise_seed, info.count), strict=True):
            yield _stored(_noised(value, drawn, factors), info)
    else:
        for value in values():
            yield _stored(value, info)


def _stored(value: np.ndarray, info: TensorInfo) -> memoryview:
    return rounded(value, info.dtype).view("u1").data


def _started(
    steps: Steps, info: TensorInfo, pair: Sequence[TensorInfo], weights: tuple[float, float] | None
) -> Iterator[np.ndarray]:
    """The parts of what the init alone gives; each is new."""
    import numpy as np

    if steps.start is Start.SOURCE:
        yield from read_parts(info)
    elif steps.start is Start.CONSTANT:
        constant = widened(rounded(np.full(1, steps.constant, _type(info)), info.dtype))[0]
        for start, end in parts(info.count):
            yield np.full(end - start, constant)
    elif steps.start is Start.DRAWN:
        further = steps.scale != 1 or steps.noise > 0
        for part in normals(steps.seed, info.count, steps.deviation):
            value = part.astype(_type(info), copy=False)
            yield widened(rounded(value, info.dtype)) if further else value
    else:
        for below, above in _side_by_side(*pair):
            yield _between(below, above, weights)


def _side_by_side(one: TensorInfo, other: TensorInfo) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The parts of two tensors; of one type, where theirs differ."""
    import numpy as np

    for below, above in zip(read_parts(one), read_parts(other), strict=True):
        common = np.result_type(below, above)
        yield below.astype(common, copy=False), above.astype(common, copy=False)


def _type(info: TensorInfo) -> str:
    """The type that arithmetic on a tensor is done in."""
    return "f8" if info.dtype == "F64" else "f4"


def _between(below: np.ndarray, above: np.ndarray, weights: tuple[float, float] | None) -> np.ndarray:
    import numpy as np

    with np.errstate(all="ignore"):
        if weights is not None:
            below *= weights[0]
            above *= weights[1]
        below += above
        if weights is None:
            below *= 0.5  # exactly what a division by 2 gives
    return below


def _scaled(value: np.ndarray, steps: Steps) -> np.ndarray:
    import numpy as np

    with np.errstate(all="ignore"):
        value += steps.offset
        value *= steps.scale
        value -= steps.offset
    return value


def _noised(value: np.ndarray, drawn: np.ndarray, factors: Sequence[float]) -> np.ndarray:
    """A new array: what is drawn times one factor after the other, added to the value."""
    import numpy as np

    with np.errstate(all="ignore"):
        noise = drawn.astype(value.dtype)
        for factor in factors:
            noise *= factor
        noise += value
    return noise


def _rough(value: np.ndarray, part: Rough, factors: Sequence[float], info: TensorInfo) -> memoryview:
    """The same rounded to 16 bits, as exact numbers would be.

    Those that round alike from below and above all that they may be are right; of the others, which are less
    than one in a hundred, the exact number is asked for.
    """
    import numpy as np

    noised = _noised(value, part.values, factors)
    with np.errstate(all="ignore"):
        margin = np.abs(noised)
        margin *= _ROUNDING
        margin += (ROUGHNESS + 4 * _ROUNDING) * math.prod(factors) + _LEAST
        stored, other = _bits(noised - margin, info), _bits(np.add(noised, margin, out=noised), info)
    unsure = stored != other
    if not np.isfinite(margin).all():
        unsure |= ~np.isfinite(margin)
    places = unsure.nonzero()[0]
    if len(places):
        right = _noised(value[places], part.exact(places), factors)
        stored[places] = rounded(right, info.dtype).view("u2")
    return stored.view("u1").data


def _bits(values: np.ndarray, info: TensorInfo) -> np.ndarray:
    """Numbers rounded to 16 bits, as integers, of two equally near to either; `values` are lost."""
    import numpy as np

    if info.dtype == "F16":
        return rounded(values, info.dtype).view(np.uint16)
    bits = values.view(np.uint32)
    bits += 0x8000
    bits >>= 16
    return bits.astype(np.uint16)


@cache
def _keep_freed_memory() -> None:
    """Has the C library keep what is freed for the next part; asking the system anew takes longer than a sum.

    That of GNU takes the size of what was freed last for the size from which on it asks the system.
    """
    import numpy as np

    np.empty(_KEPT, np.uint8)
