"""Schema errors as problems with a remedy: one catalogue of settings, one wording for all."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sweeps.spec.meant import alias, as_section, in_units, switched_off
from sweeps.wording import Fault, formatted, masked, nearest
from tli.places import means_null
from tli.planning.injection import RENAMED

_NAMED_BY_USERS = ("data.sources", "data.measured_only")
ANY_NAME = "NAME"  # in a path of the catalogue, where a user gives a name
_NAME = re.compile(r"\w+", re.ASCII)


@dataclass(frozen=True)
class Setting:
    """One setting or section of the spec: what belongs there, in words, and a value that would do."""

    expected: str
    example: Any = None
    names: tuple[str, ...] = ()  # where only these are allowed
    section: bool = False
    required: bool = False
    optional: bool = False  # null will do


Catalogue = Mapping[str, Setting]  # by dotted path, in the order of the spec


def schema_fault(error: Mapping[str, Any], catalogue: Catalogue) -> Fault:
    """One error of the schema (`type`, `loc`, `input` as pydantic gives them) as a fault."""
    path = _path(error["loc"])
    if error["type"] == "extra_forbidden":
        return unknown_setting(path, catalogue, error["input"])
    known = _in_catalogue(path, catalogue)
    setting = catalogue.get(known) or catalogue[known.rpartition(".")[0]]
    if error["type"] == "missing":
        leaf = f"{path.rpartition('.')[2]}: "
        example = copy.deepcopy(setting.example)
        return Fault(path, "nothing", setting.expected, leaf + _written(example))
    value = error["input"]
    got = (
        f"the text {formatted(value)}"
        if isinstance(value, str) and not _wants_text(setting)
        else formatted(value)
    )
    names = {name: each.names for name, each in settings_below(catalogue, f"{path}.").items()}
    meant = switched_off(path, value) or as_section(path, value, names)
    return Fault(path, got, setting.expected, meant or _remedy(path, value, setting))


def _in_catalogue(path: str, catalogue: Catalogue) -> str:
    """A dotted path as the catalogue has it: without indices, `NAME` for the names that a user gives."""
    parts = path.partition("[")[0].split(".")
    for place in range(1, len(parts)):
        if ".".join([*parts[:place], ANY_NAME]) in catalogue:
            parts[place] = ANY_NAME
    return ".".join(parts)


def _path(parts: Iterable[str | int]) -> str:
    """A dotted path, items of a list by their index: `warm_start[0]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")


def unknown_setting(path: str, catalogue: Catalogue, value: Any = None) -> Fault:
    """The fault of a name that means nothing, with the path that was probably meant.

    Args:
        path: of the name.
        catalogue: all settings.
        value: what was given there; of a section that means one setting, that setting is told.
    """
    section, _, name = path.rpartition(".")
    known = _in_catalogue(section, catalogue)
    siblings = [other.rpartition(".")[2] for other in catalogue if other.rpartition(".")[0] == known]
    meant = nearest_path(name, section, siblings, catalogue)
    elsewhere = meant is not None and meant.rpartition(".")[0] != section
    if elsewhere and isinstance(value, Mapping) and len(value) == 1 and catalogue[str(meant)].section:
        meant = nearest_setting(f"{meant}.{next(iter(value))}", catalogue) or meant
    elif meant is not None and (off := switched_off(meant, value)):
        meant = f"{meant}: {off}"
    return Fault(path, "an unknown setting", f"one of {', '.join(siblings)}", meant or "deleting it")


def without_odd_names(values: Mapping[str, Any], section: str = "") -> tuple[dict[str, Any], list[Fault]]:
    """The values without names that no setting can have, with a fault for each.

    A dotted one would be taken for a path, below. What is searched is named by paths and left alone.
    """
    plain: dict[str, Any] = {}
    faults: list[Fault] = []
    for name, value in values.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            faults.append(_odd_name(section, name))
        elif isinstance(value, dict) and (section or name != "search"):
            plain[name], wrong = without_odd_names(value, f"{section}.{name}" if section else name)
            faults += wrong
        else:
            plain[name] = value
    return plain, faults


def _odd_name(section: str, name: Any) -> Fault:
    if section in _NAMED_BY_USERS:
        remedy = re.sub(r"\W", "_", str(name), flags=re.ASCII)
        return Fault(section, f"the name {formatted(name)}", "a name of A-Z a-z 0-9 _", remedy)
    head, _, value = str(name).partition(":")
    # YAML takes `{k:2}` for one name; only with a space behind the colon it is a setting and its value.
    unspaced = value and _NAME.fullmatch(head)
    remedy = f"{head}: {masked(value)}, with a space" if unspaced else "deleting it"
    return Fault(section, f"an unknown setting {formatted(name)}", "names of settings", remedy)


def nearest_path(name: str, section: str, siblings: Collection[str], catalogue: Catalogue) -> str | None:
    """The dotted path that a misplaced or misspelt name was meant for: misspelt, its own section first."""
    prefix = f"{section}." if section else ""
    leaves: dict[str, str] = {}
    for path in catalogue:
        leaves.setdefault(path.rpartition(".")[2], path)
    if not section and name in leaves:  # `recipe: ...` is meant for the trial's
        return leaves[name]
    if RENAMED.get(name) in siblings:
        return f"{prefix}{RENAMED[name]}"
    if other := alias(name, leaves):
        return f"{prefix}{other}" if other in siblings else leaves[other]
    close = nearest(name, siblings)
    if close:
        return prefix + close
    elsewhere = nearest(name.rpartition(".")[2], leaves)
    return leaves[elsewhere] if elsewhere else None


def settings_below(catalogue: Catalogue, prefix: str) -> dict[str, Setting]:
    """The settings that are no sections, by their paths behind a prefix."""
    found = {path: each for path, each in catalogue.items() if path.startswith(prefix) and not each.section}
    return {path.removeprefix(prefix): each for path, each in found.items()}


def nearest_setting(path: str, catalogue: Catalogue) -> str | None:
    """The dotted path that a wrong one was probably meant for."""
    section, _, name = path.rpartition(".")
    siblings = [other.rpartition(".")[2] for other in catalogue if other.rpartition(".")[0] == section]
    return nearest_path(name, section, siblings, catalogue)


def repaired(values: Mapping[str, Any], broken: Iterable[str], catalogue: Catalogue) -> dict[str, Any]:
    """The values with everything broken taken out, so that the rest can be judged too.

    What must not be missing is filled with its example.
    """
    result: dict[str, Any] = copy.deepcopy(dict(values))
    for path in broken:
        holder: Any = result
        *sections, name = path.partition("[")[0].split(".")
        for section in sections:
            holder = holder.get(section) if isinstance(holder, dict) else None
        if isinstance(holder, dict):
            holder.pop(name, None)
            setting = catalogue.get(_in_catalogue(path, catalogue))
            if setting is not None and setting.required:
                holder[name] = copy.deepcopy(setting.example)
    return result


def untouched(faults: Iterable[Fault], broken: Iterable[str]) -> Iterator[Fault]:
    """Faults that rest on nothing that is itself broken."""
    known = tuple(broken)
    for fault in faults:
        paths = (fault.path, *fault.involves)
        if not any(_within(path, wrong) for path in paths for wrong in known):
            yield fault


def _within(path: str, section: str) -> bool:
    return path == section or path.startswith((f"{section}.", f"{section}["))


def _wants_text(setting: Setting) -> bool:
    return bool(setting.names) or isinstance(setting.example, str)


def _remedy(path: str, value: Any, setting: Setting) -> str:
    if number := in_units(path, value, setting.expected):
        return number
    # Of a name that may be left out beside something else alone, the example is what is needed.
    named = isinstance(setting.example, str)
    if setting.optional and not named and isinstance(value, str) and means_null(value):
        return "null"
    if setting.names:
        return nearest(str(value), setting.names) or _written(setting.example)
    if setting.section:
        if value is None:
            return "deleting the line, or indenting its settings below it"
        return "" if setting.example is None else _written(setting.example)
    return _written(setting.example)


def _written(example: Any) -> str:
    if isinstance(example, Mapping):
        return "{" + ", ".join(f"{name}: {_written(value)}" for name, value in example.items()) + "}"
    return example if isinstance(example, str) else formatted(example)
