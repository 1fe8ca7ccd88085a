"""Student's t distribution, for whole and broken degrees of freedom; without SciPy, which loads slowly.

By the incomplete beta function (Abramowitz and Stegun, Handbook of Mathematical Functions, 1964, 26.7.1).
"""

from __future__ import annotations

import math
from functools import cache

CONFIDENCE = 0.95

_TINY = 1e-30


@cache
def t_quantile(degrees: float, confidence: float = CONFIDENCE) -> float:
    """The t for which P(|T| <= t) is `confidence`, T Student-distributed; by bisection."""
    assert degrees > 0
    assert 0 < confidence < 1
    low, high = 0.0, 1.0
    while 2 * t_below(high, degrees) - 1 < confidence:
        high *= 2.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if 2 * t_below(middle, degrees) - 1 < confidence else (low, middle)
    return high


def t_below(value: float, degrees: float) -> float:
    """P(T <= value), T Student-distributed."""
    if math.isinf(value):
        return 1.0 if value > 0 else 0.0
    tail = 0.5 * _incomplete_beta(0.5 * degrees, 0.5, degrees / (degrees + value * value))
    return 1.0 - tail if value > 0 else tail


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
