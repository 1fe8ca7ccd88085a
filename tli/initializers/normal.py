"""Normal random numbers equal to torch's on the CPU, in parts and without torch.

What `torch.empty(count).normal_(0, deviation, generator=torch.Generator().manual_seed(seed))` gives, to the
last bit. torch draws by another way, and other last bits, where the processor lacks AVX2; this is always that
of AVX2 (`tli.initializers.box_muller`), so one seed means the same numbers on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from tli.checkpoint.tensors import BLOCK, PART, parts
from tli.initializers.box_muller import BITS, ROUGHNESS, Room, transform, transform_roughly

__all__ = ["ROUGHNESS", "Rough", "normal_tensor", "normals", "rough_normals"]

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

_AT_ONCE = 2**14  # numbers that the arithmetic is done on, so that it stays in a core's cache


def normals(seed: int, count: int, deviation: float = 1.0) -> Iterator[np.ndarray]:
    """Normal numbers in float32, in the parts that `tli.checkpoint.tensors.parts` makes of `count`.

    `seed` is what torch would be given, of which it takes the lower 32 bits. Each array is new.
    """
    import numpy as np

    if 0 < count < BLOCK:
        yield _few(_source(seed), count, deviation)
        return
    scale = np.float32(deviation)
    room = Room(min(_AT_ONCE, count) // BLOCK * BLOCK // 2)
    for size, uniform, last in _uniform(seed, count):
        part = np.empty(size, np.float32)
        for begin in range(0, len(uniform), _AT_ONCE):
            some = uniform[begin : begin + _AT_ONCE]
            room = room if len(some) == 2 * room.pairs else Room(len(some) // 2)
            transform(some, part[begin : begin + len(some)], room)
        if last is not None:
            transform(last, part[-BLOCK:], Room(BLOCK // 2))
        part *= scale
        part += np.float32(0)  # torch adds the mean, which makes a negative zero a zero
        yield part


@dataclass(frozen=True)
class Rough:
    """A part of the numbers, each at most `ROUGHNESS` off, for where that is near enough for nearly all.

    They come from numpy's own logarithm, sine and cosine, in half the time.
    """

    values: np.ndarray  # float32
    _uniform: np.ndarray
    _last: np.ndarray | None

    def exact(self, places: np.ndarray) -> np.ndarray:
        """The exact numbers at some places of the part, float32 of the shape of `places`."""
        import numpy as np

        behind = len(self.values) - BLOCK if self._last is not None else len(self.values)
        last = places >= behind
        # The pairs that the numbers belong to, put together anew as so many blocks.
        start, within = places // BLOCK * BLOCK, places % BLOCK
        start[last], within[last] = 0, places[last] - behind
        half = BLOCK // 2
        chosen = np.zeros((-(-len(places) // half), 2, half), np.uint32)
        for number in (0, 1):
            one = self._uniform[start + number * half + within % half] if len(self._uniform) else within
            if self._last is not None:
                one = np.where(last, self._last[number * half + within % half], one)
            table = np.zeros(chosen.shape[0] * half, np.uint32)
            table[: len(places)] = one
            chosen[:, number] = table.reshape(-1, half)
        out = np.empty(chosen.size, np.float32)
        transform(chosen.reshape(-1), out, Room(chosen.size // 2))
        cosines, sines = out.reshape(-1, 2, half).swapaxes(0, 1).reshape(2, -1)[:, : len(places)]
        drawn: np.ndarray = np.where(within < half, cosines, sines) + np.float32(0)
        return drawn


def rough_normals(seed: int, count: int) -> Iterator[Rough]:
    """What `normals` gives for a deviation of 1 and at least a block, in the same parts."""
    import numpy as np

    for size, uniform, last in _uniform(seed, count):
        values = np.empty(size, np.float32)
        for begin in range(0, len(uniform), _AT_ONCE):
            some = uniform[begin : begin + _AT_ONCE]
            transform_roughly(some, values[begin : begin + len(some)])
        if last is not None:
            transform_roughly(last, values[-BLOCK:])
        yield Rough(values, uniform, last)


def _source(seed: int) -> np.random.RandomState:
    import numpy as np

    return np.random.RandomState(seed & 0xFFFFFFFF)


def _uniform(seed: int, count: int) -> Iterator[tuple[int, np.ndarray, np.ndarray | None]]:
    """For each part its size, the 24-bit numbers of its whole blocks, and those of a last block.

    Where the size is no multiple of a block, torch draws the last 16 numbers of it anew.
    """
    import numpy as np

    source = _source(seed)

    def drawn(size: int) -> np.ndarray:
        bits = source.randint(0, 2**32, size, dtype=np.uint32)
        bits &= 2**BITS - 1
        return bits

    for start, end in parts(count):
        size = end - start
        uniform = drawn(size)
        rest = size % BLOCK
        yield size, uniform[: size - rest], drawn(BLOCK) if rest else None


def normal_tensor(shape: Sequence[int], seed: int, deviation: float = 1.0) -> Tensor:
    """The same numbers as a new float32 tensor on the CPU: by torch, which is faster, where it draws so."""
    import numpy as np
    import torch

    tensor = torch.empty(shape, dtype=torch.float32)
    if _torch_draws_the_same():
        return tensor.normal_(0.0, deviation, generator=torch.Generator().manual_seed(seed))
    drawn = list(normals(seed, tensor.numel(), deviation))
    return torch.from_numpy(np.concatenate(drawn)).reshape(shape) if drawn else tensor


@cache
def _torch_draws_the_same() -> bool:
    """Whether this torch draws on this processor as this module does."""
    import torch

    drawn = torch.empty(PART).normal_(generator=torch.Generator().manual_seed(0)).numpy()
    return bool((drawn == next(normals(0, PART))).all())


def _few(source: np.random.RandomState, count: int, deviation: float) -> np.ndarray:
    """Fewer than a block, which torch makes one by one in float64, each two from two 53-bit numbers."""
    import numpy as np

    values: list[float] = []
    while len(values) < count:
        drawn = source.randint(0, 2**32, (2, 2), dtype=np.uint32).tolist()
        first, second = (((upper << 32 | lower) & (2**53 - 1)) * 2.0**-53 for upper, lower in drawn)
        radius, angle = math.sqrt(-2 * math.log1p(-second)), 2 * math.pi * first
        values += [radius * math.cos(angle) * deviation, radius * math.sin(angle) * deviation]
    return np.array(values[:count], np.float32)
