"""Quantised checkpoints: their layers can be copied, but not computed with.

Bytes are copied whatever they mean. Arithmetic on packed numbers, or on numbers whose scale lies in another
tensor, would make numbers that mean nothing. A layer without effect can be had where the tensors that write
to the residual stream are floats after all: all of their bits at zero are a zero, in float8 too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tli.architectures.config import SECTION, section_of
from tli.architectures.lookup import family_of
from tli.checkpoint.header import FLOATS, TensorInfo
from tli.errors import Problem
from tli.models.base import Base
from tli.planning.injection import Injection
from tli.planning.plan import Plan

_KEY = "quantization_config"
_LAYER = re.compile(r"(\.|\b)(layers|h|blocks|layer)\.(\d{1,9})\b", re.ASCII)
_ZERO_IS_ZERO = (*FLOATS, "F8_E4M3", "F8_E5M2")


def method_of(config: Mapping[str, Any]) -> str | None:
    """How the weights of a configuration are quantised (gptq, awq, fp8, ...); None for those that are not."""
    settings = config.get(_KEY) or section_of(config).get(_KEY)
    if not settings:
        return None
    return str(settings.get("quant_method", "quantised")) if isinstance(settings, dict) else "quantised"


def training_problems(base: Base) -> list[Problem]:
    """Why a base cannot be trained, or run in float32, as it is; none where it can."""
    method = method_of(base.config)
    if method is None:
        return []
    where = str(base.folder / "config.json")
    return [Problem(where, f"{method} weights", "weights that are not quantised", "the original model")]


def quantised_problems(base: Base, plan: Plan, where: str = "injection") -> list[Problem]:
    """Why a plan cannot be applied to quantised weights; none where it can, and where they are not."""
    method = method_of(base.config)
    if method is None or plan.unchanged or _pure_copy(plan.injection):
        return []
    injection = plan.injection
    got = f"{injection.init!r} for {method} weights"
    if injection.scale != 0 or injection.noise or injection.source == "both" or injection.init != "identity":
        return [
            Problem(f"{where}.init", f"{got}, which are not to be calculated with", "a pure copy", "copy")
        ]
    packed = next(_packed(base, plan), None)
    if packed is None:
        return []
    reason = f"{packed.name} is packed as {packed.dtype}, so zeros in it are no zeros of the weight"
    return [Problem(f"{where}.init", f"{got} ({reason})", "a pure copy", "copy")]


def with_moved_settings(config: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """A config.json whose quantization_config, at the top or in a section, has the layers of the plan."""
    moved = dict(config)
    section = section_of(config)
    if section is not config:
        moved[SECTION] = with_moved_settings(section, plan)
    if _KEY in moved:
        moved[_KEY] = moved_settings(moved[_KEY], plan)
    return moved


def moved_settings(settings: Any, plan: Plan) -> Any:
    """A quantization_config with the layers that it speaks of by number at their new places."""
    if isinstance(settings, dict):
        return {
            new: moved_settings(value, plan) for key, value in settings.items() for new in _moved(key, plan)
        }
    if isinstance(settings, list):
        return [new for item in settings for new in (_moved(item, plan) if isinstance(item, str) else [item])]
    return settings


def _pure_copy(injection: Injection) -> bool:
    return injection.init == "copy" and injection.noise == 0 and injection.source != "both"


def _packed(base: Base, plan: Plan) -> Iterator[TensorInfo]:
    """Tensors of a layer that write to the stream and are no floats, or no tensors that the family knows."""
    family = family_of(base.config["model_type"])
    prefix = family.stored_layers(base.checkpoint.tensors, plan.depth)
    for name, info in base.checkpoint.tensors.items():
        rest = name.removeprefix(f"{prefix}.").partition(".")[2]
        if not name.startswith(f"{prefix}.") or info.dtype in _ZERO_IS_ZERO:
            continue
        # gpt_oss calls the halves of a packed matrix `down_proj_blocks` and `down_proj_scales`.
        stem = rest.removesuffix("_blocks").removesuffix("_scales")
        if family.writes_residual(rest) or family.writes_residual(stem):
            yield info


def _moved(text: str, plan: Plan) -> list[str]:
    match = _LAYER.search(text)
    if match is None:
        return [text]
    layer = int(match[3])
    start, end = match.span(3)
    return [f"{text[:start]}{i}{text[end:]}" for i, source in enumerate(plan.sources) if source == layer]
