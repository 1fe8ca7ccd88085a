"""Finds an architecture's row, and the reasons why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tli.architectures.family import Family
from tli.architectures.table import FAMILIES
from tli.errors import FamilyError, Problem


def family_of(model_type: str | None, where: str = "config.json: model_type") -> Family:
    """The row of an architecture. Raises FamilyError for one that is not known, or cannot be upscaled."""
    if model_type is None or model_type not in FAMILIES:
        reason = "not known which of its weights write to the residual stream"
        expected = f"one of the {len(FAMILIES)} architectures that `tli families` lists"
        raise FamilyError(Problem(where, f"{model_type!r} ({reason})", expected))
    family = FAMILIES[model_type]
    if family.refused:
        raise FamilyError(
            Problem(where, f"{model_type!r} ({family.refused})", "another architecture", "tli families")
        )
    return family


def table() -> list[dict[str, str | bool]]:
    """What can be done with each architecture, sorted by name, for `tli families`."""
    return [_told(FAMILIES[name]) for name in sorted(FAMILIES)]


def _told(family: Family) -> dict[str, str | bool]:
    if family.refused:
        identity, reason = "-", family.refused
    elif family.no_scale:
        identity, reason = "no", family.no_scale
    else:
        identity = "zero-output, zero-gain" if family.post_norms else "zero-output"
        reason = family.only_zero or "; ".join(f"not with {key}: {why}" for key, why in family.refusals)
    if family.fixed_layer:
        reason = "; ".join(filter(None, (reason, f"the {family.fixed_layer} layer stays alone")))
    if family.shared_kinds:
        reason = f"no copies of {', '.join(family.shared_kinds)} layers, which share their weights"
    if family.periods:
        reason = "whole periods of layers only, where their kinds alternate"
    return {
        "model_type": family.model_type,
        "grows": family.refused is None,
        "identity": identity,
        "reason": reason,
    }


def refusals(family: Family, config: Mapping[str, Any], where: str = "config.json") -> list[Problem]:
    """Settings of a configuration under which layers cannot be injected, each with its reason."""
    return [
        Problem(f"{where}: {key}", f"{config[key]!r} ({reason})", "it off", "another base model")
        for key, reason in family.refusals
        if config.get(key)
    ]


def loading_problems(family: Family, where: str = "config.json: model_type") -> list[Problem]:
    """Why a model of a family that can be grown in a folder cannot be loaded to be trained or run."""
    if family.not_loaded is None:
        return []
    return [Problem(where, f"{family.model_type!r} ({family.not_loaded})", "a model that it loads")]
