"""Where attention heads and feed-forward neurons are in a layer's tensors: facts by name, as data.

A layer is known by the names of its modules, so architectures that call them alike need one row together. Its
tensors must all be accounted for: where one is strange, heads and neurons may mean something else too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

Unit = Literal["query", "group", "neuron"]  # a query head, the key or value head of a group, a neuron
Shapes = Mapping[str, tuple[int, ...]]
Orders = Mapping[Unit, "Tensor"]  # which unit of the upper layer goes where the lower has its 0th, 1st, ...

_NORM = re.compile(r"\w+\.(weight|bias)")
_HEADS = ("num_attention_heads", "n_head")


@dataclass(frozen=True)
class Roles:
    """Along which sides of a layer's modules its units lie; `outputs` of a module are its bias's as well.

    A side is divided into equal units, or into parts that are (`("query", "group", "group")`: all queries,
    then all keys, then all values in one matrix). How wide a unit is follows from the shape.
    """

    outputs: Mapping[str, tuple[Unit, ...]]
    inputs: Mapping[str, tuple[Unit, ...]]
    norms: Mapping[str, Unit] = field(default_factory=dict)  # with one gain for all heads, or one for each
    transposed: bool = False  # matrices are stored as [inputs, outputs]

    def joined(self, other: Roles) -> Roles:
        """Attention and feed-forward part of a layer."""
        return Roles(
            {**self.outputs, **other.outputs}, {**self.inputs, **other.inputs}, {**self.norms, **other.norms}
        )


def _attention(output: str, module: str = "self_attn") -> Roles:
    sides: dict[str, tuple[Unit, ...]] = {
        f"{module}.q_proj": ("query",),
        f"{module}.k_proj": ("group",),
        f"{module}.v_proj": ("group",),
    }
    norms: dict[str, Unit] = {}
    for norm in ("norm", "layernorm"):
        norms |= {f"{module}.q_{norm}": "query", f"{module}.k_{norm}": "group"}
    return Roles(sides, {f"{module}.{output}": ("query",)}, norms)


def _forward(down: str, *up: str) -> Roles:
    return Roles(dict.fromkeys(up, ("neuron",)), {down: ("neuron",)})


_ATTENTIONS = (
    _attention("o_proj"),  # llama and most others
    _attention("dense"),  # phi
    _attention("out_proj"),  # opt
    _attention("out_proj", "attn"),  # gptj
    Roles({"self_attn.qkv_proj": ("query", "group", "group")}, {"self_attn.o_proj": ("query",)}),  # phi3
    # gpt_neox: query, key and value of one head are one unit
    Roles({"attention.query_key_value": ("query",)}, {"attention.dense": ("query",)}),
)
_FORWARDS = (
    _forward("mlp.down_proj", "mlp.gate_proj", "mlp.up_proj"),  # llama and most others
    _forward("mlp.down_proj", "mlp.up_proj"),  # nemotron
    Roles({"mlp.gate_up_proj": ("neuron", "neuron")}, {"mlp.down_proj": ("neuron",)}),  # phi3
    _forward("mlp.fc2", "mlp.fc1"),  # phi
    _forward("fc2", "fc1"),  # opt
    _forward("mlp.c_proj", "mlp.c_fc"),  # starcoder2
    _forward("mlp.fc_out", "mlp.fc_in"),  # gptj
    _forward("mlp.dense_4h_to_h", "mlp.dense_h_to_4h"),  # gpt_neox
)
_GPT2 = Roles(
    {"attn.c_attn": ("query", "query", "query"), "mlp.c_fc": ("neuron",)},
    {"attn.c_proj": ("query",), "mlp.c_proj": ("neuron",)},
    transposed=True,
)
ROLES = (*(heads.joined(neurons) for heads in _ATTENTIONS for neurons in _FORWARDS), _GPT2)


@dataclass(frozen=True)
class Side:
    """An axis of a tensor: one part after another, `counts[i]` units of kind `parts[i]` and so wide."""

    axis: int
    parts: tuple[Unit, ...]
    counts: tuple[int, ...]
    width: int

    def units(self, tensor: Tensor) -> Iterator[tuple[Unit, Tensor]]:
        """The parts of a tensor, each as a matrix with a row for a unit."""
        moved = tensor.movedim(self.axis, 0)
        import torch

        pieces = torch.split(moved, [n * self.width for n in self.counts])
        for part, count, piece in zip(self.parts, self.counts, pieces, strict=True):
            yield part, piece.reshape(count, -1)

    def ordered(self, tensor: Tensor, orders: Orders) -> Tensor:
        """The tensor with its units in the given orders."""
        import torch

        places, start = [], 0
        for part, count in zip(self.parts, self.counts, strict=True):
            first = start + orders[part] * self.width
            places.append((first[:, None] + torch.arange(self.width)).flatten())
            start += count * self.width
        return tensor.index_select(self.axis, torch.cat(places).to(tensor.device))


def sides(config: Mapping[str, Any], shapes: Shapes) -> dict[str, Side] | str:
    """The sides of a layer's tensors that have units; a text that says why they are not known."""
    heads = next((config[key] for key in _HEADS if config.get(key)), None)
    if not isinstance(heads, int):
        return f"the configuration has no {' or '.join(_HEADS)}"
    unknown = None
    for roles in ROLES:
        axes, strange = _axes(roles, shapes)
        if axes is None:
            continue
        if not strange:
            return _measured(axes, shapes, roles, heads)
        unknown = unknown or f"not known what heads and neurons are in {strange[0]}"
    return unknown or "not known which of its tensors hold heads and neurons"


