"""Student's t distribution in closed form, for whole degrees of freedom.

After Abramowitz and Stegun, Handbook of Mathematical Functions (1964), 26.7.3 and 26.7.4.
"""

from __future__ import annotations

import math
from functools import cache

CONFIDENCE = 0.95


@cache
def t_quantile(degrees: int, confidence: float = CONFIDENCE) -> float:
    """The t for which P(|T| <= t) is `confidence`, T Student-distributed; by bisection."""
    assert degrees >= 1
    assert 0 < confidence < 1
    low, high = 0.0, math.pi / 2  # angles: t = sqrt(degrees) * tan(angle), which is finite
    for _ in range(100):
        middle = (low + high) / 2
        if _t_within(middle, degrees) < confidence:
            low = middle
        else:
            high = middle
    return math.sqrt(degrees) * math.tan(low)


def t_below(value: float, degrees: int) -> float:
    """P(T <= value), T Student-distributed."""
    assert degrees >= 1
    within = _t_within(math.atan(abs(value) / math.sqrt(degrees)), degrees)
    return (1 + within) / 2 if value > 0 else (1 - within) / 2


def _t_within(angle: float, degrees: int) -> float:
    """P(|T| <= sqrt(degrees) tan(angle))."""
    cosine, odd = math.cos(angle), degrees % 2 == 1
    term, total = (cosine if odd else 1.0), 0.0
    for power in range(1 if odd else 0, degrees - 1, 2):
        total += term
        term *= cosine * cosine * (power + 1) / (power + 2)
    total *= math.sin(angle)
    return (2 / math.pi) * (angle + total) if odd else total
