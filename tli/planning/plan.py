"""Which source layer feeds each layer of the deeper model: integers only, decided before weights are read."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

from tli.errors import PlanError, Problem
from tli.planning.experts import Experts
from tli.planning.injection import Injection, injection_problems, read_list, read_range, with_new_names
from tli.planning.stack import injected_blocks, repeated, sets_of

_MOST_LAYERS = 10_000  # no model has more, and a plan from outside must not fill the memory
_MADE_OF_TWO = ("mean", "slerp", "aligned", "predicted")  # inits of a new layer from the two beside it
_LAYERS = ("sources", "injected", "between")


@dataclass(frozen=True)
class Plan:
    """A decided injection. `sources[i]` is the old layer from which layer `i` of the new stack is made;
    `injected` holds the positions in the new stack of the layers that were not there before, and `between`
    the two old layers that each of these stands between. `block_influence` is how much every old layer
    changes the hidden state, where that decided (`tli.growth.importance`).
    """

    depth: int
    injection: Injection  # resolved
    sources: tuple[int, ...]
    injected: tuple[int, ...]
    between: tuple[tuple[int, int], ...]
    block_influence: tuple[float, ...] | None = None

    @property
    def new_depth(self) -> int:
        """Number of layers of the deeper model."""
        return len(self.sources)

    @property
    def experts(self) -> Experts | None:
        """What the feed-forward parts become; None where they stay dense."""
        return None if self.injection.experts.count is None else self.injection.experts

    @property
    def unchanged(self) -> bool:
        """Whether the model stays as it is: the control."""
        return not self.injected and self.experts is None

    @property
    def preserves(self) -> bool:
        """Whether the grown model computes what the base did: exactly, or with experts up to rounding."""
        exact = not self.injected or self.injection.scale == 0
        return exact and (self.experts is None or self.experts.preserves)

    @property
    def sets(self) -> tuple[int, ...]:
        """Sizes of the sets of old layers that TLI forms; empty for other methods."""
        if self.injection.k is None:
            return ()
        return tuple(stop - start for start, stop in sets_of(self.injection, self.depth))

    def neighbours(self, position: int) -> tuple[int, int]:
        """Old layers on both sides of the injected layer at `position` of the new stack.

        At either end there is none on one side, so there it is the outer two: with one layer alone, `mean`
        would be the same model as `copy` and a sweep would try it twice. A single layer has only itself.
        """
        return self._neighbours[position]

    def scale(self, position: int) -> float:
        """Residual scale of the injected layer at `position`."""
        scale = self.injection.scale
        times = self._times[self.sources[position]]
        if isinstance(scale, str):
            return 1 / times if scale == "1/n" else times**-0.5
        assert scale is not None, "a resolved injection that deepens has one"
        return scale

    @property
    def built(self) -> Hashable:
        """What the model follows from, but for base and seed: where it is equal, so are the models that two
        plans of one base give under one seed, in every byte and whatever the settings were.
        """
        if self.unchanged:
            return self.depth
        injection = self.injection
        new: Hashable = ()
        if self.injected:
            mixed = injection.source == "both" or injection.init in _MADE_OF_TWO
            new = (
                self.injected,
                ("mean" if injection.source == "both" else injection.init)
                if mixed
                else injection.init == "random",
                self.between if mixed else (),
                tuple(self.scale(position) for position in self.injected),
                injection.identity if injection.scale == 0 else "",
                injection.noise,
            )
        return self.sources, new, self.experts

    @cached_property
    def _neighbours(self) -> dict[int, tuple[int, int]]:
        return dict(zip(self.injected, self.between, strict=True))

    @cached_property
    def _times(self) -> Counter[int]:
        """How often each old layer stands in the new stack."""
        return Counter(self.sources)

    def describe(self) -> str:
        """One sentence for display."""
        if self.unchanged:
            return f"{self.depth} layers, none injected (the control)"
        experts = f"; {self.experts.describe()}" if self.experts else ""
        if not self.injected:
            return f"{self.depth} layers, none injected{experts}"
        return f"{self.depth} -> {self.new_depth} layers: {_words(self)}{experts}"

    def __str__(self) -> str:
        return self.describe()

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; `from_json` takes it back."""
        return {
            "depth": self.depth,
            "new_depth": self.new_depth,
            "injection": asdict(self.injection),
            "sources": list(self.sources),
            "injected": list(self.injected),
            "between": [list(pair) for pair in self.between],
            "block_influence": None if self.block_influence is None else list(self.block_influence),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: str = "plan") -> Plan:
        """The inverse of `to_json`. Raises PlanError where the lists do not follow from the settings."""
        value = _with_new_names(value)
        problems = _form_problems(value, where)
        if problems:
            raise PlanError(*problems)
        injection = Injection.from_json(value["injection"])
        block_influence = value["block_influence"]
        problems = injection_problems(injection, None, f"{where}.injection")
        problems += _depth_problems(value["depth"], where) + _block_influence_problems(
            block_influence, value["depth"], where
        )
        if problems:
            raise PlanError(*problems)
        decided = plan_for(
            injection, value["depth"], block_influence=block_influence, where=f"{where}.injection"
        )
        expected = decided.to_json()
        for name in _LAYERS:
            if value[name] != expected[name]:
                told = f"{expected[name]}, as its depth and settings say"
                problems.append(Problem(f"{where}.{name}", repr(value[name]), told))
        if problems:
            raise PlanError(*problems)
        return decided


