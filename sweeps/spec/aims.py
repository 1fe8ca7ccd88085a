"""An objective that is written as a list of aims, `[eval_loss, flops_per_token]`, read as its section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from sweeps.spec.settings import Cost, ObjectiveSettings
from sweeps.wording import Fault, formatted, nearest

METRICS = ("eval_loss",)
COSTS: tuple[str, ...] = get_args(Cost)
_EXPECTED = f"{METRICS[0]}, and for a front one of {', '.join(COSTS)}"
_EXAMPLE = f"[{METRICS[0]}, {COSTS[0]}]"


def with_section(plain: Mapping[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
    """The values with an objective that is a list as a section; one with faults is left out.

    Args:
        plain: the values of a spec as they were written.
    """
    aims = plain.get("objective")
    if not isinstance(aims, list):
        return dict(plain), []
    rest = {name: value for name, value in plain.items() if name != "objective"}
    faults = [*_item_faults(aims)] or [*_whole_faults(aims)]
    if faults:
        return rest, faults
    cost = next((aim for aim in aims if aim in COSTS), None)
    section = ObjectiveSettings(cost=cost).to_json()
    return {name: section if name == "objective" else value for name, value in plain.items()}, []


def _item_faults(aims: Sequence[Any]) -> list[Fault]:
    known = (*METRICS, *COSTS)
    faults = []
    for index, aim in enumerate(aims):
        if isinstance(aim, str) and "/" in aim:
            got = f"{formatted(aim)}, a task in a list of aims"
            expected = f"one of {', '.join(known)}: the search goes by a task alone, or by the loss"
            faults.append(Fault(f"objective[{index}]", got, expected, f"objective: {{metric: {aim}}}"))
        elif not isinstance(aim, str) or aim not in known:
            expected = f"one of {', '.join(known)}"
            faults.append(
                Fault(f"objective[{index}]", formatted(aim), expected, nearest(str(aim), known) or "")
            )
    return faults


def _whole_faults(aims: Sequence[str]) -> list[Fault]:
    """Losses are always minimised, once, and beside them one cost at most."""
    if aims.count(METRICS[0]) == 1 and len(aims) <= 1 + len(set(aims) & set(COSTS)) <= 2:
        return []
    return [Fault("objective", formatted(list(aims)), _EXPECTED, _EXAMPLE)]
