"""The base that a worker keeps, and a trial's model made of it: what a trial does not train is not copied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sweeps.spec import Spec

if TYPE_CHECKING:
    from tli.models.base import Base
    from tli.planning.plan import Plan
    from tli.training.recipe import Recipe


def kept_base(base: Base, device: str, *, in_bf16: bool) -> Any:
    """The base as a model on a device, frozen; for trials in bf16 in half the bytes where that loses nothing,
    so that what they do not train they have in common with it.
    """
    from tli.models.loading import load_model
    from tli.training.frozen import halve_frozen

    model = load_model(base).requires_grad_(requires_grad=False)
    if in_bf16:
        halve_frozen(model)
    return model.to(device)


def grown_model(model: Any, plan: Plan, seed: int, recipe: Recipe, layers: Sequence[int]) -> Any:
    """The model of a trial.

    Args:
        model: the base.
        plan: how it is grown.
        seed: of its first weights.
        recipe: how it is trained.
        layers: positions of layers of the base that are trained as new ones are.
    """
    from tli.growth.in_memory import grow, layer_parameters
    from tli.training.optimizer import untrained

    new = layer_parameters(model, layers) if layers else frozenset()
    shared = untrained(model, recipe, new) if plan.experts is None else frozenset()
    return grow(model, plan, seed=seed, shared=shared)


def control_layers(spec: Spec, depth: int, block_influence: Callable[[], Sequence[float]]) -> tuple[int, ...]:
    """Layers that the control trains, where it does not train all: those that the baseline's new ones are
    made of.

    Args:
        spec: of the sweep.
        depth: layers of the base.
        block_influence: measures that of each layer; called where it decides which sets get one.
    """
    from tli.planning.plan import plan_for

    if spec.control.train == "all":
        return ()
    injection = spec.trial.to_injection()
    measured = block_influence() if injection.least_important_sets is not None else None
    plan = plan_for(injection, depth, block_influence=measured)
    return tuple(sorted({plan.sources[position] for position in plan.injected}))