def plan(depth: int, k: int | None = None, **settings: Any) -> Plan:
    """Plan for a model of `depth` layers: `plan(8, 4).sources == (0, 1, 2, 3, 3, 4, 5, 6, 7, 7)`.

    `settings` are the other fields of `Injection`. Raises PlanError with all problems.
    """
    return plan_for(Injection(k=k, **settings), depth)


def plan_for(
    injection: Injection,
    depth: int,
    *,
    block_influence: Sequence[float] | None = None,
    where: str = "injection",
) -> Plan:
    """As `plan`, from settings. `block_influence` has a number for each layer, and is needed for
    `least_important_sets`.

    Raises PlanError with all problems, each placed under `where`.
    """
    problems = _depth_problems(depth) or injection_problems(injection, depth, where)
    if (
        not problems
        and injection.least_important_sets is not None
        and injection.method == "tli"
        and block_influence is None
    ):
        expected = "the change of every layer too, measured on text (tli.growth.importance)"
        problems.append(
            Problem(f"{where}.least_important_sets", str(injection.least_important_sets), expected)
        )
    if not problems and block_influence is not None and not all(map(math.isfinite, block_influence)):
        got = "layers that change the hidden state by no finite number"
        problems.append(
            Problem(f"{where}.least_important_sets", got, "finite ones", "a model whose weights are finite")
        )
    if problems:
        raise PlanError(*problems)
    decided = injection.resolved()
    measured = (
        None
        if decided.least_important_sets is None or block_influence is None
        else tuple(map(float, block_influence))
    )
    if decided.method == "tli":
        stack = injected_blocks(decided, depth, measured)
    else:
        stack = (
            [(source, None) for source in range(depth)] if not decided.deepens else repeated(decided, depth)
        )
    return Plan(
        depth,
        decided,
        sources=tuple(source for source, _ in stack),
        injected=tuple(position for position, (_, pair) in enumerate(stack) if pair is not None),
        between=tuple(pair for _, pair in stack if pair is not None),
        block_influence=measured,
    )


def _words(plan: Plan) -> str:
    injection = plan.injection
    init = injection.init
    if injection.method == "dus":
        m = injection.m
        cut = f"without the last {m} of the first and the first {m} of the second"
        return f"two copies of the stack ({init}), {cut}"
    if injection.method == "stack":
        return f"the whole stack {injection.g} times ({init})"
    if injection.method == "repeat":
        start, stop = read_range(injection.layers, plan.depth)
        return f"each of layers {start} to {stop - 1} {injection.g} times ({init})"
    new = "one new layer" if injection.block == 1 else f"a block of {injection.block} new layers"
    if injection.after is not None:
        return f"{new} ({init}) after {', '.join(map(str, read_list(injection.after)))}"
    where = {"end": "after", "start": "before", "middle": "amid"}[injection.place]
    sets = f"every {injection.k}" if injection.k != 1 else "each"
    if injection.least_important_sets is not None:
        sets = (
            f"the {injection.least_important_sets} sets of {injection.k} that change the hidden state least"
        )
    text = f"{new} ({init}) {where} {sets}"
    if injection.layers is not None:
        text += f" of layers {injection.layers}"
    if plan.sets[-1] != injection.k:
        text += f"; the last set is shorter ({plan.sets[-1]} of {injection.k})"
    return text


def _with_new_names(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """A plan of an earlier version as this one writes it."""
    if not isinstance(value, dict):
        return value
    value = with_new_names(value, {"change": "block_influence"})
    settings = value.get("injection")
    return {**value, "injection": with_new_names(settings)} if isinstance(settings, dict) else value


def _form_problems(value: Mapping[str, Any], where: str) -> list[Problem]:
    """Whether a plan's JSON has the form that `to_json` gives it."""
    if not isinstance(value, dict):
        return [Problem(where, repr(value)[:80], "a plan as `tli plan --json` prints it")]
    needed = ("depth", "injection", *_LAYERS, "block_influence")
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


def _depth_problems(depth: object, where: str = "") -> list[Problem]:
    place = f"{where}.depth" if where else "depth"
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
        return [Problem(place, repr(depth), "a model of at least 1 layer")]
    if depth > _MOST_LAYERS:
        return [Problem(place, repr(depth), f"a model of at most {_MOST_LAYERS} layers")]
    return []


def _block_influence_problems(block_influence: object, depth: object, where: str) -> list[Problem]:
    numbers = isinstance(block_influence, list) and all(
        type(item) in (int, float) and abs(item) <= sys.float_info.max for item in block_influence
    )
    if block_influence is None or (numbers and len(block_influence) == depth):  # type: ignore[arg-type]
        return []
    return [
        Problem(f"{where}.block_influence", repr(block_influence), "a finite number for each layer, or null")
    ]
