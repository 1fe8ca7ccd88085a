"""The spec: what a user writes, read strictly, checked as a whole, all problems at once.

Promises: a spec that was made is complete and consistent; every problem of one that was not is in the one
SpecError, each at its line and column or its option. Never opens a store, a base or a text: `sweeps.checks`
does. Imported when it is used: pydantic and YAML take longer than a command that needs neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tli.lazy import lazy

if TYPE_CHECKING:
    from sweeps.spec.differences import changed_amounts, difference
    from sweeps.spec.model import COMPARED, RAISED, Spec, with_settings
    from sweeps.spec.packaged_specs import packaged
    from sweeps.spec.ranges import Range
    from sweeps.spec.settings import LIMITS, BudgetSettings, TrialSettings
    from sweeps.spec.source import load_spec

__all__ = [
    "COMPARED",
    "LIMITS",
    "RAISED",
    "BudgetSettings",
    "Range",
    "Spec",
    "TrialSettings",
    "changed_amounts",
    "difference",
    "load_spec",
    "packaged",
    "with_settings",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "COMPARED": "sweeps.spec.model",
            "RAISED": "sweeps.spec.model",
            "Spec": "sweeps.spec.model",
            "with_settings": "sweeps.spec.model",
            "changed_amounts": "sweeps.spec.differences",
            "difference": "sweeps.spec.differences",
            "Range": "sweeps.spec.ranges",
            "LIMITS": "sweeps.spec.settings",
            "BudgetSettings": "sweeps.spec.settings",
            "TrialSettings": "sweeps.spec.settings",
            "load_spec": "sweeps.spec.source",
            "packaged": "sweeps.spec.packaged_specs",
        },
    )
