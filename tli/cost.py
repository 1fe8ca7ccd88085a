"""What a plan costs in parameters, arithmetic and memory, from headers and configuration alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tli.base import Base, setting
from tli.config import section_of
from tli.experts import Experts
from tli.families import family_of
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


@dataclass(frozen=True)
class _Layer:
    """Sizes of one layer."""

    parameters: int
    multiplied: int  # elements of its matrices: what a token is multiplied with
    attention: int  # width of all heads together
    inner: int  # width of the feed-forward part; of all that a token goes through, where there are experts
    experts: int = 0  # of its parameters, those of router and experts
    chosen: int = 0  # of what a token is multiplied with, that in router and chosen experts


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
    dense = _layer(base)
    layer = dense if plan.experts is None else _with_experts(base, dense, plan.experts)
    head, new, depth = facts.hidden_size * facts.vocabulary, len(plan.injected), plan.new_depth
    total = facts.parameters + depth * layer.parameters - plan.depth * dense.parameters
    injected = new * layer.parameters + (depth - new) * layer.experts
    trained = total if train == "all" else injected
    # Of the first layer, unless it is new, only experts are trained: little but their own gradient is needed.
    trains = {*plan.injected, *((min(1, depth - 1),) if plan.experts else ())}
    lowest = 0 if train == "all" else min(trains, default=depth)
    passed = depth - lowest  # layers that the gradient goes through
    weighed = new * layer.multiplied + (depth - new) * layer.chosen
    if train == "all":
        weighed = depth * layer.multiplied + head
    square = 4 * layer.attention * sequence_length
    flops = depth * (2 * layer.multiplied + square) + 2 * head
    flops += passed * (2 * layer.multiplied + 2 * square) + (2 * head if passed else 0)
    flops += 2 * weighed
    # Kept for the backward pass of a layer: its input, the outputs of both norms, queries, keys, values, the
    # attended values and the sums (about 8 widths), and 4 widths of the feed-forward part. Of the head:
    # logits, their logarithms and their gradient. Each chosen expert keeps its input and output too.
    width = 8 + (3 * plan.experts.top_k * plan.experts.granularity if plan.experts else 0)
    kept = passed * (width * facts.hidden_size + 4 * layer.inner) + 3 * facts.vocabulary
    memory = _BYTES * (total + 3 * trained + batch_tokens * kept)
    return Cost(depth, total, injected, float(flops), memory)


def _layer(base: Base) -> _Layer:
    config = section_of(base.config)
    family = family_of(base.facts.model_type)
    tensors = base.checkpoint.tensors
    prefix = f"{family.stored_layers(tensors, base.facts.depth)}.0."
    first = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    weights = {name: tensor for name, tensor in first.items() if not family.is_buffer(name)}
    hidden = base.facts.hidden_size
    heads = setting(config, "num_attention_heads", "n_head")
    matrices = [tensor for tensor in weights.values() if len(tensor.shape) > 1]
    # What writes to the stream is (hidden, width) or, in gpt2, (width, hidden): its other side is the width.
    widths = [
        t.count // hidden
        for name, t in weights.items()
        if name.endswith(".weight") and family.writes_residual(name)
    ]
    return _Layer(
        parameters=sum(tensor.count for tensor in weights.values()),
        multiplied=sum(math.prod(tensor.shape) for tensor in matrices),
        attention=heads * (setting(config, "head_dim") or hidden // heads),
        inner=max(widths),
    )


def _with_experts(base: Base, dense: _Layer, experts: Experts) -> _Layer:
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
