"""Applies a plan: to a model in memory (`grow`) or to a folder, tensor by tensor (`upscale_folder`)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

from tli.config import deepen
from tli.errors import PlanError, Problem
from tli.families import Family, family_of
from tli.initial import Initial
from tli.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel


def grow(model: PreTrainedModel, plan: Plan, *, seed: int = 0) -> PreTrainedModel:
    """A new model of the new depth: same class, type, device and mode, every parameter trainable.

    `model` is left as it is and shares no storage with the new one. Costs one copy of the weights: nothing is
    initialised that is then overwritten. `seed` is read by `init="random"` alone. Raises FamilyError for an
    architecture that cannot be upscaled and PlanError for a plan of another depth.
    """
    import torch
    from transformers.initialization import no_init_weights

    if not plan.injected:
        return _copied(model, plan)
    family = family_of(model.config.model_type, "model_type")
    config = deepen(model.config, family, plan)
    with torch.device("meta"), no_init_weights():
        grown = type(model)(config)
    initial = Initial.of(plan, family, config.to_dict(), seed)
    with torch.no_grad():
        _fill(grown, model, initial)
    if model.can_generate():
        grown.generation_config = copy.deepcopy(model.generation_config)
    grown.name_or_path = model.name_or_path
    return grown.train(model.training)


def injected_parameters(model: PreTrainedModel, plan: Plan) -> frozenset[str]:
    """Names of the parameters of the injected layers in a grown model; empty for the control."""
    if not plan.injected:
        return frozenset()
    layers = family_of(model.config.model_type, "model_type").layers
    prefixes = tuple(f"{layers}.{position}." for position in plan.injected)
    return frozenset(name for name, _ in model.named_parameters() if name.startswith(prefixes))


def _copied(model: PreTrainedModel, plan: Plan) -> PreTrainedModel:
    depth = model.config.num_hidden_layers
    if depth != plan.depth:
        raise PlanError(Problem("plan.depth", str(plan.depth), f"{depth}, the model's number of layers"))
    copied = copy.deepcopy(model)
    copied.zero_grad(set_to_none=True)
    return copied.requires_grad_()


def _fill(grown: PreTrainedModel, model: PreTrainedModel, initial: Initial) -> None:
    """Puts copies of the tensors of `model` into the empty `grown`, and first weights into its new layers."""
    from torch import nn

    parameters = dict(model.named_parameters(remove_duplicate=False))
    buffers = dict(model.named_buffers(remove_duplicate=False))
    made: dict[int, nn.Parameter] = {}  # by the identity of the source, so that tied weights stay tied
    for name, _ in list(grown.named_parameters(remove_duplicate=False)):
        position, rest = _split(initial.family, name)
        if position is not None and position in initial.plan.injected:
            parameter = nn.Parameter(initial.first_values(position, rest, _reader(parameters, initial, rest)))
        else:
            source = parameters[_source(initial, name)]
            if id(source) not in made:
                made[id(source)] = nn.Parameter(source.detach().clone())
            parameter = made[id(source)]
        module, leaf = _place(grown, name)
        module._parameters[leaf] = parameter
    for name, _ in list(grown.named_buffers(remove_duplicate=False)):
        module, leaf = _place(grown, name)
        module._buffers[leaf] = buffers[_source(initial, name)].clone()


def _split(family: Family, name: str) -> tuple[int | None, str]:
    """`model.layers.3.mlp.up_proj.weight` -> (3, "mlp.up_proj.weight"); (None, name) outside the layers."""
    prefix = f"{family.layers}."
    if not name.startswith(prefix):
        return None, name
    position, _, rest = name.removeprefix(prefix).partition(".")
    return int(position), rest


def _source(initial: Initial, name: str) -> str:
    position, rest = _split(initial.family, name)
    return name if position is None else f"{initial.family.layers}.{initial.plan.sources[position]}.{rest}"


def _reader(parameters: dict[str, nn.Parameter], initial: Initial, rest: str) -> Callable[[int], Tensor]:
    return lambda layer: parameters[f"{initial.family.layers}.{layer}.{rest}"].detach()


def _place(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return model.get_submodule(path), leaf
