"""What a plan costs in parameters, arithmetic and memory, from headers and configuration alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tli.base import Base, setting
from tli.config import section_of
from tli.experts import Experts
from tli.families import family_of
from tli.header import TensorInfo
from tli.moe import DENSE, require_mixture
from tli.plan import Plan

_BYTES = 4  # weights, gradients and both moments of AdamW are float32


@dataclass(frozen=True)
class Cost:
    """Of one trial. `flops_per_token` is of training (forward and backward); `memory_bytes` an estimate of
    its weights, gradients, AdamW moments and activations, without a base model kept beside it and libraries.
    Measuring the held-out loss takes less: as many tokens at once (`tli.train`), forward only, nothing kept.
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
    old = _layers(base)
    stack = old if plan.experts is None else [_with_experts(base, layer, plan.experts) for layer in old]
    layers = [stack[source] for source in plan.sources]
    fresh = [layers[position] for position in plan.injected]
    kept_on = [layer for position, layer in enumerate(layers) if position not in set(plan.injected)]
    head, depth = facts.hidden_size * facts.vocabulary, plan.new_depth
    total = (
        facts.parameters + sum(layer.parameters for layer in layers) - sum(layer.parameters for layer in old)
    )
    injected = sum(layer.parameters for layer in fresh) + sum(layer.experts for layer in kept_on)
    trained = total if train == "all" else injected
    # Of the first layer, unless it is new, only experts are trained: little but their own gradient is needed.
    trains = {*plan.injected, *((min(1, depth - 1),) if plan.experts else ())}
    lowest = 0 if train == "all" else min(trains, default=depth)
    passed = layers[lowest:]  # those that the gradient goes through
    weighed = sum(layer.multiplied for layer in fresh) + sum(layer.chosen for layer in kept_on)
    if train == "all":
        weighed = sum(layer.multiplied for layer in layers) + head
    flops = sum(2 * layer.multiplied + 4 * layer.attention * sequence_length for layer in layers) + 2 * head
    flops += sum(2 * layer.multiplied + 8 * layer.attention * sequence_length for layer in passed)
    flops += (2 * head if passed else 0) + 2 * weighed
    # Kept for the backward pass of a layer: its input, the outputs of both norms, queries, keys, values, the
    # attended values and the sums (about 8 widths), and 4 widths of the feed-forward part. Of the head:
    # logits, their logarithms and their gradient. Each chosen expert keeps its input and output too.
    width = 8 + (3 * plan.experts.top_k * plan.experts.granularity if plan.experts else 0)
    kept = sum(width * facts.hidden_size + 4 * layer.inner for layer in passed) + 3 * facts.vocabulary
    memory = _BYTES * (total + 3 * trained + batch_tokens * kept)
    return Cost(depth, total, injected, float(flops), memory)


_HEADS = (
    "num_attention_heads",
    "n_head",
    "n_heads",
    "num_heads",
    "decoder_attention_heads",
    "attention_heads",
    "num_decoder_attention_heads",
)
_CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")


def _layers(base: Base) -> list[_Layer]:
    """The sizes of every layer of the base."""
    family = family_of(base.facts.model_type)
    tensors, depth = base.checkpoint.tensors, base.facts.depth
    prefix = f"{family.stored_layers(tensors, depth)}."
    inside: list[dict[str, TensorInfo]] = [{} for _ in range(depth)]
    for name, tensor in tensors.items():
        layer, _, rest = name.removeprefix(prefix).partition(".")
        if name.startswith(prefix) and int(layer) < depth and not family.is_buffer(rest):
            inside[int(layer)][rest] = tensor
    return [_layer(base, weights) for weights in inside]


def _layer(base: Base, weights: Mapping[str, TensorInfo]) -> _Layer:
    config, hidden = section_of(base.config), base.facts.hidden_size
    heads = setting(config, *_HEADS)
    matrices = {name: tensor for name, tensor in weights.items() if len(tensor.shape) > 1}
    chosen, experts = setting(config, *_CHOSEN), setting(config, *_EXPERTS)
    share = chosen / experts if isinstance(chosen, int) and isinstance(experts, int) and experts else 1.0
    # What writes to the stream is (hidden, width) or, in gpt2, (width, hidden): its other side is the width.
    family = family_of(base.facts.model_type)
    written = [tensor for name, tensor in matrices.items() if family.writes_residual(name)]
    plain = [tensor for tensor in written or matrices.values() if len(tensor.shape) == 2]
    multiplied = sum(t.count * (share if ".experts." in name else 1.0) for name, t in matrices.items())
    return _Layer(
        parameters=sum(tensor.count for tensor in weights.values()),
        multiplied=round(multiplied),
        attention=heads * (setting(config, "head_dim") or hidden // heads) if isinstance(heads, int) else 0,
        inner=max((tensor.count // hidden for tensor in plain), default=0),
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
