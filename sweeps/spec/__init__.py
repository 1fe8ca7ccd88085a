"""The spec: what a user writes, read strictly, checked as a whole, all problems at once.

Promises: a spec that was made is complete and consistent; every problem of one that was not is in the one
SpecError, each at its line and column or its option. Never opens a store, a base or a text: `sweeps.checks`
does. Imported when it is used: pydantic and YAML take longer than a command that needs neither.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeps.spec.differences import difference
    from sweeps.spec.model import COMPARED, Spec
    from sweeps.spec.ranges import Range
    from sweeps.spec.settings import LIMITS, BudgetSettings, TrialSettings
    from sweeps.spec.source import load_spec, packaged

__all__ = [
    "COMPARED",
    "LIMITS",
    "BudgetSettings",
    "Range",
    "Spec",
    "TrialSettings",
    "difference",
    "load_spec",
    "packaged",
]

_MODULES = {
    "COMPARED": "model",
    "Spec": "model",
    "difference": "differences",
    "Range": "ranges",
    "LIMITS": "settings",
    "BudgetSettings": "settings",
    "TrialSettings": "settings",
    "load_spec": "source",
    "packaged": "source",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
