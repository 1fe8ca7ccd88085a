"""The configuration of the grown model: a new depth, and per-layer settings moved with their layers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tli.architectures.family import Family
from tli.architectures.lookup import refusals
from tli.architectures.per_layer import Value, kind_problems, moved_by, short, spell_out_steps
from tli.architectures.table import FAMILIES
from tli.errors import CheckpointError, FamilyError, PlanError, Problem
from tli.json_files import read_json, reason_of
from tli.planning.plan import Plan

if TYPE_CHECKING:
    from transformers import PretrainedConfig

SECTION = "text_config"  # where a configuration of several models keeps that of its language model
# Keys by which `get_text_config` of transformers takes a part of any configuration for the language model's.
TAKEN_FOR_SECTIONS = (SECTION, "decoder", "generator", "text_encoder")
DEPTH_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")


def deepen(config: PretrainedConfig, family: Family, plan: Plan) -> PretrainedConfig:
    """A copy of a loaded configuration with the depth of `plan`. Raises FamilyError and PlanError."""
    deeper = copy.deepcopy(config)
    section = getattr(deeper, SECTION, None) if family.layers == "model.language_model.layers" else None
    inner = deeper if section is None else section
    for key, value in changes(inner.to_dict(), family, plan, "config").items():
        setattr(inner, key, value)
    return deeper


def deepen_json(config: Mapping[str, Any], folder: Path, family: Family, plan: Plan) -> dict[str, Any]:
    """The content of config.json at the depth of `plan`; `folder` is where `config` was read from.

    All other keys stay as they are written. A per-layer list that the file leaves out is made from the depth
    by transformers, so at a new depth its pattern would shift under the layers; then, and only then,
    transformers is asked for the list. Raises FamilyError and PlanError.
    """
    where = str(folder / "config.json")
    inner = section_of(config)
    missing = [key for key in family.lists if inner.get(key) is None]
    varies = family.lists_vary_with is None or inner.get(family.lists_vary_with)
    loaded = _loaded(folder, missing) if missing and plan.injected and varies else {}
    new = changes({**inner, **loaded}, family, plan, where)
    kept = {key: value for key, value in new.items() if key in inner or key in loaded}
    if inner is config:
        return {**config, **kept}
    return {**config, SECTION: {**inner, **kept}}


def read_config(folder: Path) -> dict[str, Any]:
    """The content of a model folder's config.json. Raises CheckpointError when it is no JSON object."""
    path = folder / "config.json"
    try:
        value = read_json(path)
    except (OSError, ValueError) as error:
        reason = f"no JSON ({reason_of(error)})"
        raise CheckpointError(Problem(str(path), reason, "a model's configuration")) from None
    if not isinstance(value, dict):
        raise CheckpointError(Problem(str(path), f"a JSON {type(value).__name__}", "a JSON object"))
    return value


def section_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a config.json that describes the language model: all of it, or one section."""
    inner, model_type = config.get(SECTION), config.get("model_type")
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    # Older files of such a model (fuyu) have the settings at the top as well, where transformers reads none.
    sectioned = family is not None and family.sectioned
    if isinstance(inner, dict) and (sectioned or not any(_whole(config.get(key)) for key in DEPTH_KEYS)):
        return inner
    return config


def _whole(value: Any) -> bool:
    return isinstance(value, int)


def depth_of(config: Mapping[str, Any], family: Family | None = None) -> Any:
    """Number of layers that a config.json speaks of; None where it names none."""
    inner = section_of(config)
    keys = (*(family.depth_keys if family else ()), *DEPTH_KEYS)
    found = next((inner[key] for key in keys if inner.get(key) is not None), None)
    if found is None and family is not None:
        found = next((len(inner[key]) for key in family.lists if isinstance(inner.get(key), list)), None)
    return found


def changes(values: Mapping[str, Any], family: Family, plan: Plan, where: str) -> dict[str, Value]:
    """The settings that a plan changes, with their new values. Raises FamilyError and PlanError."""
    problems = refusals(family, values, where) if plan.injected else []
    depth = depth_of(values, family)
    if not problems and depth != plan.depth:
        expected = f"{plan.depth}, the depth that the plan is for"
        raise PlanError(Problem(f"{where}: {family.depth_keys[0]}", repr(depth), expected))
    new: dict[str, Value] = {}
    for key in (*family.depth_keys, *(key for key in DEPTH_KEYS if values.get(key) is not None)):
        new[key] = plan.new_depth
    if plan.injected:
        for key, value in values.items():
            if value is None or key in new:
                continue
            try:
                if (move := moved_by(key, value, plan)) is not None:
                    new[key] = move(value, plan)
            except ValueError as error:
                problems.append(Problem(f"{where}: {key}", short(value), str(error)))
        if not problems:  # for which the settings have to be whole
            problems += kind_problems(values, family, plan, where)
    if problems:
        raise FamilyError(*problems)
    spell_out_steps(values, new, plan)
    return new


def _loaded(folder: Path, keys: list[str]) -> dict[str, Any]:
    """Per-layer lists as transformers makes them. Raises CheckpointError where it refuses the file."""
    from transformers import AutoConfig

    try:
        loaded = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001 - a configuration class raises whatever its code runs into
        reason = f"a configuration that transformers refuses ({type(error).__name__}: {reason_of(error)})"
        raise CheckpointError(
            Problem(str(folder / "config.json"), reason, "one that transformers reads")
        ) from None
    inner = (
        loaded
        if any(getattr(loaded, key, None) is not None for key in keys)
        else getattr(loaded, SECTION, loaded)
    )
    found = {key: getattr(inner, key, None) for key in keys}
    return {key: list(value) for key, value in found.items() if isinstance(value, (list, tuple))}
