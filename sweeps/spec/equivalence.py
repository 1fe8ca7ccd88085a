"""Equivalence of trials: which settings train the same model in the same way.

A setting that has no effect tells no two trials apart: `k` beside a method that has no sets, first weights
where no layer is new, another name for the same layers. What counts is what is built (the plan) and how it is
trained (the recipe); the seed is left out, and so is what changes nothing but rounding: the micro batch,
which activations are kept, whether layers are compiled.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Mapping
from dataclasses import fields, replace
from functools import lru_cache
from typing import Any

from tli.errors import InputError
from tli.planning.checks import injection_problems
from tli.planning.injection import Injection
from tli.planning.plan import plan_for
from tli.training.recipe import Recipe

_SECTIONS = {"injection", "recipe", "seed"}
_RECIPE = frozenset(field.name for field in fields(Recipe))


def key(settings: Mapping[str, Any], depth: int | None) -> Hashable:
    """What two trials have in common that differ in nothing but their seed.

    Args:
        settings: the whole `trial:` section that a trial ran with.
        depth: layers of the base. None where that is not known: then other names for the same layers are told
            apart, and all else is not.
    """
    injection, recipe = injection_of(settings), settings.get("recipe", {})
    known = settings.keys() <= _SECTIONS and isinstance(recipe, Mapping) and recipe.keys() <= _RECIPE
    if injection is None or not known:
        return json.dumps(settings, sort_keys=True, default=str)
    try:
        return _built(injection, depth), _trained(Recipe(**recipe), grown=injection.method != "none")
    except (TypeError, ValueError, ArithmeticError):  # of values that no trial was ever given
        return json.dumps(settings, sort_keys=True, default=str)


def replaced(settings: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the values at some dotted paths replaced."""
    plain = dict(settings)
    for path, value in params.items():
        first, _, rest = path.partition(".")
        inner = plain.get(first)
        plain[first] = replaced(inner if isinstance(inner, Mapping) else {}, {rest: value}) if rest else value
    return plain


def value_at(settings: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path of a trial's settings; None where they have none, or where it has no effect.

    Of an injection it is what the setting stands for: `init` of null is what the method usually begins with.
    """
    found: Any = settings
    first, _, rest = path.partition(".")
    injection = injection_of(settings) if first == "injection" else None
    if injection is not None:
        if not injection.read_by_method(rest.partition(".")[0]):
            return None
        found, path = injection, rest
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else getattr(found, name, None)
    return found


def injection_of(settings: Mapping[str, Any]) -> Injection | None:
    """What settings inject, resolved; None where that cannot be told from them."""
    try:
        injection = Injection.from_json(settings.get("injection", {}))
        return None if injection_problems(injection, None) else injection.resolved()
    except (TypeError, AttributeError, ValueError):
        return None


@lru_cache(maxsize=4096)
def _built(injection: Injection, depth: int | None) -> Hashable:
    """What a resolved injection makes of a base of so many layers."""
    if depth is None:
        return injection
    try:
        if injection.least_important_sets is None:
            return plan_for(injection, depth).built
        # Which sets get a layer, text decides: the same ones where all that they are chosen by is the same.
        every = plan_for(replace(injection, least_important_sets=None), depth)
    except InputError:  # more layers than there are: no trial can run it
        return injection
    chosen = injection.least_important_sets, injection.k, injection.layers, injection.place
    return every.built if injection.least_important_sets == len(every.sets) else (every.built, chosen)


def _trained(recipe: Recipe, *, grown: bool) -> Hashable:
    """A recipe without what has no effect."""
    rate, new_rate = recipe.learning_rate, recipe.injected_learning_rate or recipe.learning_rate
    if not grown:
        new_rate = rate
    elif recipe.train == "injected":
        rate = new_rate
    return replace(
        recipe,
        learning_rate=rate,
        injected_learning_rate=new_rate,
        tokens=recipe.steps * recipe.batch_tokens,
        micro_batch_tokens=None,
        activation_checkpointing=0,
        compile=False,
        warmup=math.ceil(recipe.warmup * recipe.steps),
    )
