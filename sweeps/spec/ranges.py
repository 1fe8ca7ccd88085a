"""Search ranges as a spec writes them, parsed one by one with every mistake in each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from sweeps.wording import Fault, formatted, nearest

KINDS = ("choice", "uniform", "log", "int")
LARGEST_INT = 2**53  # larger whole numbers do not survive JSON, nor the samplers' floats

_FORMS = "one of {choice: [...]}, {uniform: [low, high]}, {log: [low, high]}, {int: [low, high]}"


@dataclass(frozen=True)
class Range:
    """Where one searched setting may lie: exactly one of the four forms, both ends included.

    `step` spaces `uniform` and `int`. `when` maps other searched paths to the values under which this one
    is asked for at all.
    """

    choice: tuple[Any, ...] | None = None
    uniform: tuple[float, float] | None = None
    log: tuple[float, float] | None = None
    int_: tuple[int, int] | None = None
    step: float | int | None = None
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """`choice`, `uniform`, `log` or `int`."""
        return next(kind for kind in KINDS if self._form(kind) is not None)

    @property
    def ends(self) -> tuple[Any, ...]:
        """The choices, or the lower and the upper end."""
        values: tuple[Any, ...] = self._form(self.kind)
        return values

    def allows(self, value: Any) -> bool:
        """Whether a value lies in the range; a step is not looked at."""
        if self.choice is not None:
            return any(type(value) is type(choice) and value == choice for choice in self.choice)
        low, high = self.ends
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        return numeric and low <= value <= high

    def to_json(self) -> dict[str, Any]:
        """As a spec writes it."""
        written: dict[str, Any] = {self.kind: list(self.ends)}
        if self.step is not None:
            written["step"] = self.step
        if self.when:
            written["when"] = {path: list(values) for path, values in self.when.items()}
        return written

    def _form(self, kind: str) -> Any:
        return self.int_ if kind == "int" else getattr(self, kind)


def fractional(value: Any) -> Any:
    """A whole number as one with a point; what is too large for that is left to the limits."""
    small = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST_INT
    return float(value) if small else value


def read_range(value: Any, path: str) -> tuple[Range | None, list[Fault]]:
    """The range written at a dotted path, or None with everything that is wrong with it."""
    if not isinstance(value, Mapping):
        return None, [Fault(path, formatted(value), _FORMS, _probable_form(value))]
    kinds = [kind for kind in KINDS if kind in value]
    faults = [_unknown(f"{path}.{name}", name) for name in value if name not in (*KINDS, "step", "when")]
    if len(kinds) != 1:
        got = f"{' and '.join(kinds)} together" if kinds else "no form" if value else "an empty range"
        if kinds or not faults:
            faults.append(Fault(path, got, _FORMS))
        return None, faults
    kind = kinds[0]
    ends = value[kind]
    if kind == "choice":
        faults += _choice_faults(ends, f"{path}.choice")
    else:
        faults += _bound_faults(kind, ends, f"{path}.{kind}")
    if "step" in value:
        # Steps are judged against the ends, so only when those can be used.
        faults += _step_faults(kind, ends, value["step"], f"{path}.step") if not faults else []
    when, when_faults = _when(value["when"], f"{path}.when") if "when" in value else ({}, [])
    faults += when_faults
    if faults:
        return None, faults
    return _built(kind, ends, value.get("step"), when), []


def _built(kind: str, ends: list[Any], step: float | None, when: Mapping[str, tuple[Any, ...]]) -> Range:
    if kind == "choice":
        return Range(choice=tuple(ends), when=when)
    if kind == "int":
        return Range(int_=(ends[0], ends[1]), step=step, when=when)
    low, high = float(ends[0]), float(ends[1])
    if kind == "log":
        return Range(log=(low, high), when=when)
    return Range(uniform=(low, high), step=None if step is None else float(step), when=when)


def _unknown(path: str, name: str) -> Fault:
    expected = f"one of {', '.join((*KINDS, 'step', 'when'))}"
    return Fault(
        path, f"the unknown name {formatted(name)}", expected, nearest(name, (*KINDS, "step", "when")) or ""
    )


def _probable_form(value: Any) -> str:
    if isinstance(value, list):
        return "{choice: " + formatted(value) + "}"
    return "deleting it and setting the value under trial" if value is not None else "{log: [1.0e-4, 1.0e-2]}"


def _choice_faults(values: Any, path: str) -> Iterator[Fault]:
    if not isinstance(values, list) or not values:
        yield Fault(path, formatted(values), "a list of at least one value", "[1, 2, 4]")
        return
    kinds = set()
    for index, value in enumerate(values):
        place = f"{path}[{index}]"
        if isinstance(value, list | Mapping):
            yield Fault(place, formatted(value), "a single value")
            return
        if _is_number(value) and not _is_finite(value):
            yield Fault(place, formatted(value), "a finite number")
        elif _is_number(value) and isinstance(value, int) and abs(value) > LARGEST_INT:
            yield Fault(place, formatted(value), f"a whole number of at most {LARGEST_INT}")
        if any(_same(value, earlier) for earlier in values[:index]):
            yield Fault(
                place, f"{formatted(value)} a second time", "every choice once", "deleting one of them"
            )
        if value is not None:
            kinds.add("number" if _is_number(value) else type(value).__name__)
    if len(kinds) > 1:
        yield Fault(path, f"choices of several kinds, {formatted(values)}", "only numbers or only texts")


def _bound_faults(kind: str, ends: Any, path: str) -> Iterator[Fault]:
    whole = kind == "int"
    what = "two whole numbers" if whole else "two numbers"
    remedy = {"log": "[1.0e-4, 1.0e-2]", "uniform": "[0.1, 0.9]", "int": "[1, 8]"}[kind]
    if not isinstance(ends, list) or len(ends) != 2:
        yield Fault(path, formatted(ends), f"{what}, [low, high]", remedy)
        return
    wrong = False
    for index, end in enumerate(ends):
        place = f"{path}[{index}]"
        if not _is_number(end) or (whole and not isinstance(end, int)):
            wrong = True
            text = f"the text {formatted(end)}" if isinstance(end, str) else formatted(end)
            yield Fault(place, text, "a whole number" if whole else "a number")
        elif not _is_finite(end):
            wrong = True
            yield Fault(place, formatted(end), "a finite number")
        elif abs(end) > LARGEST_INT and isinstance(end, int):
            wrong = True
            yield Fault(place, formatted(end), f"a whole number of at most {LARGEST_INT}")
        elif kind == "log" and end <= 0:
            wrong = True
            yield Fault(place, formatted(end), "a number above 0, as a log range needs", "1.0e-5 or uniform")
    if not wrong and not ends[0] < ends[1]:
        got = f"low {formatted(ends[0])} and high {formatted(ends[1])}"
        remedy = formatted([ends[1], ends[0]]) if ends[0] != ends[1] else "setting the value under trial"
        yield Fault(path, got, "low below high", remedy)


def _step_faults(kind: str, ends: list[Any], step: Any, path: str) -> Iterator[Fault]:
    if kind not in ("uniform", "int"):
        yield Fault(path, f"a step with {kind}", "a step only with uniform or int", "deleting it")
        return
    whole = kind == "int"
    usable = isinstance(step, int) if whole else isinstance(step, int | float)
    if isinstance(step, bool) or not usable or not _is_finite(step) or step <= 0:
        expected = "a whole number of at least 1" if whole else "a finite number above 0"
        yield Fault(path, formatted(step), expected)
        return
    # Fractions of the decimals as written: 0.1 + 0.2 must reach 0.3.
    low, high, size = (Fraction(repr(number)) for number in (ends[0], ends[1], step))
    if size > high - low:
        yield Fault(
            path,
            formatted(step),
            f"a step of at most {formatted(_plain(high - low, whole=whole))}, the whole range",
        )
    elif (high - low) % size:
        reached = low + (high - low) // size * size
        got = f"a step of {formatted(step)}, which misses {formatted(ends[1])}"
        remedy = f"{formatted(_plain(reached, whole=whole))} as the upper end"
        yield Fault(path, got, "a step that reaches the upper end", remedy)


def _plain(number: Fraction, *, whole: bool) -> float | int:
    return int(number) if whole else float(number)


def _when(value: Any, path: str) -> tuple[dict[str, tuple[Any, ...]], list[Fault]]:
    if not isinstance(value, Mapping) or not value:
        expected = "a mapping from another searched path to its values"
        return {}, [Fault(path, formatted(value), expected, "{injection.init: damped}")]
    when: dict[str, tuple[Any, ...]] = {}
    faults = []
    for other, values in value.items():
        several = values if isinstance(values, list) else [values]
        if not several or any(isinstance(each, list | Mapping) for each in several):
            faults.append(Fault(f"{path}.{other}", formatted(values), "a value or a list of values"))
        when[other] = tuple(several)
    return when, faults


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_finite(value: float) -> bool:
    return isinstance(value, int) or math.isfinite(value)
