"""What a plan costs in parameters and arithmetic, from headers and configuration alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tli.architectures.mixtures import DENSE, require_mixture
from tli.growth.layer_sizes import LayerSizes, layer_sizes
from tli.growth.outside_sizes import OutsideSizes, deepened, outside_sizes
from tli.models.base import Base
from tli.planning.experts import Experts
from tli.planning.plan import Plan


@dataclass(frozen=True)
class Cost:
    """Of one trial. `flops_per_token` is of training (forward and backward)."""

    depth: int
    parameters: int
    injected_parameters: int
    flops_per_token: float


def cost(
    base: Base, plan: Plan, *, sequence_length: int, train: str = "all", also: Sequence[int] = ()
) -> Cost:
    """Costs of training the deepened `base` on sequences of `sequence_length` tokens.

    `train` is "all", "injected", whereby only injected layers, routers and experts need gradients of weights,
    and nothing below the lowest of them any, or "injected+norms", whereby the gradient goes down to the first
    layer. With the injected layers, where not all is trained, go those at the positions `also` of the grown
    model. All experts are parameters, but only those that a token goes through are FLOPs.

    FLOPs count a multiply-add as two: 2 per token and matrix element forward, 2 for the gradient of the input
    and 2 for that of the weights. Attention scores add 4 * width * sequence_length forward and twice that
    backward, over the full square, as in the appendix B of PaLM (arXiv 2204.02311), whatever a mask or a
    window leaves out. That is what `torch.utils.flop_counter` counts with eager attention and experts. Left
    out are look-ups of embeddings, norms, convolutions over a few neighbours, what a kernel calculates twice
    to save memory, and the recurrence of state spaces and linear attention between the projections (of which
    the counter sees what the kernel that happens to be installed makes of it). Towers for images and sound
    are parameters, but text does not pass through them.

    Parameters are the elements that the written checkpoint has, tied ones once. Raises FamilyError.
    """
    facts = base.facts
    old = layer_sizes(base)
    layers = grown_layers(base, plan, old)
    new = {*plan.injected, *also}
    fresh = [layers[position] for position in sorted(new)]
    kept_on = [layer for position, layer in enumerate(layers) if position not in new]
    around, depth = outside_sizes(base), plan.new_depth
    outside = deepened(around, plan.depth, depth)
    total = facts.parameters + sum(layer.parameters for layer in layers)
    total += outside.by_layer - around.by_layer - sum(layer.parameters for layer in old)
    injected = sum(layers[position].parameters for position in plan.injected)
    injected += sum(layer.experts for layer in kept_on)
    # Of the first layer, unless it is new, only experts are trained: little but their own gradient is needed.
    trains = {*new, *((min(1, depth - 1),) if plan.experts else ())}
    lowest = min(trains, default=depth) if train == "injected" else 0
    learned = sum(layer.multiplied - layer.picking for layer in fresh)
    learned += sum(layer.chosen if train != "all" else layer.multiplied - layer.picking for layer in kept_on)
    flops = _flops(
        layers, lowest, learned, outside, sequence_length=sequence_length, everything=train == "all"
    )
    return Cost(depth, total, injected, flops)


def grown_layers(base: Base, plan: Plan, old: list[LayerSizes]) -> list[LayerSizes]:
    """The sizes of every layer of the grown model, from those of its base. Raises FamilyError."""
    stack = old if plan.experts is None else [_with_experts(base, layer, plan.experts) for layer in old]
    return [stack[source] for source in plan.sources]


def _flops(
    layers: Sequence[LayerSizes],
    lowest: int,
    learned: float,
    outside: OutsideSizes,
    *,
    sequence_length: int,
    everything: bool,
) -> float:
    """FLOPs of a token, forward and backward.

    Args:
        layers: of the grown model.
        lowest: the first layer that a gradient goes through.
        learned: elements of the layers' matrices that need a gradient, of those a token is multiplied with.
        outside: matrices outside the layers.
        sequence_length: in tokens.
        everything: also what is outside the layers is trained.
    """
    passed = layers[lowest:]
    read = 1 + outside.prompt / sequence_length  # tokens that are read for one that is trained on
    scores = 4 * sequence_length * read
    flops = sum(2 * layer.multiplied + scores * layer.attention for layer in layers)
    flops += sum(scores / 2 * layer.picked_by for layer in layers)
    flops += sum(2 * (layer.multiplied - layer.picking) + 2 * scores * layer.attention for layer in passed)
    flops = read * (flops + 2 * learned) + 2 * (outside.front + outside.back)
    if passed:
        flops += 2 * outside.back
    return float(flops + (4 * outside.front + 2 * outside.back if everything else 0))


def _with_experts(base: Base, dense: LayerSizes, experts: Experts) -> LayerSizes:
    """A layer with experts in place of its feed-forward part."""
    mixture = require_mixture(base.config, experts)
    assert experts.count is not None
    hidden = base.facts.hidden_size
    router = experts.count * experts.granularity * hidden
    shared = sum(math.prod(shape) for shape in mixture.shared_tensors(hidden).values())
    matrices = len(DENSE) * hidden * dense.inner
    new, chosen = router + experts.count * matrices, router + experts.top_k * matrices
    return replace(
        dense,
        parameters=dense.parameters - matrices + new + shared,
        multiplied=dense.multiplied - matrices + chosen + shared,
        inner=experts.top_k * dense.inner,
        # Each chosen expert keeps its input and its output, too.
        widened=experts.top_k * (dense.widened + experts.granularity * hidden),
        experts=new,
        chosen=chosen,
    )
