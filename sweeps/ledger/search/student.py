"""Student's t and the normal distribution, as the search needs them; without SciPy, which loads slowly."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_TINY = 1e-30
_erf: Callable[[Any], Any] = np.frompyfunc(math.erf, 1, 1)


def normal_below(z: Array) -> Array:
    """The chance that a standard normal number lies below each of these."""
    found: Array = 0.5 * (1.0 + _erf(z / math.sqrt(2.0)).astype(float))
    return found


def t_below(t: float, degrees: float) -> float:
    """The chance that Student's t with these degrees of freedom lies below `t`.

    By the incomplete beta function (Abramowitz and Stegun 26.7.1).
    """
    if math.isinf(t):
        return 1.0 if t > 0 else 0.0
    tail = 0.5 * _incomplete_beta(0.5 * degrees, 0.5, degrees / (degrees + t * t))
    return 1.0 - tail if t > 0 else tail


def t_quantile(share: float, degrees: float) -> float:
    """What Student's t lies below with this chance, at least 0.5; by bisection."""
    low, high = 0.0, 1.0
    while t_below(high, degrees) < share:
        high *= 2.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if t_below(middle, degrees) < share else (low, middle)
    return high


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised; by Lentz's continued fraction (Press et al., Numerical Recipes, 6.4)."""
    if x <= 0.0 or x >= 1.0:
        return 0.0 if x <= 0.0 else 1.0
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    if x < (a + 1.0) / (a + b + 2.0):
        return front * _fraction(a, b, x) / a
    return 1.0 - front * _fraction(b, a, 1.0 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    c, d = 1.0, 1.0 / _away_from_0(1.0 - (a + b) * x / (a + 1.0))
    found = d
    for m in range(1, 300):
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        for step in (even, odd):
            d = 1.0 / _away_from_0(1.0 + step * d)
            c = _away_from_0(1.0 + step / c)
            found *= c * d
        if abs(c * d - 1.0) < 1e-12:
            break
    return found


def _away_from_0(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
