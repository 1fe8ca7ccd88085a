"""What one trial costs, from headers and configuration alone: FLOPs per token of training, and parameters."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from sweeps.checks.shapes import SHAPING, control_layers, plan_of
from sweeps.spec import Spec
from sweeps.spec.equivalence import injection_of
from tli.errors import InputError
from tli.growth.cost import cost
from tli.models.base import Base

TrialCosts = Callable[[Mapping[str, Any]], Mapping[str, float]]


def trial_costs(spec: Spec, base: Base) -> TrialCosts:
    """What settings cost: a function of a whole `trial:` section, which gives costs by their names.

    None are given for settings that no trial can run with.

    Args:
        spec: of the sweep.
        base: its base model; only headers and configuration are read.
    """
    known: dict[str, Mapping[str, float]] = {}

    def costs(settings: Mapping[str, Any]) -> Mapping[str, float]:
        injection, train = settings.get("injection", {}), settings.get("recipe", {}).get("train", "all")
        what = json.dumps([{name: injection.get(name) for name in _SHAPING}, train], default=str)
        if what not in known:
            known[what] = _costs(spec, base, settings, train)
        return known[what]

    return costs


_SHAPING = {path.split(".")[1] for path in SHAPING} | {"place"}


def _costs(spec: Spec, base: Base, settings: Mapping[str, Any], train: str) -> Mapping[str, float]:
    injection = injection_of(settings)
    if injection is None:
        return {}
    original = injection.method == "none"
    length = spec.data.sequence_length
    also = control_layers(spec, base) if original and train != "all" else ()
    try:
        plan = plan_of(None if original else injection, base.facts.depth)
        found = cost(
            base,
            plan,
            sequence_length=length,
            train="all" if original and not also else train,
            also=also,
        )
    except InputError:
        return {}
    return {"flops_per_token": found.flops_per_token, "parameters": found.parameters}
