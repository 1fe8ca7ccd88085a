"""Applies a plan to a model in memory."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, cast

from tli.architectures.config import deepen
from tli.architectures.lookup import family_of
from tli.architectures.mixtures import dense_type, require_mixture
from tli.argument_types import WHOLE, instance_of, require_types
from tli.growth.stored import StoredLayers
from tli.initializers.initial import Initial
from tli.initializers.layers import layout_of, place, same_depth, split, widened
from tli.initializers.upcycle import expert_parameters, upcycle
from tli.models.halved import halved_weights, restore
from tli.planning.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedConfig, PreTrainedModel


def grow(
    model: PreTrainedModel, plan: Plan, *, seed: int = 0, shared: AbstractSet[str] = frozenset()
) -> PreTrainedModel:
    """Make a deeper model of one in memory; the given one is left as it is, and shares no storage with it but
    for what is asked for.

    Costs one copy of the weights that are not shared: nothing is initialised that is then overwritten.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A causal language model.
    plan : Plan
        For its number of layers.
    seed : int, default 0
        Of all that is drawn: same seed, same weights, and the same as `upscale` writes.
    shared : set of str, default empty
        Names of parameters of `model` that neither will change: both have them in one storage, with no
        gradient asked for. Experts share none.

    Returns
    -------
    transformers.PreTrainedModel
        Of the new depth, same type, device and mode, every parameter trainable that is not shared; of the
        same class, or with experts of the matching one (`tli.architectures.mixtures`).

    Raises
    ------
    InputError
        An architecture or a stack that cannot be upscaled so (`FamilyError`), or a plan of another depth
        (`PlanError`), or what is no model or no plan.

    Examples
    --------
    >>> import tli
    >>> model = tli.load_model("my-model/")
    >>> deeper = tli.grow(model, tli.plan(model.config.num_hidden_layers, k=1, init="copy"))
    >>> deeper.config.num_hidden_layers
    8
    """
    from transformers import PreTrainedModel

    require_types(
        model=(model, instance_of(PreTrainedModel, "a model of transformers", 'tli.load_model("my-model/")')),
        plan=(plan, instance_of(Plan, "a tli.Plan", "tli.plan(model.config.num_hidden_layers, k=4)")),
        seed=(seed, WHOLE),
    )
    if plan.unchanged:
        return _copied(model, plan, shared)
    if plan.experts is None:
        return _deepened(model, plan, seed, shared)
    same_depth(_model_depth(model), plan)
    require_mixture(model.config.to_dict(), plan.experts)
    if plan.injected:
        return upcycle(_deepened(model, plan, seed), plan.experts, seed=seed, share=True)
    if any(halved_weights(model)):
        return upcycle(_copied(model, plan), plan.experts, seed=seed, share=True)
    return upcycle(model, plan.experts, seed=seed)


def injected_parameters(model: PreTrainedModel, plan: Plan) -> frozenset[str]:
    """Names of the parameters that the base has none of in a grown model; empty for the control.

    Those of the injected layers and, where the plan has experts, all routers and experts: experts start as
    copies, but to become different from each other is what they are there for.
    """
    if plan.unchanged:
        return frozenset()
    layers = family_of(dense_type(model.config.model_type), "model_type").layers
    prefixes = tuple(f"{layers}.{position}." for position in plan.injected)
    new = frozenset(name for name, _ in model.named_parameters() if name.startswith(prefixes))
    return new if plan.experts is None else new | expert_parameters(model)


def deepened_config(model: PreTrainedModel, plan: Plan) -> PreTrainedConfig:
    """The configuration of a model as the plan makes it, for its own class. Raises FamilyError."""
    import torch

    config = deepen(model.config, family_of(model.config.model_type, "model_type"), plan)
    for part in (config, config.get_text_config(decoder=True)):
        if isinstance(part.dtype, str):  # as a saved model has it
            part.dtype = getattr(torch, part.dtype)
    return config


def layer_parameters(model: PreTrainedModel, layers: Iterable[int]) -> frozenset[str]:
    """Names of the parameters of some layers of a dense model, by the layers' positions."""
    prefix = family_of(model.config.model_type, "model_type").layers
    starts = tuple(f"{prefix}.{position}." for position in layers)
    return frozenset(name for name, _ in model.named_parameters() if name.startswith(starts))


