"""lineage.json: the origin of a folder's weights, written beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tli.errors import CheckpointError, Problem
from tli.json_files import read_json, reason_of
from tli.models.licence import licence_of

if TYPE_CHECKING:
    from tli.models.base import Base
    from tli.planning.plan import Plan

FILE = "lineage.json"
FORMAT = 1
_LARGEST = 64 << 20  # bytes; a plan names every tensor of a model
_PACKAGES = ("tli-sweeps", "torch", "transformers", "safetensors", "tokenizers", "numpy")


def lineage(base: Base, plan: Plan, *, seed: int, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The content of lineage.json, as JSON values: base, plan, seed and versions, and what is in `extra`.

    With a key `training` in it (or in `extra`) the weights were trained after the upscaling, so `tli verify`
    does not expect them to be what the plan says. No date: the same inputs give the same bytes.
    """
    value: dict[str, Any] = {
        "format": FORMAT,
        "base": {
            "name": base.name,
            "revision": base.revision,
            "fingerprint": base.fingerprint,
            "model_type": base.config["model_type"],
            "parameters": base.facts.parameters,
            "licence": licence_of(base.folder),
        },
        "plan": plan.to_json(),
        "seed": seed,
        "versions": versions(),
    }
    if (base.folder / FILE).is_file():  # upscaled before: its own story goes on
        value["base"]["lineage"] = read_lineage(base.folder)
    return value | dict(extra or {})


def read_lineage(folder: Path) -> dict[str, Any]:
    """The lineage of a written folder. Raises CheckpointError when it has none that can be read."""
    path = folder / FILE
    expected = f"a folder written by `tli upscale`, with its {FILE}"
    if not path.is_file():
        raise CheckpointError(Problem(str(folder), f"no {FILE}", expected))
    try:
        value: dict[str, Any] = read_json(path, _LARGEST)
    except (OSError, ValueError) as error:
        reason = f"no JSON ({reason_of(error)})"
        raise CheckpointError(Problem(str(path), reason, expected)) from None
    if not _is_lineage(value):
        raise CheckpointError(Problem(str(path), "not what this version writes", expected))
    return value


def _is_lineage(value: Any) -> bool:
    """Whether a value has what is read of a lineage; its plan is checked where it is made a plan of."""
    if not isinstance(value, dict) or value.get("format") != FORMAT or "seed" not in value:
        return False
    base = value.get("base")
    if not isinstance(base, dict) or not isinstance(base.get("name"), str):
        return False
    return isinstance(base.get("revision", 0), str | None) and "plan" in value


def write_lineage(folder: Path, value: Mapping[str, Any]) -> None:
    """Writes lineage.json into a folder that is not yet in place (see `tli.checkpoint.atomic`)."""
    (folder / FILE).write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


@cache
def versions() -> dict[str, str]:
    """Of Python and the packages that make the numbers; none of them is imported for it."""
    import platform
    from importlib import metadata

    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
