"""Everything that can be wrong with an injection's settings, and with the JSON of a plan. No torch."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeGuard

from tli.errors import Problem
from tli.planning.experts import Experts, expert_problems
from tli.planning.injection import (
    IDENTITIES,
    INITS,
    LIST,
    METHODS,
    PLACES,
    RANGE,
    RULES,
    SOURCES,
    Injection,
    counted,
    read_list,
    read_range,
    with_new_names,
)

LAYERS = ("sources", "injected", "between")  # the lists of a plan
_MOST_TIMES = 100
_MOST_LAYERS = 10_000  # no model has more, and a plan from outside must not fill the memory


def injection_problems(injection: Injection, depth: int | None, where: str = "injection") -> list[Problem]:
    """Everything wrong with the settings; what depends on the model is skipped while `depth` is None."""
    problems = [*_name_problems(injection, where)]
    method = injection.method
    if method == "tli" and injection.after is None:
        problems += _k_problems(injection.k, depth, where)
        problems += _sets_problems(injection, depth, where)
    if method == "tli":
        problems += _after_problems(injection, depth, where)
        problems += _block_problems(injection.block, depth, where)
    if method == "repeat" or (method == "tli" and injection.after is None):
        problems += _range_problems(injection.layers, depth, where)
    if method in ("stack", "repeat") and (not _whole(injection.g) or not 2 <= injection.g <= _MOST_TIMES):
        problems.append(Problem(f"{where}.g", repr(injection.g), f"2 to {_MOST_TIMES} times", "2"))
    if method == "dus":
        problems += _m_problems(injection.m, depth, where)
    problems += _weight_problems(injection, where)
    return problems + expert_problems(counted(injection), f"{where}.experts")


def _name_problems(injection: Injection, where: str) -> Iterator[Problem]:
    known = {"method": METHODS, "init": INITS, "place": PLACES, "source": SOURCES, "identity": IDENTITIES}
    for name, names in known.items():
        value = getattr(injection, name)
        if value not in names and not (name == "init" and value is None):
            near = next(iter(difflib.get_close_matches(str(value), names, n=1)), "")
            yield Problem(f"{where}.{name}", repr(value), f"one of {', '.join(names)}", near)


def _k_problems(k: object, depth: int | None, where: str) -> Iterator[Problem]:
    if not _whole(k):
        yield Problem(f"{where}.k", repr(k), "a whole number of layers per set", "4")
    elif k < 1:
        yield Problem(f"{where}.k", str(k), "at least 1 layer per set", "1")
    elif depth is not None and k > depth:
        expected = f"at most {depth}, the model's number of layers"
        yield Problem(f"{where}.k", str(k), expected, str(depth))


def _sets_problems(injection: Injection, depth: int | None, where: str) -> Iterator[Problem]:
    count, k = injection.least_important_sets, injection.k
    if count is None:
        return
    if not _whole(count) or count < 1:
        yield Problem(
            f"{where}.least_important_sets", repr(count), "at least 1 set, or null for all of them", "1"
        )
    elif depth is not None and _whole(k) and 1 <= k <= depth and _range_fits(injection.layers, depth):
        start, stop = read_range(injection.layers, depth)
        possible = -(-(stop - start) // k)
        if count > possible:
            yield Problem(
                f"{where}.least_important_sets",
                str(count),
                f"at most {possible}, the number of sets",
                str(possible),
            )


def _after_problems(injection: Injection, depth: int | None, where: str) -> Iterator[Problem]:
    text, expected = injection.after, "layers from 0, each once, in order, as in '3,7'"
    if text is None:
        return
    if not isinstance(text, str) or not LIST.fullmatch(text):
        yield Problem(f"{where}.after", repr(text), expected, "3,7")
        return
    layers = read_list(text)
    if layers != sorted(set(layers)):
        remedy = ",".join(map(str, sorted(set(layers))))
        yield Problem(f"{where}.after", repr(text), expected, remedy)
    elif depth is not None and layers[-1] >= depth:
        last = f"at most {depth - 1}, the model's last layer"
        yield Problem(f"{where}.after", str(layers[-1]), last, str(depth - 1))


def _block_problems(block: object, depth: int | None, where: str) -> Iterator[Problem]:
    if not _whole(block) or block < 1:
        yield Problem(f"{where}.block", repr(block), "at least 1 layer", "1")
    elif depth is not None and block > depth:
        expected = f"at most {depth}, the model's number of layers"
        yield Problem(f"{where}.block", str(block), expected, str(depth))


def _range_problems(text: object, depth: int | None, where: str) -> Iterator[Problem]:
    if text is None:
        return
    expected = "a range of layers from 0, the last one excluded, as in '4:8'"
    if not isinstance(text, str) or not RANGE.fullmatch(text):
        yield Problem(f"{where}.layers", repr(text), expected, "4:8")
    elif depth is not None and not _range_fits(text, depth):
        yield Problem(f"{where}.layers", repr(text), f"{expected}, within 0:{depth}", f"{depth // 2}:{depth}")
    elif (
        depth is None
        and (match := RANGE.fullmatch(text))
        and match[2]
        and int(match[1] or 0) >= int(match[2])
    ):
        yield Problem(f"{where}.layers", repr(text), expected, "4:8")


def _range_fits(text: str | None, depth: int) -> bool:
    if text is not None and (not isinstance(text, str) or not RANGE.fullmatch(text)):
        return False
    start, stop = read_range(text, depth)
    return 0 <= start < stop <= depth


def _m_problems(m: object, depth: int | None, where: str) -> Iterator[Problem]:
    if not _whole(m) or m < 0:
        yield Problem(f"{where}.m", repr(m), "a whole number of layers to drop from each copy", "1")
    elif depth is not None and 2 * m >= depth:
        expected = f"below {depth / 2:g}, half the model's layers, or nothing is gained"
        yield Problem(f"{where}.m", str(m), expected, str(depth // 4))


def _weight_problems(injection: Injection, where: str) -> Iterator[Problem]:
    scale, noise = injection.scale, injection.noise
    if scale is not None and scale not in RULES and not (_number(scale) and 0 <= scale <= 1):
        expected = f"a residual scale between 0 and 1, or {' or '.join(RULES)}"
        yield Problem(f"{where}.scale", repr(scale), expected, "0.5")
    if not _number(noise) or noise < 0:
        yield Problem(f"{where}.noise", repr(noise), "a deviation of at least 0", "0.01")


def _whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def with_todays_names(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """A plan's JSON that an earlier version wrote, as this one writes it."""
    if not isinstance(value, dict):
        return value
    value = with_new_names(value, {"change": "block_influence"})
    settings = value.get("injection")
    return {**value, "injection": with_new_names(settings)} if isinstance(settings, dict) else value


