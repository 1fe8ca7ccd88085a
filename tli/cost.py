"""What a plan costs in parameters, arithmetic and memory, from headers and configuration alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tli.base import Base
from tli.experts import Experts
from tli.layer_sizes import LayerSizes, layer_sizes, outside_sizes
from tli.moe import DENSE, require_mixture
from tli.plan import Plan

_BYTES = 4  # weights, gradients and both moments of AdamW are float32


@dataclass(frozen=True)
class Cost:
    """Of one trial. `flops_per_token` is of training (forward and backward); `memory_bytes` an estimate of
    its weights, gradients, AdamW moments and activations, without a base model kept beside it and libraries.
    """

    depth: int
    parameters: int
    injected_parameters: int
    flops_per_token: float
    memory_bytes: int


def cost(base: Base, plan: Plan, *, sequence_length: int, batch_tokens: int, train: str = "all") -> Cost:
    """Costs of training the deepened `base` on sequences of `sequence_length` tokens.

    `batch_tokens` are those of one forward pass (a micro batch), and set the activations. `train` is "all" or
    "injected": then only injected layers, routers and experts need gradients of weights, and nothing below
    the lowest of them any. All experts are parameters, but only those that a token goes through are FLOPs.

    FLOPs count a multiply-add as two: 2 per token and matrix element forward, 2 for the gradient of the input
    and 2 for that of the weights. Attention scores add 4 * width * sequence_length forward and twice that
    backward, over the full square, as in the appendix B of PaLM (arXiv 2204.02311). Raises FamilyError.
    """
    facts = base.facts
    old = layer_sizes(base)
    stack = old if plan.experts is None else [_with_experts(base, layer, plan.experts) for layer in old]
    layers = [stack[source] for source in plan.sources]
    fresh = [layers[position] for position in plan.injected]
    kept_on = [layer for position, layer in enumerate(layers) if position not in set(plan.injected)]
    outside, depth = outside_sizes(base), plan.new_depth
    deeper = depth / plan.depth - 1
    front, head = outside.front + round(outside.by_layer * deeper), outside.back
    total = facts.parameters + round(outside.widened * deeper)
    total += sum(layer.parameters for layer in layers) - sum(layer.parameters for layer in old)
    injected = sum(layer.parameters for layer in fresh) + sum(layer.experts for layer in kept_on)
    trained = total if train == "all" else injected
    # Of the first layer, unless it is new, only experts are trained: little but their own gradient is needed.
    trains = {*plan.injected, *((min(1, depth - 1),) if plan.experts else ())}
    lowest = 0 if train == "all" else min(trains, default=depth)
    passed = layers[lowest:]  # those that the gradient goes through
    weighed = sum(layer.multiplied for layer in fresh) + sum(layer.chosen for layer in kept_on)
    if train == "all":
        weighed = sum(layer.multiplied for layer in layers) + front + head
    flops = sum(2 * layer.multiplied + 4 * layer.attention * sequence_length for layer in layers)
    flops += 2 * (front + head)
    flops += sum(2 * layer.multiplied + 8 * layer.attention * sequence_length for layer in passed)
    flops += (2 * head if passed else 0) + (2 * front if train == "all" else 0) + 2 * weighed
    # Kept for the backward pass of a layer: its input, the outputs of both norms, queries, keys, values, the
    # attended values and the sums (about 8 widths), and 4 widths of the feed-forward part. Of the head:
    # logits, their logarithms and their gradient. Each chosen expert keeps its input and output too.
    width = 8 + (3 * plan.experts.top_k * plan.experts.granularity if plan.experts else 0)
    kept = sum(width * facts.hidden_size + 4 * layer.inner for layer in passed) + 3 * facts.vocabulary
    memory = _BYTES * (total + 3 * trained + batch_tokens * kept)
    return Cost(depth, total, injected, float(flops), memory)


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
        experts=new,
        chosen=chosen,
    )
