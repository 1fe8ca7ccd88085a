"""Normal numbers as torch draws them on the CPU, part by part and without torch.

What `torch.empty(count).normal_(0, deviation, generator=torch.Generator().manual_seed(seed))` gives, to the
last bit. torch draws by another way, and other last bits, where the processor lacks AVX2; this is always that
of AVX2, so one seed means the same numbers on every machine. The way is the Box-Muller transform of 24-bit
numbers of the Mersenne twister, with the logarithm, sine and cosine of Cephes in float32 (avx_mathfun by
Garberoglio), eight numbers at a time. The compiler made fused multiply-adds of them, which round once: here
a product and a sum in float64, rounded to float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING

from tli.tensor_bytes import BLOCK, PART, parts

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

_AT_ONCE = 2**15  # numbers that the arithmetic is done on, so that it stays in a core's cache
_BITS = 24  # of a uniform number
_ROOT_HALF = 0.707106781186547524
_LOG: Sequence[float] = (
    *(7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1),
    *(-1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1),
)
_LOG_2 = (0.693359375, -2.12194440e-4)  # their sum is the logarithm of 2
_QUARTER_PI = (0.78515625, 2.4187564849853515625e-4, 3.77489497744594108e-8)  # the same of pi / 4
_SINE = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
_COSINE = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)


def normals(seed: int, count: int, deviation: float = 1.0) -> Iterator[np.ndarray]:
    """Normal numbers in float32, in the parts that `tli.tensor_bytes.parts` makes of `count`.

    `seed` is what torch would be given, of which it takes the lower 32 bits. Each array is new.
    """
    import numpy as np

    source = np.random.RandomState(seed & 0xFFFFFFFF)
    if count < BLOCK:
        if count:
            yield _few(source, count, deviation)
        return
    scale = np.float32(deviation)
    for start, end in parts(count):
        part = np.empty(end - start, np.float32)
        whole = len(part) // BLOCK * BLOCK
        for begin in range(0, whole, _AT_ONCE):
            _draw(source, part[begin : min(begin + _AT_ONCE, whole)])
        if whole < len(part):  # torch draws what is left, and then the last block anew
            source.randint(0, 2**32, len(part) - whole, dtype=np.uint32)
            _draw(source, part[-BLOCK:])
        part *= scale
        part += np.float32(0)  # torch adds the mean, which makes a negative zero a zero
        yield part


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


def _draw(source: np.random.RandomState, out: np.ndarray) -> None:
    """Fills `out`, a multiple of a block, with standard normal numbers.

    Of each 16 uniform numbers the first eight give the lengths and the others the angles of eight pairs,
    whose cosines come first.
    """
    import numpy as np

    eight = np.dtype("V32")  # so many float32 side by side
    drawn = source.randint(0, 2**32, len(out), dtype=np.uint32)
    drawn &= 2**_BITS - 1
    halves = drawn.view(eight).reshape(-1, 2)
    first, second = (halves[:, half].copy().view(np.int32).astype(np.float32) for half in (0, 1))
    first *= np.float32(-(2.0**-_BITS))
    first += np.float32(1)
    second *= np.float32(2.0**-_BITS)
    second *= np.float32(2 * math.pi)
    radius = _logarithm(first)
    radius *= np.float32(-2)
    np.sqrt(radius, out=radius)
    sine, cosine = _sine_and_cosine(second)
    cosine *= radius
    sine *= radius
    pairs = out.view(eight).reshape(-1, 2)
    pairs[:, 0] = cosine.view(eight)
    pairs[:, 1] = sine.view(eight)


def _logarithm(numbers: np.ndarray) -> np.ndarray:
    """The natural logarithm of float32 in (0, 1]."""
    import numpy as np

    bits = numbers.view(np.int32)
    exponent = ((bits >> 23) - 0x7E).astype(np.float32)
    x = ((bits & 0x7FFFFF) | 0x3F000000).view(np.float32)  # from a half to one
    low = (x < np.float32(_ROOT_HALF)).astype(np.float32)
    exponent -= low
    low *= x
    x -= np.float32(1)
    x += low
    square = x * x
    y = _polynomial(x.astype(np.float64), _LOG)
    y *= x
    wide = square.astype(np.float64)
    sum_ = y.astype(np.float64)
    sum_ *= wide
    sum_ += exponent * np.float32(_LOG_2[1])
    np.copyto(y, sum_, casting="same_kind")
    wide *= -0.5
    wide += y
    x += wide.astype(np.float32)
    np.copyto(sum_, exponent)
    sum_ *= _LOG_2[0]
    sum_ += x
    return sum_.astype(np.float32)


def _sine_and_cosine(angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of float32 from 0 to two pi."""
    import numpy as np

    octant = (angles * np.float32(4 / math.pi)).astype(np.int32)
    octant += 1
    octant &= -2
    multiple = octant.astype(np.float64)
    x = angles.astype(np.float64)
    for share in _QUARTER_PI:
        x -= multiple * _single(share)
        x = x.astype(np.float32).astype(np.float64)
    narrow = x.astype(np.float32)
    square = narrow * narrow
    wide = square.astype(np.float64)
    sine = _polynomial(wide, _SINE)
    sine *= square
    sum_ = sine.astype(np.float64)
    sum_ *= x
    sum_ += x
    np.copyto(sine, sum_, casting="same_kind")
    cosine = _polynomial(wide, _COSINE)
    cosine *= square
    np.copyto(sum_, cosine)
    sum_ *= wide
    square *= np.float32(0.5)
    sum_ -= square
    np.copyto(cosine, sum_, casting="same_kind")
    cosine += np.float32(1)
    return _turned(sine, cosine, octant)


def _turned(sine: np.ndarray, cosine: np.ndarray, octant: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sine and cosine of whole angles from those of the rests behind an even multiple of pi / 4."""
    import numpy as np

    sines, cosines = sine.view(np.int32), cosine.view(np.int32)
    swapped = sines ^ cosines
    swapped *= (octant >> 1) & 1
    sines ^= swapped
    cosines ^= swapped
    sines ^= (octant & 4) << 29
    cosines ^= (~(octant - 2) & 4) << 29
    return sine, cosine


def _polynomial(x: np.ndarray, coefficients: Sequence[float]) -> np.ndarray:
    """By Horner's rule in fused multiply-adds of float32; `x` holds float32 in float64."""
    import numpy as np

    result = np.full(len(x), coefficients[0], np.float32)
    sum_ = np.empty(len(x))
    for coefficient in coefficients[1:]:
        np.copyto(sum_, result)
        sum_ *= x
        sum_ += _single(coefficient)
        np.copyto(result, sum_, casting="same_kind")
    return result


def _single(number: float) -> float:
    """The nearest float32."""
    import numpy as np

    return float(np.float32(number))
