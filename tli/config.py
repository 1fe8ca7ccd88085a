"""The configuration of the deeper model: a new depth, and every per-layer setting moved with its layer."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tli.errors import CheckpointError, FamilyError, PlanError, Problem
from tli.families import Family, refusals
from tli.plan import Plan

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def deepen(config: PretrainedConfig, family: Family, plan: Plan) -> PretrainedConfig:
    """A copy of a loaded configuration with the depth of `plan`. Raises FamilyError and PlanError."""
    _check(config.to_dict(), family, plan, "config")
    deeper = copy.deepcopy(config)
    deeper.num_hidden_layers = plan.new_depth
    for key in _lists(family):
        values = getattr(config, key, None)
        if values is not None:
            setattr(deeper, key, _spliced(values, plan, f"config: {key}"))
    for key in family.leading_counts:
        count = getattr(config, key, None)
        if count is not None:
            setattr(deeper, key, _moved(count, plan))
    return deeper


def deepen_json(config: Mapping[str, Any], folder: Path, family: Family, plan: Plan) -> dict[str, Any]:
    """The content of config.json at the depth of `plan`; `folder` is where `config` was read from.

    All other keys stay as they are written. A per-layer list that the file leaves out is made from the depth
    by transformers, so at a new depth its pattern would shift under the layers; then, and only then,
    transformers is asked for the list. Raises FamilyError and PlanError.
    """
    where = str(folder / "config.json")
    _check(config, family, plan, where)
    deeper = dict(config)
    deeper[family.depth_key] = plan.new_depth
    missing = [key for key in family.layer_lists if config.get(key) is None]
    if missing and plan.injected and (family.lists_vary_with is None or config.get(family.lists_vary_with)):
        deeper |= _loaded_lists(folder, missing)
    for key in _lists(family):
        if deeper.get(key) is not None:
            deeper[key] = _spliced(deeper[key], plan, f"{where}: {key}")
    for key in family.leading_counts:
        if config.get(key) is not None:
            deeper[key] = _moved(config[key], plan)
    return deeper


def read_config(folder: Path) -> dict[str, Any]:
    """The content of a model folder's config.json. Raises CheckpointError when it is no JSON object."""
    path = folder / "config.json"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(Problem(str(path), f"no JSON ({reason})", "a model's configuration")) from None
    if not isinstance(value, dict):
        raise CheckpointError(Problem(str(path), f"a JSON {type(value).__name__}", "a JSON object"))
    return value


def _check(config: Mapping[str, Any], family: Family, plan: Plan, where: str) -> None:
    problems = refusals(family, config, where) if plan.injected else []
    if problems:
        raise FamilyError(*problems)
    depth = config.get(family.depth_key, config.get("num_hidden_layers"))
    if depth != plan.depth:
        expected = f"{plan.depth}, the depth that the plan is for"
        raise PlanError(Problem(f"{where}: {family.depth_key}", repr(depth), expected))


def _lists(family: Family) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*family.layer_lists, "layer_types")))


def _spliced(values: Any, plan: Plan, where: str) -> list[Any]:
    if not isinstance(values, (list, tuple)) or len(values) != plan.depth:
        raise FamilyError(Problem(where, repr(values), f"a list of {plan.depth} entries, one per layer"))
    return [values[source] for source in plan.sources]


def _moved(count: int, plan: Plan) -> int:
    # A count beyond the depth (as qwen's max_window_layers often is) means all layers, and must go on so.
    if count >= plan.depth:
        return count + plan.new_depth - plan.depth
    return sum(source < count for source in plan.sources)


def _loaded_lists(folder: Path, keys: list[str]) -> dict[str, Any]:
    from transformers import AutoConfig

    loaded = AutoConfig.from_pretrained(folder, local_files_only=True)
    return {key: list(getattr(loaded, key)) for key in keys if getattr(loaded, key, None) is not None}
