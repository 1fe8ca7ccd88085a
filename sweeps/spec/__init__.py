"""The spec: what a user writes, read strictly, checked as a whole, all problems at once."""

from __future__ import annotations

from sweeps.errors import SpecError
from sweeps.spec.model import COMPARED, Spec, difference
from sweeps.spec.ranges import Range
from sweeps.spec.settings import LIMITS, BudgetSettings, TrialSettings
from sweeps.spec.source import load_spec, packaged

__all__ = [
    "COMPARED",
    "LIMITS",
    "BudgetSettings",
    "Range",
    "Spec",
    "SpecError",
    "TrialSettings",
    "difference",
    "load_spec",
    "packaged",
]
