"""The times at which a sweep had carried all of its budget out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SweepCompletion:
    """One time that all of a budget was carried out; a sweep that is extended has several."""

    trials: int  # all that there were, replicates too
    budget: Mapping[str, Any]
    time: float  # wall clock, seconds since the epoch
    ended_by: str  # what ended the search: the name of a setting of the budget, or `search`
    changeable: Mapping[str, Any] | None = None  # of the spec, what may change later; None where not known
