"""Values of JSON that was read back: numbers and texts, or TypeError."""

from __future__ import annotations

import math
from typing import Any

_EXACT = 2**53  # below that every whole number is a float, too


def number(value: Any) -> float:
    """A number as a float; it may be infinite."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError("a number is wanted")
    return float(value)


def finite(value: Any) -> float:
    """A finite number as a float."""
    if not math.isfinite(found := number(value)):
        raise TypeError("a finite number is wanted")
    return found


def maybe(value: Any) -> float | None:
    """A finite number as a float, or null."""
    return None if value is None else finite(value)


def whole(value: Any) -> int:
    """A whole number of at least 0: a step, or an amount."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _EXACT:
        raise TypeError("a whole number is wanted")
    return value


def text(value: Any) -> str:
    """A text."""
    if not isinstance(value, str):
        raise TypeError("a text is wanted")
    return value
