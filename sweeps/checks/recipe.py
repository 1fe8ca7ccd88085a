"""Checks of how trials are trained that need the base, or what is installed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from sweeps.errors import Problem
from sweeps.spec import Spec
from tli.architectures.table import FAMILIES
from tli.models.base import Base
from tli.training.recipe import GROUPS, Group
from tli.training.recipe_checks import group_problems, optimizer_problems

# In the name of a tensor on disk; a dense layer's gate is a `gate_proj`.
_ROUTER = re.compile(r"router|(?:^|\.)gate\.(?:weight|wg|linear)")
_EXPERT = re.compile(r"expert")
_NORM = re.compile(r"norm|\bln|_ln")


def recipe_problems(spec: Spec, base: Base) -> Iterator[Problem]:
    """Rates for groups of parameters that no trial has, an optimizer that is not installed, and a model that
    ranks cannot hold together.
    """
    own, present = spec.trial.to_recipe(), _groups(spec, base)
    for problem in group_problems(own, present, "trial.recipe"):
        yield replace(problem, where=spec.where(problem.where))
    for group in GROUPS:
        path = f"recipe.rates.{group}"
        if path in spec.search and group not in present:
            expected = f"groups that its models have: {', '.join(each for each in GROUPS if each in present)}"
            yield Problem(spec.where(f"search.{path}"), f"a range for {group!r}", expected, "deleting it")
    if spec.resources.workers > 1:
        yield from _shared_problems(spec, base)
    if spec.data.packing == "documents":
        yield from _packing_problems(spec, base)
    searched = spec.search.get("recipe.optimizer")
    for index, name in enumerate(searched.ends if searched is not None else (own.optimizer,)):
        place = "trial.recipe.optimizer" if searched is None else f"search.recipe.optimizer.choice[{index}]"
        for problem in optimizer_problems(replace(own, optimizer=name)):
            yield replace(problem, where=spec.where(place))


def _shared_problems(spec: Spec, base: Base) -> Iterator[Problem]:
    """Weights that several layers share: ranks gather each layer's when its turn comes."""
    model_type = str(base.config.get("model_type"))
    family = FAMILIES.get(model_type)
    if family is not None and family.shared_kinds:
        kinds = ", ".join(family.shared_kinds)
        got = f"{spec.resources.workers}, with weights that {kinds} layers of {model_type!r} share"
        yield Problem(spec.where("resources.workers"), got, "1: ranks divide weights of one layer", "1")


def _packing_problems(spec: Spec, base: Base) -> Iterator[Problem]:
    """What a small model of the base's architecture makes of packed documents."""
    from tli.training.packed import base_problems  # loads torch, which no other check of a spec does

    return iter(base_problems(base, spec.data.sequence_length, spec.where("data.packing")))


def _groups(spec: Spec, base: Base) -> frozenset[Group]:
    """Groups of parameters that a trial of the sweep may have, its control and the searched ones included."""
    names = list(base.checkpoint.tensors)
    present: set[Group] = {"original", "embeddings"}
    methods = spec.search["injection.method"].ends if "injection.method" in spec.search else ()
    if {spec.trial.injection.method, *methods} - {"none"}:
        present.add("injected")
    if any(_NORM.search(name) for name in names):
        present.add("norms")
    mixture = any(_EXPERT.search(name) for name in names) and any(_ROUTER.search(name) for name in names)
    if mixture or _becomes_a_mixture(spec, methods):
        present.add("router")
    return frozenset(present)


def _becomes_a_mixture(spec: Spec, methods: tuple[str, ...]) -> bool:
    counts = spec.search["injection.experts.count"].ends if "injection.experts.count" in spec.search else ()
    own = spec.trial.injection
    return any(each is not None for each in (own.experts.count, *counts)) or "moe" in {own.method, *methods}
