"""How a model is grown, as a user writes it, and everything that can be wrong with that. No torch."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeGuard, get_args

from tli.errors import Problem
from tli.planning.experts import Experts, expert_problems

Method = Literal["tli", "dus", "stack", "repeat", "moe", "none"]
Init = Literal["copy", "identity", "damped", "mean", "slerp", "aligned", "predicted", "random"]
Place = Literal["end", "start", "middle"]
Origin = Literal["previous", "next", "both"]
Rule = Literal["1/n", "1/sqrt(n)"]  # residual scales by how often a layer stands in the new stack
Identity = Literal["zero-output", "zero-gain"]
METHODS: tuple[Method, ...] = get_args(Method)
INITS: tuple[Init, ...] = get_args(Init)
PLACES: tuple[Place, ...] = get_args(Place)
SOURCES: tuple[Origin, ...] = get_args(Origin)
RULES: tuple[Rule, ...] = get_args(Rule)
IDENTITIES: tuple[Identity, ...] = get_args(Identity)

# The first weights that the papers of a method use, where the user names none.
_USUAL_INIT: dict[str, Init] = {"tli": "identity", "dus": "copy", "stack": "copy", "repeat": "copy"}
_USUAL_SCALE = {"identity": 0.0, "damped": 0.5}
_USUAL_EXPERTS = 8
# Which settings a method reads, besides those of first weights.
_READ = {
    "tli": ("k", "place", "layers", "after", "least_important_sets", "block"),
    "dus": ("m",),
    "stack": ("g",),
    "repeat": ("layers", "g"),
    "moe": (),
    "none": (),
}
_WEIGHTS = ("init", "scale", "source", "noise", "identity")
_MOST_TIMES = 100
_RANGE = re.compile(r"\s*(\d{0,6})\s*:\s*(\d{0,6})\s*")
_LIST = re.compile(r"\s*\d{1,6}\s*(,\s*\d{1,6}\s*)*")


RENAMED = {"sets": "least_important_sets"}  # what a setting was called in earlier versions


def with_new_names(value: Mapping[str, Any], renamed: Mapping[str, str] = RENAMED) -> dict[str, Any]:
    """A mapping that an earlier version wrote, under the names of this one."""
    return {
        renamed[name] if name in renamed and renamed[name] not in value else name: item
        for name, item in value.items()
    }


@dataclass(frozen=True)
class Injection:
    """How a model is grown. What a method does not read is left alone, so a sweep may search over methods.

    method    tli: a new layer into every set of `k` layers. dus: two copies of the stack, the last `m` layers
              of the first and the first `m` of the second dropped (arXiv 2312.15166). stack: the whole stack
              `g` times (arXiv 2405.15319). repeat: each layer of the range `layers` `g` times in a row.
              moe: no new layers, but experts. none: the model as it is (the control).
    k         layers in a set; it need not divide the depth, the last set may be shorter
    place     where in its set a new layer goes: end, start or middle
    layers    range `start:stop` of layers, from 0, the last one excluded; either end may be left out
    after     instead of `k`: the layers, as in `3,7`, that a new one follows
    least_important_sets  only so many sets get a new layer: those that change the hidden state least
    block     layers injected together, as one block: for stacks that repeat a pattern of several layers
    init      first weights of a new layer (`tli.initializers.initial`); null: identity for tli, else copy
    scale     residual scale: what a new layer adds to the stream is scaled by it. A number from 0 to 1, or
              1/n or 1/sqrt(n), where the layer's source stands n times in the new stack. copy and identity
              are its ends and do not read it; null: 0.5 for damped, 1 for the others
    source    old layer that copy, identity and damped start from: previous, next, or the mean of both
    noise     deviation of normal noise on the matrices of a new layer, relative to that of each matrix
    identity  how identity is reached where a norm follows a sublayer: zero-output zeroes what is normed,
              zero-gain the gain of the norm. Elsewhere both are the same
    experts   the feed-forward parts become experts after the layers were injected, when it has a count
    """

    method: Method = "tli"
    k: int | None = 4
    place: Place = "end"
    layers: str | None = None
    after: str | None = None
    least_important_sets: int | None = None
    block: int = 1
    m: int | None = None
    g: int = 2
    init: Init | None = None
    scale: float | Rule | None = None
    source: Origin = "previous"
    noise: float = 0.0
    identity: Identity = "zero-output"
    experts: Experts = field(default_factory=Experts)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Injection:
        """The inverse of `asdict`; what is left out has its default. Raises TypeError for other names.

        Names of earlier versions are taken: kept plans, studies and lineages hold them.
        """
        value = with_new_names(value)
        return cls(**{**value, "experts": Experts(**value.get("experts", {}))})

    @property
    def deepens(self) -> bool:
        """Whether the method adds layers."""
        return self.method not in ("moe", "none")

    def resolved(self) -> Injection:
        """The same with nothing left to a default that depends on another setting, and with defaults where
        the method reads nothing: what two users mean the same by is equal.
        """
        read = (*_READ[self.method], *(_WEIGHTS if self.deepens else ()))
        unread = {item.name: _DEFAULT[item.name] for item in fields(self) if item.name not in read}
        unread["experts"] = self.experts.resolved() if self.method != "none" else Experts()
        if self.method == "moe":
            unread["experts"] = _counted(self).resolved()
        if self.method != "tli" or self.after is not None:
            unread |= {"k": None, "place": "end", "least_important_sets": None}
            if self.method == "tli":
                unread["layers"] = None
        del unread["method"]
        decided = replace(self, **unread)
        if not self.deepens:
            return decided
        init = self.init or _USUAL_INIT[self.method]
        scale = self.scale if self.scale is not None else _USUAL_SCALE.get(init, 1.0)
        if init in ("copy", "identity"):
            scale = _USUAL_SCALE.get(init, 1.0)
        source = self.source if init in ("copy", "identity", "damped") else "previous"
        scale = scale if isinstance(scale, str) else float(scale)
        return replace(decided, init=init, scale=scale, source=source, noise=float(self.noise))

    @property
    def label(self) -> str:
        """What tells its shape from that of others, of a resolved one: `K=4`, `dus m=2`, `K=4 8 experts`."""
        parts = []
        if self.method == "tli":
            parts = [f"K={self.k}" if self.after is None else f"after {self.after}"]
        elif self.method != "moe":
            parts = [self.method]
        if self.method != "none":
            told = {"m": self.m, "layers": self.layers, "sets": self.least_important_sets}
            told |= {"g": self.g} if "g" in _READ[self.method] else {}
            told |= {"block": self.block} if self.block != 1 else {}
            parts += [f"{name}={value}" for name, value in told.items() if value is not None]
        if self.experts.count is not None:
            parts += [f"{self.experts.count} experts"]
        return " ".join(parts)

    def read_by_method(self, name: str) -> bool:
        """Whether a method reads a setting; `experts` and what is about first weights are read by all."""
        return name in ("method", "experts", *_WEIGHTS, *_READ.get(self.method, ()))


def _counted(injection: Injection) -> Experts:
    """The experts, with the usual number where the method is of experts and names none."""
    experts = injection.experts
    usual = injection.method == "moe" and experts.count is None
    return replace(experts, count=_USUAL_EXPERTS) if usual else experts


_DEFAULT: dict[str, Any] = {name: getattr(Injection(), name) for name in Injection.__dataclass_fields__}


def read_range(text: str | None, depth: int) -> tuple[int, int]:
    """`start:stop` within a stack of `depth` layers; all of it for None."""
    if text is None:
        return 0, depth
    match = _RANGE.fullmatch(text)
    assert match, "a range that is none is a problem, and problems were raised"
    return int(match[1] or 0), int(match[2] or depth)


def read_list(text: str) -> list[int]:
    """`3,7` as numbers."""
    return [int(part) for part in text.split(",")]


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
    return problems + expert_problems(_counted(injection), f"{where}.experts")


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
        there = -(-(stop - start) // k)
        if count > there:
            yield Problem(
                f"{where}.least_important_sets",
                str(count),
                f"at most {there}, the number of sets",
                str(there),
            )


def _after_problems(injection: Injection, depth: int | None, where: str) -> Iterator[Problem]:
    text, expected = injection.after, "layers from 0, each once, in order, as in '3,7'"
    if text is None:
        return
    if not isinstance(text, str) or not _LIST.fullmatch(text):
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
    if not isinstance(text, str) or not _RANGE.fullmatch(text):
        yield Problem(f"{where}.layers", repr(text), expected, "4:8")
    elif depth is not None and not _range_fits(text, depth):
        yield Problem(f"{where}.layers", repr(text), f"{expected}, within 0:{depth}", f"{depth // 2}:{depth}")
    elif (
        depth is None
        and (match := _RANGE.fullmatch(text))
        and match[2]
        and int(match[1] or 0) >= int(match[2])
    ):
        yield Problem(f"{where}.layers", repr(text), expected, "4:8")


def _range_fits(text: str | None, depth: int) -> bool:
    if text is not None and (not isinstance(text, str) or not _RANGE.fullmatch(text)):
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
