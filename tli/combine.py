"""Two old layers made into one, tensor by tensor: their mean, or the middle of the arc between them.

`tli.align` and `tli.predict` are two more ways of the same form, which look at more than the one tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from tli.errors import Problem
from tli.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor

Read = Callable[[int, str], "Tensor"]  # an old layer and the name of a tensor in it
Combine = Callable[[tuple[int, int], str, Read], "Tensor"]  # two old layers, a name: in at least float32
Layout = Sequence[Mapping[str, tuple[int, ...]]]  # of every old layer, the shapes of its weights by name

_PARALLEL = 0.9995  # cosine from which there is no arc to speak of, as in mergekit
_NAMED = 3  # names that one message lists


def precise(tensor: Tensor) -> Tensor:
    """The same numbers in float32, or in float64 where they are that already."""
    import torch

    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def mean(pair: tuple[int, int], name: str, read: Read) -> Tensor:
    """The average of a tensor of two layers."""
    below, above = (precise(read(layer, name)) for layer in pair)
    return (below + above) / 2


def slerp(pair: tuple[int, int], name: str, read: Read) -> Tensor:
    """The middle of the great arc between a tensor of two layers, each taken as one vector.

    The direction is that of the sum of the two unit vectors, the length the mean of the two lengths; so what
    comes out is not shorter than what goes in, as a mean is. (mergekit interpolates the vectors with their
    lengths; both agree where the lengths are equal.) Where the cosine of the vectors is above 0.9995 or below
    -0.9995, or one is zero, it is the mean. Tensors of one dimension are treated alike.
    """
    below, above = (precise(read(layer, name)) for layer in pair)
    # In float64, whose sums do not depend on how the numbers lie in memory by as much as float32 shows.
    lengths = [_dot(tensor, tensor) ** 0.5 for tensor in (below, above)]
    if not all(0 < length < float("inf") for length in lengths):
        return (below + above) / 2
    cosine = _dot(below, above) / (lengths[0] * lengths[1])
    if abs(cosine) > _PARALLEL:
        return (below + above) / 2
    stretch = (
        sum(lengths) / 2 / (2 + 2 * cosine) ** 0.5
    )  # the sum of the unit vectors has this root as length
    return below * (stretch / lengths[0]) + above * (stretch / lengths[1])


def _dot(left: Tensor, right: Tensor) -> float:
    import torch

    return float((left * right).sum(dtype=torch.float64))


def neighbour_problems(plan: Plan, layout: Layout, where: str = "injection.init") -> list[Problem]:
    """New layers whose source and neighbours do not hold the same tensors, so there is nothing to combine."""
    places = [(*plan.neighbours(position), plan.sources[position]) for position in plan.injected]
    pairs = {(min(source, end), max(source, end)) for *ends, source in places for end in ends}
    return [
        Problem(
            where,
            f"{plan.injection.init} of layers {one} and {other}: {_difference(layout, one, other)}",
            "layers that hold the same tensors",
            "copy",
        )
        for one, other in sorted(pairs)
        if layout[one] != layout[other]
    ]


def _difference(layout: Layout, one: int, other: int) -> str:
    left, right = layout[one], layout[other]
    parts = []
    for layer, names in ((one, left.keys() - right.keys()), (other, right.keys() - left.keys())):
        if names:
            more = ", ..." if len(names) > _NAMED else ""
            parts.append(f"only {layer} has {', '.join(sorted(names)[:_NAMED])}{more}")
    if not parts:
        name = min(name for name in left if left[name] != right[name])
        parts.append(f"{name} has shapes {list(left[name])} and {list(right[name])}")
    return "; ".join(parts)