def form_problems(value: Mapping[str, Any], where: str) -> list[Problem]:
    """Whether a plan's JSON has the form that `to_json` gives it."""
    if not isinstance(value, dict):
        return [Problem(where, repr(value)[:80], "a plan as `tli plan --json` prints it")]
    needed = ("depth", "injection", *LAYERS, "block_influence")
    missing = [name for name in needed if name not in value]
    if missing:
        return [Problem(where, f"no {', '.join(missing)}", "a plan as `tli plan --json` prints it")]
    problems = []
    settings = value["injection"]
    for place, given, kind in (
        (f"{where}.injection", settings, Injection),
        (
            f"{where}.injection.experts",
            settings.get("experts") if isinstance(settings, dict) else None,
            Experts,
        ),
    ):
        names = [item.name for item in fields(kind)]
        if not isinstance(given, dict) or set(given) != set(names):
            got = ", ".join(given) if isinstance(given, dict) else repr(given)
            problems.append(Problem(place, got or "nothing", f"a mapping of {', '.join(names)}"))
    return problems


def depth_problems(depth: object, where: str = "") -> list[Problem]:
    """Whether a number of layers is none that a model can have."""
    place = f"{where}.depth" if where else "depth"
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
        return [Problem(place, repr(depth), "a model of at least 1 layer")]
    if depth > _MOST_LAYERS:
        return [Problem(place, repr(depth), f"a model of at most {_MOST_LAYERS} layers")]
    return []


def influence_problems(influence: object, depth: object, where: str) -> list[Problem]:
    """Whether the changes of the hidden state in a plan's JSON are not a finite number for each layer."""
    numbers = isinstance(influence, list) and all(
        type(item) in (int, float) and abs(item) <= sys.float_info.max for item in influence
    )
    if influence is None or (numbers and len(influence) == depth):  # type: ignore[arg-type]
        return []
    return [Problem(f"{where}.block_influence", repr(influence), "a finite number for each layer, or null")]


def measurement_problems(
    injection: Injection, influence: Sequence[float] | None, where: str
) -> list[Problem]:
    """Whether the least important sets can be told: every layer was measured, and with finite numbers."""
    count, place = injection.least_important_sets, f"{where}.least_important_sets"
    if count is not None and injection.method == "tli" and influence is None:
        expected = "the change of every layer too, measured on text (tli.growth.importance)"
        return [Problem(place, str(count), expected)]
    if influence is not None and not all(map(math.isfinite, influence)):
        got = "layers that change the hidden state by no finite number"
        return [Problem(place, got, "finite ones", "a model whose weights are finite")]
    return []


def list_problems(value: Mapping[str, Any], expected: Mapping[str, Any], where: str) -> list[Problem]:
    """Lists of a plan's JSON that do not follow from its depth and settings."""
    return [
        Problem(f"{where}.{name}", repr(value[name]), f"{expected[name]}, as its depth and settings say")
        for name in LAYERS
        if value[name] != expected[name]
    ]