def _deepened(
    model: PreTrainedModel, plan: Plan, seed: int, shared: AbstractSet[str] = frozenset()
) -> PreTrainedModel:
    import torch
    from transformers.initialization import no_init_weights

    family = family_of(model.config.model_type, "model_type")
    config = deepened_config(model, plan)
    with torch.device("meta"), no_init_weights():
        grown = type(model)(config)
    inner = config.get_text_config(decoder=True).to_dict()
    stored = StoredLayers.of(model, family, plan)
    initial = Initial.of(plan, family, inner, seed, layout_of(stored.shapes, family))
    with torch.no_grad():
        _fill(grown, model, initial, stored, shared)
    if model.can_generate():
        grown.generation_config = copy.deepcopy(model.generation_config)
    grown.name_or_path = model.name_or_path
    return grown.train(model.training)


def _copied(model: PreTrainedModel, plan: Plan, shared: AbstractSet[str] = frozenset()) -> PreTrainedModel:
    from torch import nn

    same_depth(_model_depth(model), plan)
    of_both = {
        id(parameter): nn.Parameter(parameter.detach(), requires_grad=False)
        for name, parameter in model.named_parameters()
        if name in shared
    }
    copied = copy.deepcopy(model, dict(of_both))
    kept = {id(parameter) for parameter in of_both.values()}
    copied.zero_grad(set_to_none=True)
    for parameter in copied.parameters():
        parameter.requires_grad_(id(parameter) not in kept)
    for name in list(halved_weights(copied)):
        if name not in shared:
            restore(place(copied, name)[0])
    return copied


def _model_depth(model: PreTrainedModel) -> int:
    family = family_of(model.config.model_type, "model_type")
    return len(cast("nn.ModuleList", model.get_submodule(family.layers)))


def _fill(
    grown: PreTrainedModel,
    model: PreTrainedModel,
    initial: Initial,
    stored: StoredLayers,
    shared: AbstractSet[str],
) -> None:
    """Puts the tensors of `model` into the empty `grown`, copies but for the shared, and first weights into
    its new layers.
    """
    from torch import nn

    plan, layers = initial.plan, initial.family.layers
    parameters = dict(model.named_parameters(remove_duplicate=False))
    buffers = dict(model.named_buffers(remove_duplicate=False))
    halved, of_both = set(halved_weights(model)), {id(parameters[name]) for name in shared}
    new = {
        f"{layers}.{position}.{name}": tensor
        for position in sorted(plan.injected)
        for name, tensor in _first_weights(initial, stored, position).items()
    }

    def made_of(name: str) -> Tensor:
        if name in new:
            return new[name]
        old = _source(initial, name)
        source: Tensor = {**buffers, **parameters}[old].detach()
        axis = initial.family.axis_of_layers(name)
        if axis is not None:
            return widened(source.float() if old in halved else source, axis, plan)
        return source.float() if old in halved else source.clone()

    made: dict[int, nn.Parameter] = {}  # by the identity of the source, so that tied weights stay tied
    for name, _ in list(grown.named_parameters(remove_duplicate=False)):
        module, leaf = place(grown, name)
        if name in new:
            parameter = nn.Parameter(new[name])
        else:
            old = _source(initial, name)
            source = id(parameters[old])
            common = source in of_both and initial.family.axis_of_layers(name) is None
            if source not in made:
                made[source] = (
                    nn.Parameter(parameters[old].detach(), requires_grad=False)
                    if common
                    else nn.Parameter(made_of(name))
                )
            parameter = made[source]
            if common and old in halved:
                module.__class__ = type(place(model, old)[0])
        module._parameters[leaf] = parameter
    for name, _ in list(grown.named_buffers(remove_duplicate=False)):
        module, leaf = place(grown, name)
        module._buffers[leaf] = made_of(name)


def _first_weights(initial: Initial, stored: StoredLayers, position: int) -> Mapping[str, Tensor]:
    """All tensors of the new layer at `position` by their names in it, made as files hold them."""
    tensors, parts = stored.empty_like(initial.plan.sources[position])
    for name, part in parts.items():
        part.copy_(initial.initialize(position, name, stored.read))
    return tensors


def _source(initial: Initial, name: str) -> str:
    position, rest = split(initial.family.layers, name)
    return name if position is None else f"{initial.family.layers}.{initial.plan.sources[position]}.{rest}"
