"""Which source layer feeds each layer of the deeper model: integers only, decided before weights are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Unpack

from tli.errors import PlanError
from tli.planning.checks import (
    depth_problems,
    form_problems,
    influence_problems,
    injection_problems,
    list_problems,
    measurement_problems,
    with_todays_names,
)
from tli.planning.described import injection_in_words
from tli.planning.experts import Experts
from tli.planning.injection import Injection
from tli.planning.keywords import KeywordsBesideK, injection_from
from tli.planning.stack import sets_of, stack_of

_MADE_OF_TWO = ("mean", "slerp", "aligned", "predicted")  # inits of a new layer from the two beside it


@dataclass(frozen=True)
class Plan:
    """A decided injection: which old layer each layer of the deeper model is made of.

    Attributes
    ----------
    depth : int
        Layers of the model.
    injection : Injection
        The settings it follows from, resolved.
    sources : tuple of int
        For each layer of the new stack, the old layer from which it is made; shape [new_depth].
    injected : tuple of int
        Positions in the new stack of the layers that were not there before.
    between : tuple of (int, int)
        For each of these, the two old layers that it stands between.
    block_influence : tuple of float, optional
        How much every old layer changes the hidden state, where that decided (`tli.growth.importance`).

    Examples
    --------
    >>> import tli
    >>> plan = tli.plan(4, k=2, init="mean")
    >>> plan.new_depth, plan.injected, plan.preserves
    (6, (2, 5), False)
    """

    depth: int
    injection: Injection
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

        Parameters
        ----------
        position : int
            One of `injected`.

        Returns
        -------
        tuple of (int, int)
            Old layers, the lower first.
        """
        return self._neighbours[position]

    def scale(self, position: int) -> float:
        """Residual scale of an injected layer.

        Parameters
        ----------
        position : int
            One of `injected`.

        Returns
        -------
        float
            From 0 to 1.
        """
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
        """The plan in one sentence, as `str` gives it.

        Returns
        -------
        str
            As ``8 -> 10 layers: one new layer (identity) after every 4``.
        """
        if self.unchanged:
            return f"{self.depth} layers, none injected (the control)"
        experts = f"; {self.experts.describe()}" if self.experts else ""
        if not self.injected:
            return f"{self.depth} layers, none injected{experts}"
        words = injection_in_words(self.injection, self.depth, self.sets)
        return f"{self.depth} -> {self.new_depth} layers: {words}{experts}"

    def __str__(self) -> str:
        return self.describe()

    def to_json(self) -> dict[str, Any]:
        """The plan as plain JSON values; `from_json` takes it back.

        Returns
        -------
        dict
            What ``tli plan --save`` writes.
        """
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
        """The inverse of `to_json`, also of a plan that an earlier version wrote.

        Parameters
        ----------
        value : mapping
            Plain JSON values.
        where : str, default "plan"
            What the messages name as their place.

        Returns
        -------
        Plan
            Of the settings in it.

        Raises
        ------
        InputError
            Another form, or lists that do not follow from the settings.
        """
        value = with_todays_names(value)
        problems = form_problems(value, where)
        if problems:
            raise PlanError(*problems)
        injection = Injection.from_json(value["injection"])
        block_influence = value["block_influence"]
        problems = injection_problems(injection, None, f"{where}.injection")
        problems += depth_problems(value["depth"], where)
        problems += influence_problems(block_influence, value["depth"], where)
        if problems:
            raise PlanError(*problems)
        decided = plan_for(
            injection, value["depth"], block_influence=block_influence, where=f"{where}.injection"
        )
        if problems := list_problems(value, decided.to_json(), where):
            raise PlanError(*problems)
        return decided


def plan(depth: int, k: int | None = None, **settings: Unpack[KeywordsBesideK]) -> Plan:
    """Decide which layer of a deeper model comes from where; no weights are read.

    Parameters
    ----------
    depth : int
        Number of layers of the model.
    k : int, optional
        Layers in a set that gets a new one; 4 where a method reads it and it is left out.
    **settings
        The other fields of `Injection`, as in ``method="dus", m=8``.

    Returns
    -------
    Plan
        For `grow` and `upscale`.

    Raises
    ------
    InputError
        With every problem: unknown names, settings that the method does not read, values that do not fit.

    Examples
    --------
    >>> import tli
    >>> plan = tli.plan(8, k=4)
    >>> plan.sources
    (0, 1, 2, 3, 3, 4, 5, 6, 7, 7)
    """
    given: dict[str, Any] = {**settings} if k is None else {"k": k, **settings}
    return plan_for(injection_from(given), depth)


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
    problems = depth_problems(depth) or injection_problems(injection, depth, where)
    problems = problems or measurement_problems(injection, block_influence, where)
    if problems:
        raise PlanError(*problems)
    decided = injection.resolved()
    read = decided.least_important_sets is not None and block_influence is not None
    measured = tuple(map(float, block_influence or ())) if read else None
    stack = stack_of(decided, depth, measured)
    return Plan(
        depth,
        decided,
        sources=tuple(source for source, _ in stack),
        injected=tuple(position for position, (_, pair) in enumerate(stack) if pair is not None),
        between=tuple(pair for _, pair in stack if pair is not None),
        block_influence=measured,
    )
