"""A plan applied to a base that stays sharded: every rank fills its rows of the grown model.

Where a new number comes from the numbers at its place in other layers (copy, identity, damped, mean), rows
are copied and computed without the other ranks. Drawn tensors are drawn whole by every rank, which keeps its
rows. What looks at more than one place (slerp, aligned, predicted, noise, which is measured by a tensor's
deviation) gathers the tensors that it needs one after the other. All give the bits that
`tli.growth.in_memory.grow` gives.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tli.architectures.mixtures import require_mixture
from tli.growth.in_memory import deepened_config
from tli.growth.stored import StoredLayers, storage_of
from tli.initializers.elementwise import Start, Steps
from tli.initializers.initial import Initial
from tli.initializers.layers import layout_of, same_depth, split, widened
from tli.initializers.upcycle import Upcycling
from tli.planning.plan import Plan
from tli.sharded.base import ShardedBase
from tli.sharded.experts import with_experts
from tli.sharded.rows import Rows, local_of, own_part
from tli.sharded.wrapping import Frozen, common_rows, rows_of_weights, set_buffers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_GATHERED = 2  # whole tensors that are kept at a time: a new one may be made from two
_LOCAL = (Start.SOURCE, Start.MEAN, Start.CONSTANT)


def grow_sharded(
    base: ShardedBase, plan: Plan, *, seed: int = 0, precision: str = "fp32", frozen: Frozen | None = None
) -> PreTrainedModel:
    """Make a deeper model under FSDP of a sharded base, which stays as it is; every rank does.

    Args:
        base: this rank's rows of it.
        plan: for its number of layers.
        seed: of all that is drawn.
        precision: fp32, or bf16, in which layers compute; weights that are trained are float32 in both.
        frozen: names of the weights that will not be trained, of the grown model before it has memory: what
            these have from the base they have in common with it.

    Returns:
        A model whose parameters are DTensors, every one trainable but those in common with the base, in eval
        mode as the base is.

    Raises:
        InputError: an architecture or a stack that cannot be upscaled so, or that ranks cannot hold together.
    """
    same_depth(base.depth, plan)
    if plan.experts is not None:
        require_mixture(base.shell.config.to_dict(), plan.experts)
    with torch.no_grad():
        if plan.unchanged or (plan.experts is not None and not plan.injected):
            model = None
        else:
            # The dense model that experts are made of is not run: its layers' precision is no matter.
            kept = frozen if plan.experts is None else every_weight
            model = _deepened(base, plan, seed, precision, kept)
        if plan.experts is not None:
            model = with_experts(
                base.shell if model is None else model,
                base.rows if model is None else rows_of(model),
                Upcycling.of((model or base.shell).config.to_dict(), plan.experts, seed),
                base.group,
                precision,
                frozen,
            )
        model = _copied(base, precision, frozen) if model is None else model
    if model.can_generate():
        model.generation_config = copy.deepcopy(base.shell.generation_config)
    model.name_or_path = base.shell.name_or_path
    return model.eval()


def every_weight(model: PreTrainedModel) -> AbstractSet[str]:
    """Names of all parameters, tied ones once: of a model that is not trained."""
    return {name for name, _ in model.named_parameters()}


def rows_of(model: PreTrainedModel) -> dict[str, Rows]:
    """This rank's rows of a model under FSDP, in its own memory."""
    return {
        name: Rows(local_of(parameter.detach()), tuple(parameter.shape))
        for name, parameter in model.named_parameters()
    }


def _copied(base: ShardedBase, precision: str, frozen: Frozen | None) -> PreTrainedModel:
    config = copy.deepcopy(base.shell.config)
    shared = common_rows(frozen, base.rows.get, precision)
    model = rows_of_weights(lambda: type(base.shell)(config), base.family, base.group, precision, shared)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            local_of(parameter).copy_(base.rows[name].local)
    buffers = dict(base.shell.named_buffers(remove_duplicate=False))
    set_buffers(model, buffers.__getitem__, base.group.device)
    return model