_Axes = dict[str, tuple[int, tuple[Unit, ...]]]  # of a tensor: the axis along which units lie, and its parts


def _axes(roles: Roles, shapes: Shapes) -> tuple[_Axes | None, list[str]]:
    """None where a matrix is missing; and the tensors that the roles say nothing about.

    Weight and bias of a norm right in the layer (`input_layernorm.weight`) act on the residual stream, which
    is never reordered. Any other vector may have a number for each head (`self_attn.sinks`).
    """
    axes: _Axes = {}
    for modules, axis in ((roles.outputs, int(roles.transposed)), (roles.inputs, 1 - int(roles.transposed))):
        for module, parts in modules.items():
            if len(shapes.get(f"{module}.weight", ())) != 2:
                return None, []
            axes[f"{module}.weight"] = axis, parts
    for module, parts in roles.outputs.items():
        if f"{module}.bias" in shapes:
            axes[f"{module}.bias"] = 0, parts
    norms = {f"{module}.{leaf}": unit for module, unit in roles.norms.items() for leaf in ("weight", "bias")}
    axes |= {name: (0, (unit,)) for name, unit in norms.items() if name in shapes}
    quiet = {f"{module}.bias" for module in roles.inputs}
    strange = [
        name
        for name, shape in sorted(shapes.items())
        if name not in axes and name not in quiet and not (len(shape) == 1 and _NORM.fullmatch(name))
    ]
    return axes, strange


def _measured(axes: _Axes, shapes: Shapes, roles: Roles, heads: int) -> dict[str, Side] | str:
    """Sides with the numbers and widths of their units, which the shapes tell with the number of heads."""
    (output,) = (name for name, parts in roles.inputs.items() if parts == ("query",))
    (down,) = (name for name, parts in roles.inputs.items() if parts == ("neuron",))
    width, rest = divmod(shapes[f"{output}.weight"][axes[f"{output}.weight"][0]], heads)
    if rest:
        return f"{output} is not made for {heads} heads"
    counts = {"query": heads, "neuron": shapes[f"{down}.weight"][axes[f"{down}.weight"][0]]}
    for module, parts in roles.outputs.items():
        if "group" in parts:
            size = shapes[f"{module}.weight"][axes[f"{module}.weight"][0]]
            groups, rest = divmod(size - parts.count("query") * heads * width, parts.count("group") * width)
            if rest or groups < 1 or heads % groups or counts.get("group", groups) != groups:
                return f"{module} does not fit {heads} heads of {width}"
            counts["group"] = groups
    found = {}
    for name, (axis, parts) in axes.items():
        size, units = shapes[name][axis], sum(counts[part] for part in parts)
        if name.rpartition(".")[0] in roles.norms and shapes[name] == (width,):
            continue  # one gain, shared by all heads
        if size % units:
            return f"{name} does not divide into {units} heads or neurons"
        found[name] = Side(axis, parts, tuple(counts[part] for part in parts), size // units)
    return found
