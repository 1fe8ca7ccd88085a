"""The normal distribution over arrays, as the search needs it; without SciPy, which loads slowly."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_erf: Callable[[Any], Any] = np.frompyfunc(math.erf, 1, 1)


def normal_below(z: Array) -> Array:
    """The chance that a standard normal number lies below each of these."""
    found: Array = 0.5 * (1.0 + _erf(z / math.sqrt(2.0)).astype(float))
    return found