def _deepened(
    base: ShardedBase, plan: Plan, seed: int, precision: str, frozen: Frozen | None
) -> PreTrainedModel:
    shell, family = base.shell, base.family
    config = deepened_config(shell, plan)
    stored = StoredLayers.of(shell, family, plan)
    inner = config.get_text_config(decoder=True).to_dict()
    initial = Initial.of(plan, family, inner, seed, layout_of(stored.shapes, family))

    def as_it_was(name: str) -> Rows | None:
        position, rest = split(family.layers, name)
        if position is None:
            return base.rows[name] if family.axis_of_layers(name) is None else None
        if position in plan.injected:
            return None
        return base.rows[f"{family.layers}.{plan.sources[position]}.{rest}"]

    shared = common_rows(frozen, as_it_was, precision)
    model = rows_of_weights(lambda: type(shell)(config), family, base.group, precision, shared)
    first = _FirstWeights(base, initial, stored)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        position, rest = split(family.layers, name)
        if position is not None and position in plan.injected:
            made = first.rows(position, rest)
        else:
            made = _old_rows(base, plan, name)
        local_of(parameter).copy_(made)
    buffers: dict[str, Tensor] = dict(shell.named_buffers(remove_duplicate=False))

    def buffer(name: str) -> Tensor:
        position, rest = split(family.layers, name)
        if position is None:
            axis = family.axis_of_layers(name)
            return buffers[name] if axis is None else widened(buffers[name], axis, plan)
        if position in plan.injected and rest in stored.tensors[plan.sources[position]]:
            return first.whole(position, rest)
        return buffers[f"{family.layers}.{plan.sources[position]}.{rest}"]

    set_buffers(model, buffer, base.group.device)
    return model


def _old_rows(base: ShardedBase, plan: Plan, name: str) -> Tensor:
    """This rank's rows of a tensor that the grown model has from the base."""
    position, rest = split(base.family.layers, name)
    if position is not None:
        return base.rows[f"{base.family.layers}.{plan.sources[position]}.{rest}"].local
    rows, axis = base.rows[name], base.family.axis_of_layers(name)
    if axis is None:
        return rows.local
    if axis > 0:
        return widened(rows.wide, axis, plan)
    return own_part(widened(rows.whole(base.group), axis, plan), base.group.ranks)


class _FirstWeights:
    """The first weights of new layers, made from rows where that is enough, else from whole tensors."""

    def __init__(self, base: ShardedBase, initial: Initial, stored: StoredLayers) -> None:
        self._base, self._initial, self._stored = base, initial, stored
        self._gathered = OrderedDict[str, Tensor]()

    def rows(self, position: int, rest: str) -> Tensor:
        """This rank's rows of a tensor of the new layer at `position`, by its name in the module tree."""
        source = self._rows(self._initial.plan.sources[position], rest)
        steps = self._initial.steps(position, rest, len(source.shape))
        if self._initial.elementwise and steps.start in _LOCAL and steps.noise == 0:
            return self._initial.initialize(position, rest, lambda layer, name: self._rows(layer, name).wide)
        return own_part(self.whole(position, rest), self._base.group.ranks)

    def whole(self, position: int, rest: str) -> Tensor:
        """All of such a tensor, made part by part as its files hold it."""
        source = self._initial.plan.sources[position]
        like = self._stored.tensors[source][rest]
        whole = torch.empty(like.shape, dtype=like.dtype, device=self._base.group.device)
        for name in self._parts(source, rest):
            view = _seen(whole, self._stored.parts[source][name])
            steps = self._initial.steps(position, name, view.dim())
            view.copy_(self._initial.initialize(position, name, self._drawn if _drawn(steps) else self._read))
        return whole

    def _rows(self, layer: int, rest: str) -> Rows:
        return self._base.rows[f"{self._base.family.layers}.{layer}.{rest}"]

    def _parts(self, layer: int, rest: str) -> list[str]:
        """Names in files of the parts of a tensor of a layer."""
        storage = storage_of(self._stored.tensors[layer][rest])
        return [name for name, part in self._stored.parts[layer].items() if storage_of(part) == storage]

    def _drawn(self, layer: int, name: str) -> Tensor:
        """A tensor of an old layer whose numbers do not matter, without memory for them."""
        part = self._stored.parts[layer][name]
        return torch.zeros((), dtype=part.dtype, device=self._base.group.device).expand(part.shape)

    def _read(self, layer: int, name: str) -> Tensor:
        """A tensor of an old layer by its name in files, gathered."""
        part = self._stored.parts[layer][name]
        rest = next(
            rest
            for rest, tensor in self._stored.tensors[layer].items()
            if storage_of(tensor) == storage_of(part)
        )
        full = f"{self._base.family.layers}.{layer}.{rest}"
        if full not in self._base.rows:  # a buffer, of which every rank has all
            return part.to(self._base.group.device)
        if full not in self._gathered:
            while len(self._gathered) >= _GATHERED:
                self._gathered.popitem(last=False)
            self._gathered[full] = self._base.rows[full].whole(self._base.group)
        self._gathered.move_to_end(full)
        return _seen(self._gathered[full], part)


def _drawn(steps: Steps) -> bool:
    """Whether a tensor needs no number of an old one."""
    return steps.start in (Start.DRAWN, Start.CONSTANT) and steps.noise == 0


def _seen(whole: Tensor, part: Tensor) -> Tensor:
    """The part of a tensor that another one is of its likeness."""
    return torch.as_strided(whole, part.shape, part.stride(), part.storage_offset())
