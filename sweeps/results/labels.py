"""Labels of a trial: how its model was grown, and its learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweeps.records import Role, TrialRecord
from tli.planning.checks import injection_problems
from tli.planning.injection import Injection


def configuration(record: TrialRecord) -> str:
    """What tells it from the others: `K=4 identity lr 1.2e-03`."""
    return f"{grown(record)} lr {rate(record)}".lstrip()


def grown(record: TrialRecord) -> str:
    """How its model was grown: `K=4 identity`; empty for the original model."""
    shape, init = shape_label(record, short=False), init_label(record)
    return "" if shape == init == "-" else f"{shape} {init}".removesuffix(" -")


def _injection(record: TrialRecord) -> Injection | None:
    """What a trial injects, resolved; None for the control, and for settings that no trial could run with."""
    settings: Mapping[str, Any] = record.settings.get("injection", {})
    try:
        injection = Injection.from_json(settings)
    except TypeError:
        return None
    if record.role is Role.CONTROL or not settings or injection_problems(injection, None):
        return None
    return injection.resolved() if injection.method != "none" else None


def shape_label(record: TrialRecord, *, short: bool) -> str:
    """`K=4`, or the 4 alone where a column is called so; other methods by their names."""
    injection = _injection(record)
    if injection is None:
        return "-"
    return injection.label.removeprefix("K=") if short else injection.label


def init_label(record: TrialRecord) -> str:
    """Its first weights: `identity`; `-` where nothing is injected."""
    injection = _injection(record)
    return injection.init if injection and injection.init else "-"


def rate(record: TrialRecord) -> str:
    """Its learning rate: `1.2e-03`."""
    value = record.settings.get("recipe", {}).get("learning_rate")
    return f"{value:.1e}" if isinstance(value, int | float) else "-"
