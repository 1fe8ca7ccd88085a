"""How a model is grown, as keyword arguments: what `tli.plan` and `tli.upscale` take by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, TypedDict

from tli.errors import PlanError, Problem
from tli.planning.experts import Experts
from tli.planning.injection import METHODS, RENAMED, Identity, Init, Injection, Method, Origin, Place, Rule

# Settings that say where layers go, as `after` does by itself.
_PLACING = ("k", "place", "layers", "least_important_sets")


class KeywordsBesideK(TypedDict, total=False):
    """The fields of `Injection` but for `k`, each of which may be left out."""

    method: Method
    place: Place
    layers: str | None
    after: str | None
    least_important_sets: int | None
    block: int
    m: int | None
    g: int
    init: Init | None
    scale: float | Rule | None
    source: Origin
    noise: float
    identity: Identity
    experts: Experts


class InjectionKeywords(KeywordsBesideK, total=False):
    """The fields of `Injection`, each of which may be left out."""

    k: int | None


def injection_from(settings: Mapping[str, Any], where: str = "injection") -> Injection:
    """The injection that keyword arguments, or the options of a command, describe.

    Unlike an `Injection` of a search, what is given here is meant: a setting that the method does not read is
    a problem. Values are judged by `injection_problems`.

    Raises:
        PlanError: unknown names, settings that the method does not read, experts that are none; all at once.
    """
    names = [item.name for item in fields(Injection)]
    problems = [_unknown(name, names, where) for name in settings if name not in names]
    known = {name: value for name, value in settings.items() if name in names}
    if not isinstance(known.get("experts", Experts()), Experts):
        got = repr(known.pop("experts"))
        problems.append(Problem(f"{where}.experts", got, "tli.Experts", "tli.Experts(count=8)"))
    if isinstance(whole := known.pop("k", None), Injection):
        problems.append(_spelled_out(whole, where))
    elif "k" in settings:
        known["k"] = whole
    injection = Injection(**known)
    problems += _unread(injection, known, where)
    if problems:
        raise PlanError(*problems)
    return injection


def _unknown(name: str, names: list[str], where: str) -> Problem:
    if name in RENAMED:
        return Problem(
            f"{where}.{name}",
            "a name of earlier versions",
            f"{RENAMED[name]}, as it is called now",
            RENAMED[name],
        )
    near = next(iter(difflib.get_close_matches(name, names, n=1)), "")
    return Problem(f"{where}.{name}", "no setting of this name", f"one of {', '.join(names)}", near)


def _spelled_out(injection: Injection, where: str) -> Problem:
    """A whole injection in the place of its first field, with what it says by name."""
    usual = vars(Injection())
    words = ", ".join(f"{name}={value!r}" for name, value in vars(injection).items() if value != usual[name])
    return Problem(f"{where}.k", "a tli.Injection", "its fields, each by name", words or "k=4")


def _unread(injection: Injection, given: Mapping[str, Any], where: str) -> Iterator[Problem]:
    """What was given and is not read: by the method, or beside `after`."""
    if injection.method not in METHODS:
        return
    if injection.method == "tli" and injection.after is not None:
        for name in _PLACING:
            if given.get(name) is not None:
                expected = "none beside after, which names every place"
                yield Problem(f"{where}.{name}", str(given[name]), expected, "one of them")
    for name, value in given.items():
        if value is not None and not injection.read_by_method(name):
            readers = [method for method in METHODS if Injection(method).read_by_method(name)]
            expected = f"none, as the method {injection.method} does not read it"
            yield Problem(f"{where}.{name}", str(value), expected, f"method={readers[0]}")
