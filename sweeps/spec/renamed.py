"""Settings as earlier versions kept them in specs and studies, read as those of today.

What a study holds is not rewritten: the digests by which files belong to a trial are of the first names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tli.planning.injection import RENAMED, with_new_names

_FIRST = {new: old for old, new in RENAMED.items()}
_KEPT = {"trial", "search", "objective", "sampler", "budget", "stopping", "finalists", "storage", "tracking"}


def todays_settings(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """A trial's settings under today's names; the same object where they are that already."""
    injection = settings.get("injection") if isinstance(settings, Mapping) else None
    if not isinstance(injection, Mapping) or not injection.keys() & RENAMED.keys():
        return settings
    return {**settings, "injection": with_new_names(injection)}


def first_settings(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """A trial's settings under the names that they first had, for digests that must not change."""
    return {**settings, "injection": with_new_names(settings.get("injection", {}), _FIRST)}


def todays_path(path: Any) -> Any:
    """The dotted path of a trial's setting under its name of today; what is no path is left as it is."""
    section, _, name = path.rpartition(".") if isinstance(path, str) else ("", "", "")
    return f"{section}.{RENAMED[name]}" if section.endswith("injection") and name in RENAMED else path


def todays_paths(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Values by path, such as a trial's parameters; the same object where all are named as today."""
    if all(todays_path(path) is path for path in values):
        return values
    return {todays_path(path): value for path, value in values.items()}


def is_before_fresh_seeds(plain: Any) -> bool:
    """Whether a spec was kept by a version that had no `control`, and counted a finalist's first seed too.

    What a version keeps has every section; what a program writes by hand usually leaves most of them out.
    """
    return isinstance(plain, Mapping) and "control" not in plain and plain.keys() >= _KEPT


def todays_spec(plain: Any) -> dict[str, Any]:
    """A kept spec under today's names; of what is no spec, whatever of it is a mapping."""
    spec = dict(plain) if isinstance(plain, Mapping) else {}
    if is_before_fresh_seeds(plain):
        spec["control"] = {"rates": 1, "matched": False}
        finalists = spec["finalists"]
        if isinstance(finalists, Mapping) and isinstance(seeds := finalists.get("seeds"), int):
            spec["finalists"] = {**finalists, "seeds": max(1, seeds - 1)}
    if isinstance(trial := spec.get("trial"), Mapping):
        spec["trial"] = todays_settings(trial)
    if isinstance(search := spec.get("search"), Mapping):
        spec["search"] = {path: _todays_range(wanted) for path, wanted in todays_paths(search).items()}
    if isinstance(finalists := spec.get("finalists"), Mapping) and "per" in finalists:
        spec["finalists"] = {**finalists, "per": todays_path(finalists["per"])}
    return spec


def _todays_range(wanted: Any) -> Any:
    if isinstance(wanted, Mapping) and isinstance(when := wanted.get("when"), Mapping):
        return {**wanted, "when": todays_paths(when)}
    return wanted
