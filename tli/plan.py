"""Which source layer feeds each layer of the deeper model: integers only, decided before weights are read."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tli.errors import PlanError, Problem

METHODS = ("tli", "none")
INITS = ("copy", "identity", "damped", "mean", "random")


@dataclass(frozen=True)
class Injection:
    """How a model is deepened, as a user writes it. `none` is the control: the model as it is.

    `k` is the size of a set of layers; every set gets one new layer at its end. `init` says what the first
    weights of a new layer are (see `tli.initial`). `scale` is the residual scale of `init="damped"`, between
    0 (as identity) and 1 (as copy); the other inits do not read it.
    """

    method: str = "tli"
    k: int | None = 4
    init: str = "identity"
    scale: float = 0.5


@dataclass(frozen=True)
class Plan:
    """A decided injection. `sources[i]` is the old layer from which layer `i` of the new stack is made;
    `injected` holds the positions in the new stack of the layers that were not there before.
    """

    depth: int
    method: str
    k: int | None
    init: str
    scale: float
    sources: tuple[int, ...]
    injected: tuple[int, ...]

    @property
    def new_depth(self) -> int:
        """Number of layers of the deeper model."""
        return len(self.sources)

    @property
    def sets(self) -> tuple[int, ...]:
        """Sizes of the sets of old layers that each get one new layer; empty for the control."""
        if self.k is None:
            return ()
        return tuple(min(self.k, self.depth - start) for start in range(0, self.depth, self.k))

    def neighbours(self, position: int) -> tuple[int, int]:
        """Old layers on both sides of the injected layer at `position` of the new stack.

        After the last old layer there is none, so there it is the last two: with the last one alone, `mean`
        would be the same model as `copy` and a sweep would try it twice. A single layer has only itself.
        """
        before = self.sources[position]
        if before + 1 < self.depth:
            return before, before + 1
        return max(before - 1, 0), before

    def describe(self) -> str:
        """One sentence for a person."""
        if not self.injected:
            return f"{self.depth} layers, none injected (the control)"
        sets = f"every {self.k}" if self.k != 1 else "each"
        text = f"{self.depth} -> {self.new_depth} layers: one new layer ({self.init}) after {sets}"
        if self.sets[-1] != self.k:
            text += f"; the last set is shorter ({self.sets[-1]} of {self.k})"
        return text

    def __str__(self) -> str:
        return self.describe()

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; `from_json` takes it back."""
        return {
            "depth": self.depth,
            "new_depth": self.new_depth,
            "method": self.method,
            "k": self.k,
            "init": self.init,
            "scale": self.scale,
            "sources": list(self.sources),
            "injected": list(self.injected),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: str = "plan") -> Plan:
        """The inverse of `to_json`. Raises PlanError where the lists do not follow from the settings."""
        needed = ("depth", "method", "k", "init", "scale", "sources", "injected")
        missing = [name for name in needed if name not in value]
        if missing:
            raise PlanError(
                Problem(where, f"no {', '.join(missing)}", "a plan as `tli plan --json` prints it")
            )
        injection = Injection(value["method"], value["k"], value["init"], value["scale"])
        problems = injection_problems(injection, None, where) + _depth_problems(value["depth"], where)
        if problems:
            raise PlanError(*problems)
        decided = plan_for(injection, value["depth"])
        for name in ("sources", "injected"):
            if value[name] != list(getattr(decided, name)):
                expected = f"{list(getattr(decided, name))}, as its depth and k say"
                problems.append(Problem(f"{where}.{name}", repr(value[name]), expected))
        if problems:
            raise PlanError(*problems)
        return decided


def plan(
    depth: int, k: int | None = None, *, method: str = "tli", init: str = "identity", scale: float = 0.5
) -> Plan:
    """Plan for a model of `depth` layers: `plan(8, 4).sources == (0, 1, 2, 3, 3, 4, 5, 6, 7, 7)`.

    Raises PlanError with all problems.
    """
    return plan_for(Injection(method, k, init, scale), depth)


def plan_for(injection: Injection, depth: int) -> Plan:
    """As `plan`, from settings. A K that does not divide the depth leaves a shorter last set."""
    problems = _depth_problems(depth) or injection_problems(injection, depth)
    if problems:
        raise PlanError(*problems)
    k = None if injection.method == "none" else injection.k
    sources: list[int] = []
    injected: list[int] = []
    for layer in range(depth):
        sources.append(layer)
        if k is not None and ((layer + 1) % k == 0 or layer + 1 == depth):
            injected.append(len(sources))
            sources.append(layer)
    scale = float(injection.scale)
    return Plan(depth, injection.method, k, injection.init, scale, tuple(sources), tuple(injected))


def injection_problems(injection: Injection, depth: int | None, where: str = "injection") -> list[Problem]:
    """Everything wrong with the settings; what depends on the model is skipped while `depth` is None."""
    problems = []
    for name, known in (("method", METHODS), ("init", INITS)):
        value = getattr(injection, name)
        if value not in known:
            problems.append(
                Problem(f"{where}.{name}", repr(value), f"one of {', '.join(known)}", _nearest(value, known))
            )
    if injection.method != "none":
        problems += _k_problems(injection.k, depth, where)
    scale = injection.scale
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0 <= scale <= 1:
        problems.append(Problem(f"{where}.scale", repr(scale), "a residual scale between 0 and 1", "0.5"))
    return problems


def _k_problems(k: object, depth: int | None, where: str) -> list[Problem]:
    if k is None or isinstance(k, bool) or not isinstance(k, int):
        return [Problem(f"{where}.k", repr(k), "a whole number of layers per set", "4")]
    if k < 1:
        return [Problem(f"{where}.k", str(k), "at least 1 layer per set", "1")]
    if depth is not None and k > depth:
        return [Problem(f"{where}.k", str(k), f"at most {depth}, the model's number of layers", str(depth))]
    return []


def _depth_problems(depth: object, where: str = "") -> list[Problem]:
    place = f"{where}.depth" if where else "depth"
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
        return [Problem(place, repr(depth), "a model of at least 1 layer")]
    return []


def _nearest(word: object, names: tuple[str, ...]) -> str:
    return next(iter(difflib.get_close_matches(str(word), names, n=1)), "")
