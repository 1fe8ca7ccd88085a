"""The search space: dotted paths with Optuna distributions, some of them under a condition."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

if TYPE_CHECKING:
    from sweeps.spec import Range, Spec


@dataclass(frozen=True)
class Dimension:
    """One searched setting. `when` maps other paths to the values under which this one exists."""

    name: str
    distribution: BaseDistribution
    when: Mapping[str, tuple[Any, ...]]

    def active(self, settings: Mapping[str, Any]) -> bool:
        """Whether this setting exists under these values of the others."""
        return all(settings.get(path) in allowed for path, allowed in self.when.items())

    @property
    def values(self) -> tuple[Any, ...] | None:
        """Every value there is, or None when they cannot be counted."""
        distribution = self.distribution
        if isinstance(distribution, CategoricalDistribution):
            return tuple(distribution.choices)
        if isinstance(distribution, IntDistribution):
            return tuple(range(distribution.low, distribution.high + 1, distribution.step))
        if isinstance(distribution, FloatDistribution) and distribution.step:
            count = round((distribution.high - distribution.low) / distribution.step) + 1
            return tuple(distribution.low + i * distribution.step for i in range(count))
        return (distribution.low,) if distribution.single() else None  # type: ignore[attr-defined]


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
        size = 1
        for dimension in self.dimensions.values():
            if dimension.values is None:
                return False
            size *= len(dimension.values)
        return size <= 100_000

    def walk(self, chosen: Mapping[str, Any]) -> Iterator[tuple[str, BaseDistribution]]:
        """Active dimensions in order; `chosen` is read as it fills up."""
        for name, dimension in self.dimensions.items():
            if dimension.active({**self._baseline, **chosen}):
                yield name, dimension.distribution

    def grid(self) -> Iterator[dict[str, Any]]:
        """Every configuration of a finite space, each once."""
        seen = set()
        names = list(self.dimensions)
        for values in itertools.product(*(d.values or () for d in self.dimensions.values())):
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

    def distributions(self, params: Mapping[str, Any]) -> dict[str, BaseDistribution]:
        """The distributions of these parameters."""
        return {name: self.dimensions[name].distribution for name in params}


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a value from outside lies in a distribution, of the right type too."""
    if isinstance(distribution, CategoricalDistribution):
        # Compared by type as well: True is not 1 here.
        return any(type(value) is type(choice) and value == choice for choice in distribution.choices)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if isinstance(distribution, IntDistribution) and value != int(value):
        return False
    return bool(distribution._contains(distribution.to_internal_repr(value)))


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
