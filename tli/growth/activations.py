"""What a model that is trained keeps of a pass for its gradients: arithmetic, without torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tli.growth.cost import grown_layers
from tli.growth.layer_sizes import LayerSizes, layer_sizes
from tli.growth.outside_sizes import OutsideSizes, deepened, outside_sizes
from tli.models.base import Base
from tli.planning.plan import Plan

Precision = Literal["fp32", "bf16"]
Trained = Literal["all", "injected", "injected+norms"]

FP32, BF16 = 4, 2  # bytes
_SMALL = 2**25  # logits of a pass that are not worth pieces


@dataclass(frozen=True)
class Setting:
    """How a model is trained, as far as memory goes.

    Attributes:
        tokens: of one forward pass of one process.
        precision: fp32; or bf16, autocast of one process, FSDP2's policy over float32 shards of several.
        train: what is trained: all, or only the injected layers, with the norms of all or without.
        ranks: processes that hold the model together.
        checkpointing: every so many layers one keeps its input alone, and is calculated again; 0: none does.
        pieces: logits that are calculated at once of a large vocabulary; 0: all of a pass.
        fused: whether the optimizer goes through the weights in one kernel, without copies.
        moments: bytes that the optimizer keeps for a parameter.
        frozen: bytes of a parameter that is not trained; where there is one process, always 4 of an embedding
            that is the head, too.
        kept: bytes of a parameter of the base that the process keeps.
        also: positions in the grown model of layers that are trained with the injected ones.
    """

    tokens: int
    precision: Precision = "fp32"
    train: Trained = "all"
    ranks: int = 1
    checkpointing: int = 0
    pieces: int = 0
    fused: bool = False
    moments: float = 8
    frozen: int = FP32
    kept: int = FP32
    also: tuple[int, ...] = ()

    @property
    def in_8_bits(self) -> bool:
        """Whether the optimizer keeps its moments so."""
        return self.moments < 2 * FP32

    def in_pieces(self, vocabulary: int) -> bool:
        """Whether the logits of a pass are calculated in pieces."""
        return bool(self.pieces) and self.tokens * vocabulary > _SMALL


@dataclass(frozen=True)
class Grown:
    """Elements of a grown model.

    Attributes:
        layers: in their order.
        outside: matrices outside them.
        root: parameters outside them.
        trained: parameters that are trained.
        hidden: width of the residual stream.
        vocabulary: token ids.
        lowest: the first layer that a gradient goes through.
        largest: elements of the largest tensor that is trained; at most, where that is a part of the model.
    """

    layers: Sequence[LayerSizes]
    outside: OutsideSizes
    root: int
    trained: int
    hidden: int
    vocabulary: int
    lowest: int
    largest: int

    @property
    def parameters(self) -> int:
        """All of them, tied ones once."""
        return self.root + sum(layer.parameters for layer in self.layers)

    @property
    def learning(self) -> Sequence[LayerSizes]:
        """Layers that a gradient goes through."""
        return self.layers[self.lowest :]


def grown(base: Base, plan: Plan, train: Trained, also: Sequence[int] = ()) -> Grown:
    """The sizes of a grown model of which all or a part is trained: `Setting.train` and `also`. Raises
    FamilyError.
    """
    facts, old = base.facts, layer_sizes(base)
    layers = grown_layers(base, plan, old)
    around = outside_sizes(base)
    outside = deepened(around, plan.depth, plan.new_depth)
    root = facts.parameters - sum(layer.parameters for layer in old) + outside.by_layer - around.by_layer
    fresh, everything = frozenset((*plan.injected, *also)), train == "all"
    if everything:
        trained = root - outside.idle + sum(layer.parameters for layer in layers)
    else:
        trained = sum(
            layer.parameters if position in fresh else layer.experts for position, layer in enumerate(layers)
        )
    if train == "injected+norms":
        others = [layer for position, layer in enumerate(layers) if position not in fresh]
        trained += facts.hidden_size + sum(layer.normed + 2 * layer.centred for layer in others)
    lowest = min(fresh, default=plan.new_depth) if train == "injected" else 0
    if plan.experts:
        lowest = min(lowest, 1, plan.new_depth)
    largest = max(math.prod(tensor.shape) for tensor in base.checkpoint.tensors.values())
    experts = max(layer.experts for layer in layers)  # in two tensors, one of them of gate and up
    largest = (
        max(largest, 2 * experts // 3)
        if everything
        else min(largest, max(each.parameters for each in layers))
    )
    return Grown(layers, outside, root, trained, facts.hidden_size, facts.vocabulary, lowest, largest)


def largest_layer(model: Grown, setting: Setting) -> int:
    """What the layer keeps that keeps most."""
    return max((_layer_bytes(model, layer, setting) for layer in model.learning), default=0)


def kept(model: Grown, setting: Setting) -> int:
    """What all layers keep until the backward pass comes to them."""
    stream = BF16 if setting.precision == "bf16" and setting.ranks > 1 else FP32
    every = setting.checkpointing
    return sum(
        setting.tokens * stream * model.hidden
        if every and position % every == 0
        else _layer_bytes(model, layer, setting)
        for position, layer in enumerate(model.learning)
    )


def casts(model: Grown, setting: Setting) -> int:
    """Matrices in bfloat16, which autocast keeps beside those in float32 while gradients need them."""
    if setting.precision == "fp32" or setting.ranks > 1:
        return 0
    if setting.train != "all":
        return BF16 * model.trained
    head = 0 if setting.in_pieces(model.vocabulary) else model.outside.back
    return BF16 * (sum(layer.parameters for layer in model.learning) + head)


def _layer_bytes(model: Grown, layer: LayerSizes, setting: Setting) -> int:
    """What one layer keeps of a pass for its gradients.

    Of a norm by root mean square its input and that made unit, in float32; of one with a bias its input. Then
    what each matrix is multiplied with, cast for each of them under autocast; queries, keys, values and the
    attended values, twice; and of the feed-forward part what its matrices make, before and behind the
    activation.
    """
    hidden, normed, centred = model.hidden, layer.normed, layer.centred
    attention, widened = layer.attention, layer.widened
    if setting.precision == "fp32":
        each = FP32 * (2 * normed + centred + 2 * hidden + 5 * attention + 2 * widened)
    elif setting.ranks == 1:
        each = 8 * normed + 4 * centred + BF16 * (5 * hidden + 5 * attention + 2 * widened)
    else:
        each = 6 * normed + 4 * centred + BF16 * (2 * hidden + 5 * attention + 2 * widened)
    return round(setting.tokens * each)
