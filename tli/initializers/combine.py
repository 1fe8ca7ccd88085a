"""Combines two layers tensor by tensor: mean, or slerp.

`tli.initializers.align` and `tli.initializers.predict` are two more ways of the same form, which look at
more than the one tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from tli.checkpoint.tensors import parts
from tli.errors import Problem
from tli.planning.plan import Plan

if TYPE_CHECKING:
    import numpy as np
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
    import torch

    below, above = (precise(read(layer, name)) for layer in pair)
    common = torch.promote_types(below.dtype, above.dtype)
    below, above = below.to(common), above.to(common)
    weights = arc_weights(zip(tensor_parts(below), tensor_parts(above), strict=True))
    if weights is None:
        return (below + above) / 2
    return below * weights[0] + above * weights[1]


def arc_weights(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float] | None:
    """What two vectors are multiplied with so that their sum is the middle of the arc between them.

    Of the vectors' parts side by side, as `tli.checkpoint.tensors.parts` makes them; None where it is the
    mean.
    """
    # Products in float32, as the vectors are; sums in float64 and always of the same parts, so that they do
    # not depend on where the numbers lie or how many threads there are.
    sums = [(_dot(below, below), _dot(above, above), _dot(below, above)) for below, above in pairs]
    below, above, both = (sum(column) for column in zip(*sums, strict=True)) if sums else (0.0, 0.0, 0.0)
    lengths = below**0.5, above**0.5
    if not all(0 < length < float("inf") for length in lengths):
        return None
    cosine = both / (lengths[0] * lengths[1])
    if abs(cosine) > _PARALLEL:
        return None
    # The sum of the unit vectors has this root as its length.
    stretch = sum(lengths) / 2 / (2 + 2 * cosine) ** 0.5
    return stretch / lengths[0], stretch / lengths[1]


def spread(values: Iterable[np.ndarray]) -> float:
    """The standard deviation of a tensor's numbers (of all there are, not an estimate from a sample).

    Of its parts, each in float64 and put together by Chan's rule; not a number where there are none.
    """
    import numpy as np

    count, mean_, squares = 0, 0.0, 0.0
    for value in values:
        wide = value.astype(np.float64)
        middle = float(wide.mean())
        wide -= middle
        wide *= wide
        difference, total = middle - mean_, count + len(wide)
        squares += float(wide.sum()) + difference**2 * count * len(wide) / total
        mean_ += difference * len(wide) / total
        count = total
    return float((squares / count) ** 0.5) if count else float("nan")


def tensor_parts(tensor: Tensor) -> Iterator[np.ndarray]:
    """The parts of a tensor in memory, on the CPU: what is summed there is the same on every device."""
    flat = tensor.reshape(-1)
    for start, end in parts(flat.numel()):
        yield flat[start:end].cpu().numpy()


def _dot(left: np.ndarray, right: np.ndarray) -> float:
    import numpy as np

    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return float((left * right).sum(dtype=np.float64))


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
