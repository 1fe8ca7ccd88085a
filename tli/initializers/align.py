"""Aligned mean: the upper layer's heads and neurons are permuted to match the lower's, then averaged.

A layer computes the same whatever the order of its feed-forward neurons, of its groups of heads that share
keys and values, and of the query heads within a group: as long as all that belongs to one moves together. So
the tensors of two layers may be far apart only because the order differs, and their plain mean then mixes
what has nothing to do with each other. After OTFusion (arXiv 1910.05653) and OpT-DeUS (arXiv 2508.08011),
with whole permutations instead of a transport plan: an average over several heads would not be a head, as
rotary positions turn each pair of numbers in it by its own angle.

The order is the one in which all tensors together are nearest to the lower layer's, by the sum of squared
differences: exact for heads, for neurons within n / 64 deviations of the best
(`tli.initializers.assignment.near`). A layer with hidden size 4,096 and 14,336 neurons takes 1.3 GB at most
(the table of likenesses, 822 MB, and a tensor of both layers) and 5 TFLOP, once for every two layers; what
is kept is the order, 0.1 MB. It is found on the CPU wherever the model is, so that in memory and on disk it
is the same.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tli.architectures.roles import Orders, Side, Unit, sides
from tli.errors import Problem
from tli.initializers.combine import Layout, Read, precise

if TYPE_CHECKING:
    from torch import Tensor


class Aligned:
    """Means of aligned layers. The order for two layers is found when first asked for, and then kept.

    `layout` has the shapes of the weights of every old layer, `config` (as config.json) the number of heads.
    """

    def __init__(self, config: Mapping[str, Any], layout: Layout) -> None:
        self._config, self._layout = config, layout
        self._orders: dict[tuple[int, int], Orders] = {}
        self._lock = threading.Lock()  # shards may be written side by side; the table is there once

    def problems(self, sources: set[int]) -> list[Problem]:
        """The reason why it is not known what heads and neurons are in layers that new ones are made from."""
        answers = (sides(self._config, self._layout[source]) for source in sorted(sources))
        reason = next((found for found in answers if isinstance(found, str)), None)
        if reason is None:
            return []
        return [Problem("injection.init", f"aligned ({reason})", "an init that looks at no heads", "mean")]

    def __call__(self, pair: tuple[int, int], name: str, read: Read) -> Tensor:
        """The mean of a tensor of two layers, the upper one's in the order of the lower one's."""
        below, above = (precise(read(layer, name)) for layer in pair)
        known = self._known(pair[0])
        if name in known:
            above = known[name].ordered(above, self.orders(pair, read))
        return (below + above) / 2

    def orders(self, pair: tuple[int, int], read: Read) -> Orders:
        """Where the units of the upper of two layers belong."""
        with self._lock:
            if pair not in self._orders:
                self._orders[pair] = _found(self._known(pair[0]), pair, read)
            return self._orders[pair]

    def _known(self, layer: int) -> dict[str, Side]:
        found = sides(self._config, self._layout[layer])
        assert not isinstance(found, str), "there were no problems"
        return found


def _found(known: Mapping[str, Side], pair: tuple[int, int], read: Read) -> Orders:
    from tli.initializers.assignment import near

    likeness: dict[Unit, Tensor] = {}
    for name, side in sorted(known.items()):
        _add(likeness, side, *(read(layer, name) for layer in pair))
    queries, groups = _heads(likeness["query"], likeness.get("group"))
    return {"query": queries, "group": groups, "neuron": near(likeness["neuron"])}


def _add(likeness: dict[Unit, Tensor], side: Side, below: Tensor, above: Tensor) -> None:
    """Adds the inner products of the units of two tensors. The squared difference is smallest where their sum
    is largest, as the order does not change a norm.
    """
    import torch

    # Fresh memory: how matrix products round may depend on where a tensor begins in a file.
    left, right = (
        tensor.to(device="cpu", dtype=torch.float32, copy=True).contiguous() for tensor in (below, above)
    )
    for (unit, one), (_, other) in zip(side.units(left), side.units(right), strict=True):
        if unit in likeness:
            likeness[unit].addmm_(one, other.T)
        else:
            likeness[unit] = one @ other.T


def _heads(query: Tensor, group: Tensor | None) -> tuple[Tensor, Tensor]:
    """The orders of query heads and of groups: groups by what is best within them, then heads within each."""
    import numpy as np
    import torch

    from tli.initializers.assignment import exact

    count = len(query if group is None else group)
    heads = len(query) // count
    if not query.isfinite().all() or not (group is None or group.isfinite().all()):
        return torch.arange(len(query)), torch.arange(count)
    blocks = query.double().numpy().reshape(count, heads, count, heads).swapaxes(1, 2)
    within = np.array([[exact(block) for block in row] for row in blocks])
    best = np.take_along_axis(blocks, within[..., None], axis=-1).sum((-2, -1))
    groups = exact(best if group is None else best + group.double().numpy())
    queries = groups[:, None] * heads + within[np.arange(count), groups]
    return torch.from_numpy(queries.flatten()), torch.from_numpy(groups)
