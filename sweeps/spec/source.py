"""Reads a spec, a file or a packaged one, and applies the command line's overrides."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeps.addresses import MASK, secret_name
from sweeps.errors import Problem, SpecError
from sweeps.spec.model import RAISED, Spec
from sweeps.spec.packaged_specs import packaged, packaged_text
from sweeps.spec.ranges import KINDS
from sweeps.spec.written import Source
from sweeps.spec.yaml_source import parse_value, read_bytes, read_file
from sweeps.wording import holds_any, masked
from tli.argument_types import PATH, Kind, require_types

Overrides = Mapping[str, Any] | Sequence[str] | str
_REFERENCE = Kind("a YAML file, or the name of a packaged spec", '"quickstart"', (str, os.PathLike))
_OVERRIDES = Kind("a mapping of dotted paths to values", '{"budget.trials": 40}', (Mapping, Sequence))
_SUFFIXES = (".yaml", ".yml")


def read_spec(reference: str, overrides: Sequence[str], runs: str | None) -> tuple[Source, list[Problem]]:
    """The values of a spec with the command line's over them, and the options that cannot be laid over it.

    Raises:
        SpecError: no such spec, or text that cannot be read.
    """
    source = _found(reference)
    problems: list[Problem] = []
    for override in overrides:
        try:
            _lay_over(source, override)
        except SpecError as error:
            problems += error.problems
    if runs is not None:
        _put(source, ["storage", "artifacts"], runs, f"--runs {masked(runs)}")
    return source, problems


def _found(reference: str) -> Source:
    path = Path(reference)
    if reference in packaged() and not path.is_file():
        text = packaged_text(reference)
        return read_bytes(text, f"{reference}.yaml")
    if path.exists():
        return read_file(path, reference)
    near = _near(path)
    names = ", ".join(packaged())
    raise SpecError(Problem(reference or "spec", "no such file", f"a YAML file, or one of {names}", near))


def _near(path: Path) -> str:
    folder = path.parent
    files = [each.name for each in folder.iterdir() if each.suffix in _SUFFIXES] if folder.is_dir() else []
    match = difflib.get_close_matches(path.name, [*files, *packaged()], n=1, cutoff=0.5)
    if not match:
        return ""
    return str(folder / match[0]) if match[0] in files else match[0]


def _lay_over(source: Source, override: str) -> None:
    path, equals, text = override.partition("=")
    option = f"--set {masked(path)}{equals}{MASK if secret_name(path) else masked(text)}"
    path = path.strip()
    if not equals or not all(path.split(".")):
        raise SpecError(
            Problem(option, "no dotted path and value", "dotted.path=value", "--set budget.trials=40")
        )
    value = parse_value(text, option)
    if holds_any(value) and masked(text) == text:  # written with YAML's escapes
        option = f"--set {path}={MASK}"
    _put(source, _keys(path, source.values), value, option)


def _keys(path: str, values: Mapping[str, Any]) -> list[str]:
    """The names from the root to a setting. In `search` a dotted path is one name."""
    section, _, rest = path.partition(".")
    if section != "search" or not rest:
        return path.split(".")
    search = values.get("search")
    for known in sorted(search, key=len, reverse=True) if isinstance(search, Mapping) else ():
        if rest.startswith(f"{known}."):
            inner = rest.removeprefix(f"{known}.")
            return [
                "search",
                known,
                *(["when", inner[5:]] if inner.startswith("when.") else inner.split(".")),
            ]
    searched, _, last = rest.rpartition(".")
    return ["search", searched, last] if searched and last in (*KINDS, "step") else ["search", rest]


def _put(source: Source, keys: Sequence[str], value: Any, option: str) -> None:
    holder = source.values
    for depth, key in enumerate(keys[:-1], start=1):
        inner = holder.get(key)
        if inner is None:
            inner = holder[key] = {}
            source.origins[".".join(keys[:depth])] = option
        if not isinstance(inner, dict):
            path = ".".join(keys[:depth])
            raise SpecError(
                Problem(option, f"a path through {path}, which holds one value", "a path to a setting")
            )
        holder = inner
    holder[keys[-1]] = value
    path = ".".join(keys)
    for known in [
        each for each in source.places if each == path or each.startswith((f"{path}.", f"{path}["))
    ]:
        del source.places[known]
    source.origins[path] = option


def load_spec(
    reference: str | os.PathLike[str],
    *,
    overrides: Overrides = (),
    runs: str | os.PathLike[str] | None = None,
) -> Spec:
    """Read and check a spec: a YAML file, or the name of a packaged one.

    Parameters
    ----------
    reference : str or path-like
        A file, or a name such as ``quickstart``.
    overrides : mapping, or sequence of str
        Settings over those of the file: a mapping of dotted paths to values, or ``dotted.path=value`` as the
        option ``--set`` takes it.
    runs : str or path-like, optional
        Folder of the artifacts, as the option ``--runs``; where left out, the spec's.

    Returns
    -------
    Spec
        Whole and checked; its base, its text and its stores were not looked at.

    Raises
    ------
    InputError
        With all problems, each at its line and column or its option.

    Examples
    --------
    >>> import sweeps
    >>> spec = sweeps.load_spec("quickstart", overrides={"budget.trials": 40})
    >>> spec.name, spec.budget.trials
    ('quickstart', 40)
    """
    require_types(
        reference=(reference, _REFERENCE), overrides=(overrides, _OVERRIDES), runs=(runs, PATH.optional)
    )
    runs = None if runs is None else os.fspath(runs)
    source, problems = read_spec(os.fspath(reference), as_options(overrides), runs)
    try:
        spec = Spec.checked(source)
    except SpecError as error:
        raise SpecError(*problems, *error.problems) from None
    if problems:
        raise SpecError(*problems)
    return spec


def as_options(overrides: Overrides) -> list[str]:
    """Overrides as the option `--set` takes them, `dotted.path=value`.

    Raises:
        SpecError: a value of a mapping that YAML has no form of.
    """
    if isinstance(overrides, str):
        return [overrides]
    problems, options = [], list[str]()
    if not isinstance(overrides, Mapping):
        wrong = [each for each in overrides if not isinstance(each, str)]
        expected = "texts as 'budget.trials=40', or a mapping"
        problems = [Problem("overrides", repr(each)[:80], expected) for each in wrong]
        options, overrides = list(overrides), {}
    for path, value in overrides.items():
        try:
            options.append(f"{path}={json.dumps(value, ensure_ascii=False)}")
        except (TypeError, ValueError):
            got = f"a value of type {type(value).__name__}"
            problems.append(Problem(f"overrides: {path}", got, "a number, a text, true, false or null"))
    if problems:
        raise SpecError(*problems)
    return options


def name_budget(overrides: Overrides) -> bool:
    """Whether a setting of the budget, or an amount of `RAISED`, is among them: then more is wanted."""
    return any(option.lstrip().startswith(("budget.", *RAISED)) for option in as_options(overrides))
