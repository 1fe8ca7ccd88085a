"""The search space: dotted paths with Optuna distributions, some of them under a condition."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from sweeps.ledger.store.internals import in_range

if TYPE_CHECKING:
    from sweeps.spec import Range, Spec


_COUNTABLE = 100_000  # configurations; a larger space is never exhausted in practice


@dataclass(frozen=True)
class Dimension:
    """One searched setting. `when` maps other paths to the values under which this one exists."""

    name: str
    distribution: BaseDistribution
    when: Mapping[str, tuple[Any, ...]]

    def active(self, chosen: Mapping[str, Any], baseline: Mapping[str, Any]) -> bool:
        """Whether this setting exists under these values; what is not chosen is the baseline's."""
        return all(
            (chosen[path] if path in chosen else baseline.get(path)) in allowed
            for path, allowed in self.when.items()
        )

    @property
    def size(self) -> int | None:
        """How many values there are, or None when they cannot be counted."""
        distribution = self.distribution
        if isinstance(distribution, CategoricalDistribution):
            return len(distribution.choices)
        if isinstance(distribution, IntDistribution):
            return (distribution.high - distribution.low) // distribution.step + 1
        if isinstance(distribution, FloatDistribution) and distribution.step:
            return round((distribution.high - distribution.low) / distribution.step) + 1
        return 1 if distribution.single() else None

    def values(self) -> Iterator[Any]:
        """Every value of a dimension that can be counted."""
        distribution = self.distribution
        if isinstance(distribution, CategoricalDistribution):
            yield from distribution.choices
        elif isinstance(distribution, IntDistribution):
            yield from range(distribution.low, distribution.high + 1, distribution.step)
        elif isinstance(distribution, FloatDistribution):
            step = distribution.step or 0.0
            # As Optuna rounds a sampled one, so that both are the same number.
            for index in range(self.size or 0):
                yield min(max(distribution.low + index * step, distribution.low), distribution.high)


class Space:
    """Dimensions in an order in which every condition is known before it is asked for."""

    def __init__(self, dimensions: Mapping[str, Dimension], baseline: Mapping[str, Any]) -> None:
        """Take dimensions by path and the baseline's value of every setting, flat."""
        self.dimensions = _parents_first(dimensions)
        self._baseline = baseline

    @classmethod
    def of(cls, spec: Spec) -> Space:
        """The space that a spec searches."""
        dimensions = {path: _dimension(path, wanted) for path, wanted in spec.search.items()}
        return cls(dimensions, flatten(spec.trial.model_dump()))

    @property
    def finite(self) -> bool:
        """Whether the configurations can be counted, and are few enough to be."""
        sizes = [dimension.size for dimension in self.dimensions.values()]
        return None not in sizes and math.prod(size or 0 for size in sizes) <= _COUNTABLE

    def walk(self, chosen: Mapping[str, Any]) -> Iterator[tuple[str, BaseDistribution]]:
        """Active dimensions in order; `chosen` is read as it fills up."""
        for name, dimension in self.dimensions.items():
            if not dimension.when or dimension.active(chosen, self._baseline):
                yield name, dimension.distribution

    def grid(self) -> Iterator[dict[str, Any]]:
        """Every configuration of a finite space, each once."""
        seen = set()
        names = list(self.dimensions)
        for values in itertools.product(*(d.values() for d in self.dimensions.values())):
            whole = dict(zip(names, values, strict=True))
            params: dict[str, Any] = {}
            for name, _ in self.walk(params):
                params[name] = whole[name]
            if self.key(params) not in seen:
                seen.add(self.key(params))
                yield params

    def key(self, params: Mapping[str, Any]) -> tuple[Any, ...]:
        """What tells two configurations apart."""
        return tuple((name, params[name]) for name in self.dimensions if name in params)

    def project(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The active searched values in a whole flat configuration, as far as they lie in their ranges."""
        params: dict[str, Any] = {}
        for name, distribution in self.walk(params):
            if contains(distribution, settings[name]):
                params[name] = settings[name]
        return params

    def completed(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Values from outside in the space's own types, with the parents that a conditional one needs.

        Raises:
            ValueError: a name that is not searched, or a value outside its range.
        """
        unknown = [name for name in given if name not in self.dimensions]
        if unknown:
            raise ValueError(
                f"{', '.join(unknown)} is not searched; searched are {', '.join(self.dimensions)}"
            )
        outside = [f"{n}={v!r}" for n, v in given.items() if not contains(self.dimensions[n].distribution, v)]
        if outside:
            raise ValueError(f"{', '.join(outside)} is outside its range")
        fixed = {name: _as_held(self.dimensions[name].distribution, value) for name, value in given.items()}
        for name in reversed(self.dimensions):
            if name in fixed:
                for parent, allowed in self.dimensions[name].when.items():
                    if parent in self.dimensions:
                        fixed.setdefault(parent, allowed[0])
        return fixed

    def fits(self, params: Mapping[str, Any]) -> bool:
        """Whether values from outside, all searched, lie in their ranges."""
        known = self.dimensions
        return all(name in known and contains(known[name].distribution, params[name]) for name in params)

    def refuse_idle(self, given: Mapping[str, Any], params: Mapping[str, Any]) -> None:
        """See that every value from outside is in effect.

        Raises:
            ValueError: one depends on another that has another value.
        """
        idle = [name for name in given if name not in params]
        if idle:
            needs = [f"{p} in {list(a)}" for name in idle for p, a in self.dimensions[name].when.items()]
            raise ValueError(f"{', '.join(idle)} has no effect here; it needs {' and '.join(needs)}")

    def distributions(self, params: Mapping[str, Any]) -> dict[str, BaseDistribution]:
        """The distributions of these parameters."""
        return {name: self.dimensions[name].distribution for name in params}


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a value from outside lies in a distribution, of the right type too."""
    if isinstance(distribution, CategoricalDistribution):
        # Compared by type as well: True is not 1 here.
        return any(type(value) is type(choice) and value == choice for choice in distribution.choices)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    if isinstance(distribution, IntDistribution) and value != int(value):
        return False
    return in_range(distribution, value)


def _as_held(distribution: BaseDistribution, value: Any) -> Any:
    """4.0 of an integer range as 4, 1 of a float range as 1.0."""
    return distribution.to_external_repr(distribution.to_internal_repr(value))


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted paths."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _dimension(path: str, wanted: Range) -> Dimension:
    when = {
        other: tuple(allowed) if isinstance(allowed, list | tuple) else (allowed,)
        for other, allowed in (wanted.when or {}).items()
    }
    return Dimension(path, _distribution(wanted), when)


def _distribution(wanted: Range) -> BaseDistribution:
    if wanted.choice is not None:
        return CategoricalDistribution(wanted.choice)
    if wanted.int_ is not None:
        low, high = wanted.int_
        return IntDistribution(int(low), int(high), step=int(wanted.step or 1))
    if wanted.log is not None:
        return FloatDistribution(float(wanted.log[0]), float(wanted.log[1]), log=True)
    assert wanted.uniform is not None, "a range has one of its four forms"
    return FloatDistribution(float(wanted.uniform[0]), float(wanted.uniform[1]), step=wanted.step)


def _parents_first(dimensions: Mapping[str, Dimension]) -> dict[str, Dimension]:
    ordered: dict[str, Dimension] = {}

    def place(name: str) -> None:
        if name not in ordered:
            for parent in dimensions[name].when:
                if parent in dimensions:
                    place(parent)
            ordered[name] = dimensions[name]

    for name in dimensions:
        place(name)
    return ordered
