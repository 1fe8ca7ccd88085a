"""The Box-Muller transform, bit by bit as torch computes it where there is AVX2.

Of 24-bit numbers, by the logarithm, sine and cosine of Cephes in float32 (avx_mathfun by Garberoglio), eight
numbers side by side. The compiler made fused multiply-adds of them, which round once: here a product and a
sum in float64, rounded to float32. And nearly the same by numpy's own functions, in half the time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

BITS = 24  # of a uniform number
ROUGHNESS = 4e-6  # of what is nearly the same: five times the most that was seen over all inputs
_EIGHT = "V32"  # so many float32 side by side, moved together
_ROOT_HALF = 0.707106781186547524
_LOG: Sequence[float] = (
    *(7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1),
    *(-1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1),
)
_LOG_2 = (0.693359375, -2.12194440e-4)  # their sum is the logarithm of 2
_QUARTER_PI = (0.78515625, 2.4187564849853515625e-4, 3.77489497744594108e-8)  # the same of pi / 4
_SINE = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
_COSINE = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)


class Room:
    """Arrays that the arithmetic on so many pairs is done in, again and again: new ones would cost more."""

    def __init__(self, pairs: int) -> None:
        import numpy as np

        self.pairs = pairs
        self.radius, self.angle, self.sine, self.cosine, self.x, self.square = np.empty(
            (6, pairs), np.float32
        )
        self.wide, self.sum, self.other = np.empty((3, pairs))
        self.whole, self.bits = np.empty((2, pairs), np.int32)


def transform(uniform: np.ndarray, out: np.ndarray, room: Room) -> None:
    """Makes standard normal numbers of 24-bit ones, two for each pair of the room.

    Of each 16 the first eight give the lengths and the others the angles of eight pairs, whose cosines come
    first.
    """
    import numpy as np

    _split(uniform, room.x, room.angle, room.bits)
    _logarithm(room)
    room.radius *= np.float32(-2)
    np.sqrt(room.radius, out=room.radius)
    _sine_and_cosine(room)
    room.cosine *= room.radius
    room.sine *= room.radius
    _join(room.cosine, room.sine, out)


def transform_roughly(uniform: np.ndarray, out: np.ndarray) -> None:
    """Makes of 24-bit numbers the same normal ones up to `ROUGHNESS`."""
    import numpy as np

    radius, angle, sine = np.empty((3, len(uniform) // 2), np.float32)
    _split(uniform, radius, angle, sine.view(np.int32))
    np.log(radius, out=radius)
    radius *= np.float32(-2)
    np.sqrt(radius, out=radius)
    np.sin(angle, out=sine)
    np.cos(angle, out=angle)
    angle *= radius
    sine *= radius
    _join(angle, sine, out)


def _split(uniform: np.ndarray, first: np.ndarray, angle: np.ndarray, bits: np.ndarray) -> None:
    """Puts numbers in (0, 1] and angles up to two pi into their arrays; `bits` is room for it."""
    import numpy as np

    halves = uniform.view(_EIGHT).reshape(-1, 2)
    for half, values in enumerate((first, angle)):
        np.copyto(bits.view(_EIGHT), halves[:, half])
        np.copyto(values, bits, casting="same_kind")
    first *= np.float32(-(2.0**-BITS))
    first += np.float32(1)
    angle *= np.float32(2.0**-BITS)
    angle *= np.float32(2 * math.pi)


def _join(cosine: np.ndarray, sine: np.ndarray, out: np.ndarray) -> None:
    import numpy as np

    pairs = out.view(_EIGHT).reshape(-1, 2)
    np.copyto(pairs[:, 0], cosine.view(_EIGHT))
    np.copyto(pairs[:, 1], sine.view(_EIGHT))


def _logarithm(room: Room) -> None:
    """Puts the natural logarithms of `x`, in (0, 1], into `radius`; leaves `angle` as it is."""
    import numpy as np

    x, y, exponent, low = room.x, room.radius, room.sine, room.cosine
    bits, whole = x.view(np.int32), room.whole
    np.right_shift(bits, 23, out=whole)
    whole -= 0x7E
    np.copyto(exponent, whole, casting="same_kind")
    bits &= 0x7FFFFF
    bits |= 0x3F000000  # now from a half to one
    np.copyto(low, x < np.float32(_ROOT_HALF))
    exponent -= low
    low *= x
    x -= np.float32(1)
    x += low
    np.multiply(x, x, out=room.square)
    np.copyto(room.wide, x)
    _polynomial(_LOG, room, y)
    y *= x
    np.copyto(room.wide, room.square)
    np.copyto(room.sum, y)
    room.sum *= room.wide
    np.multiply(exponent, np.float32(_LOG_2[1]), out=low)
    _add(room.sum, low, room, y)
    room.wide *= -0.5
    _add(room.wide, y, room, y)
    x += y
    np.copyto(room.sum, exponent)
    room.sum *= _LOG_2[0]
    _add(room.sum, x, room, y)


def _sine_and_cosine(room: Room) -> None:
    """Puts sines and cosines of `angle`, from 0 to two pi, into their places; leaves `radius` as it is."""
    import numpy as np

    x, angle, octant, exact = room.x, room.angle, room.whole, room.other
    np.multiply(angle, np.float32(4 / math.pi), out=x)
    np.copyto(octant, x, casting="unsafe")
    octant += 1
    octant &= -2
    np.copyto(room.wide, octant)
    np.copyto(exact, angle)
    for share in _QUARTER_PI:
        np.multiply(room.wide, _single(share), out=room.sum)
        exact -= room.sum
        np.copyto(x, exact, casting="same_kind")
        np.copyto(exact, x)
    np.multiply(x, x, out=room.square)
    np.copyto(room.wide, room.square)
    _polynomial(_SINE, room, room.sine)
    room.sine *= room.square
    np.copyto(room.sum, room.sine)
    room.sum *= exact
    room.sum += exact
    np.copyto(room.sine, room.sum, casting="same_kind")
    _polynomial(_COSINE, room, room.cosine)
    room.cosine *= room.square
    np.copyto(room.sum, room.cosine)
    room.sum *= room.wide
    room.square *= np.float32(-0.5)
    _add(room.sum, room.square, room, room.cosine)
    room.cosine += np.float32(1)
    _turn(room)


def _turn(room: Room) -> None:
    """Makes of sines and cosines of what is left of an even multiple of pi / 4 those of the whole angles."""
    import numpy as np

    octant, bits, swapped = room.whole, room.bits, room.x.view(np.int32)
    sine, cosine = room.sine.view(np.int32), room.cosine.view(np.int32)
    np.bitwise_xor(sine, cosine, out=swapped)
    np.right_shift(octant, 1, out=bits)
    bits &= 1
    swapped *= bits
    sine ^= swapped
    cosine ^= swapped
    for part, turn in ((sine, 0), (cosine, 2)):  # a negative one in two of four quarters
        np.add(octant, turn, out=bits)
        bits &= 4
        bits <<= 29
        np.bitwise_xor(part, bits, out=part)


def _polynomial(coefficients: Sequence[float], room: Room, out: np.ndarray) -> None:
    """Puts the polynomial of `wide` into `out`, by Horner's rule in fused multiply-adds of float32."""
    import numpy as np

    np.multiply(room.wide, _single(coefficients[0]), out=room.sum)
    for coefficient in coefficients[1:-1]:
        room.sum += _single(coefficient)
        np.copyto(out, room.sum, casting="same_kind")
        np.copyto(room.sum, out)
        room.sum *= room.wide
    room.sum += _single(coefficients[-1])
    np.copyto(out, room.sum, casting="same_kind")


def _add(product: np.ndarray, summand: np.ndarray, room: Room, out: np.ndarray) -> None:
    """The second half of a fused multiply-add: `product` in float64 is exact, `summand` is float32."""
    import numpy as np

    np.copyto(room.other, summand)
    product += room.other
    np.copyto(out, product, casting="same_kind")


def _single(number: float) -> float:
    """The nearest float32."""
    import numpy as np

    return float(np.float32(number))
