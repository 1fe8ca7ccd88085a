"""Searched settings without effect: all of their values would train the same model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from typing import Any

from sweeps.spec.ranges import Range
from sweeps.spec.settings import TrialSettings
from sweeps.wording import Fault, formatted
from tli.planning.injection import Injection

# Settings of the injection on which it depends whether the others are read.
_DECIDING = tuple(f"injection.{name}" for name in ("method", "after", "init", "experts.count"))


def unread_faults(trial: TrialSettings, search: Mapping[str, Range]) -> Iterator[Fault]:
    """Searched settings of the injection whose values build one model under all that the search combines.

    Args:
        trial: the baseline.
        search: ranges of sound values, by dotted path.
    """
    for path, wanted in search.items():
        if not path.startswith("injection.") or path == "injection.method" or len(wanted.ends) < 2:
            continue
        if any(_differs(trial, path, wanted, given) for given in _combined(path, wanted, search)):
            continue
        decisive = [each for each in _DECIDING if each != path]
        involves = (*(f"trial.{each}" for each in decisive), *(f"search.{each}" for each in decisive))
        values = ", ".join(
            f"{each}: {formatted(_baseline(trial, each))}" for each in decisive if each not in search
        )
        got = f"{formatted(path)}, which no trial reads" + (f" (with {values})" if values else "")
        yield Fault(f"search.{path}", got, "a setting that changes the model", "deleting it", involves)


def _combined(path: str, wanted: Range, search: Mapping[str, Range]) -> Iterator[dict[str, Any]]:
    """What the deciding settings may be in trials that ask for `path`, where they are searched."""
    searched = [each for each in _DECIDING if each in search and each != path]
    allowed = [wanted.when.get(each, search[each].ends) for each in searched]
    for values in product(*allowed):
        yield dict(zip(searched, values, strict=True))


def _differs(trial: TrialSettings, path: str, wanted: Range, given: Mapping[str, Any]) -> bool:
    first, *others = (_replaced(trial.to_injection(), {**given, path: value}) for value in wanted.ends)
    return any(other != first for other in others)


def _replaced(injection: Injection, params: Mapping[str, Any]) -> Injection:
    """The injection with dotted paths replaced, resolved: equal for what builds the same model."""
    names = {path.removeprefix("injection."): value for path, value in params.items()}
    experts = {
        name.removeprefix("experts."): names.pop(name) for name in [*names] if name.startswith("experts.")
    }
    return replace(injection, **names, experts=replace(injection.experts, **experts)).resolved()


def _baseline(trial: TrialSettings, path: str) -> Any:
    found: Any = trial
    for name in path.split("."):
        found = getattr(found, name)
    return found
