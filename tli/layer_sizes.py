"""What the layers of a checkpoint hold and what a token is multiplied with in them, from headers and configuration.

Weights in files have many names. What multiplies is found by what it is not: a bias, a table that is looked up,
the decay of a state space, a convolution over a few neighbours, attention to another model's text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tli.base import Base, setting
from tli.config import section_of
from tli.families import family_of
from tli.family import Family
from tli.header import TensorInfo

_HEADS = (
    "num_attention_heads",
    "n_head",
    "n_heads",
    "num_heads",
    "decoder_attention_heads",
    "attention_heads",
    "num_decoder_attention_heads",
)
_CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "moe_top_k", "top_k_experts")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_EVERY_EXPERT = ("llama4", "llama4_text")  # each token goes through all of them, to be weighed with zero after

# Tensors of two or more dimensions that no matrix product reads.
_NOT_MULTIPLIED = re.compile(
    r"(^|[._])(bias|A_log|D|ape|tid2eid|seg_embed)$|embedding|time_mix|conv[^.]*(\.weight)?$"
)
_CROSS = re.compile(r"(^|\.)(cross_attn|encoder_attn|crossattention)\.")  # not run on text alone
_EXPERT = re.compile(r"(^|\.)experts\.")
# Where the attended values leave an attention; their width is that of all heads together.
_ATTENDED = re.compile(
    r"(?:^|\.)(?P<module>(?:self_attn(?:\.\d+)?|self_attention|attention|attn|multi_head_attention|rel_attn"
    r"|temporal_block|mixer)\.)"
    r"(?:o_proj(?:\.linear)?|out_proj|dense|output\.dense|c_proj|Wo|attention_out|o)(?:\.weight)?$"
)
_ATTENTION = re.compile(r"(^|\.)(self_attn|self_attention|attention|attn)\.")
_RECURRENT = ("A_log", "dt_bias", "conv1d.weight", "conv_1d.weight")  # beside it: a scan, and no scores
_SCAN = re.compile(r"\.(A_log|dt_bias)$|\.g?dt_proj")

# Matrices outside the layers that every token is multiplied with: behind the embedding, and before the head.
_BEHIND_EMBEDDING = re.compile(
    r"(embedding_hidden_mapping_in|map_inputs_layer|embeddings_project|project_in|per_layer_model_projection"
    r"|altup_projections\.\d+)\.weight$"
)
_BEFORE_HEAD = re.compile(
    r"((transform|lm_head|predictions|generator_predictions)\.dense|project_out|altup_unembed_projections\.\d+"
    r"|input_mix_weight_(down|up))\.weight$|hc_(head\.)?(hc_)?(head_)?fn$"
)
_HEAD = re.compile(r"(^|\.)(lm_head|head|embed_out|output|decoder)\.weight$")
_TOWERS = re.compile(r"vision|visual|image|audio|multi_modal")


@dataclass(frozen=True)
class LayerSizes:
    """Of one layer, in elements.

    Attributes:
        parameters: of all its tensors.
        multiplied: of the matrices that a token is multiplied with; of experts, those that it goes through.
        attention: width of all heads together, the mean of that of queries and that of values; 0 where no
            scores are made.
        inner: width of the feed-forward part; of all that a token goes through, where there are experts.
        experts: of `parameters`, those of router and experts that the plan adds.
        chosen: of `multiplied`, that in the router and the chosen experts that the plan adds.
    """

    parameters: int
    multiplied: float
    attention: float
    inner: int
    experts: int = 0
    chosen: int = 0


@dataclass(frozen=True)
class OutsideSizes:
    """Matrices outside the layers, in elements: `front` behind the embedding, `back` to the logits.

    `by_layer` is the part of `front` that has a piece for each layer, and `widened` all parameters of that
    kind: they grow with the depth.
    """

    front: int
    back: int
    by_layer: int = 0
    widened: int = 0


def layer_sizes(base: Base) -> list[LayerSizes]:
    """The sizes of every layer of the base. Raises FamilyError."""
    family = family_of(base.facts.model_type)
    tensors, depth = base.checkpoint.tensors, base.facts.depth
    prefix = f"{family.stored_layers(tensors, depth)}."
    inside: list[dict[str, TensorInfo]] = [{} for _ in range(depth)]
    for name, tensor in tensors.items():
        layer, _, rest = name.removeprefix(prefix).partition(".")
        if name.startswith(prefix) and int(layer) < depth and not family.is_buffer(rest):
            inside[int(layer)][rest] = tensor
    config = section_of(base.config)
    shared = _shared(config, family, inside)
    return [_layer(base, index, weights, shared.get(index, {})) for index, weights in enumerate(inside)]


def outside_sizes(base: Base) -> OutsideSizes:
    """The matrices outside the layers of the base. Raises FamilyError."""
    facts, family = base.facts, family_of(base.facts.model_type)
    tensors = base.checkpoint.tensors
    prefix = f"{family.stored_layers(tensors, facts.depth)}."
    outside = {
        name: tensor
        for name, tensor in tensors.items()
        if not name.startswith(prefix) and not _TOWERS.search(name) and len(tensor.shape) == 2
    }
    parts = {name: t for name, t in outside.items() if family.axis_of_layers(name) is not None}
    front = {name: t.count for name, t in outside.items() if _BEHIND_EMBEDDING.search(name)}
    back = sum(t.count for name, t in outside.items() if _BEFORE_HEAD.search(name))
    return OutsideSizes(
        front=sum(front.values()),
        back=back + facts.vocabulary * _head_width(outside, facts.vocabulary, facts.hidden_size),
        by_layer=sum(front[name] for name in parts if name in front),
        widened=sum(tensor.count for tensor in parts.values()),
    )


def _head_width(outside: Mapping[str, TensorInfo], vocabulary: int, hidden: int) -> int:
    """What a logit is made of: the width of the head, or of the embedding where the two are tied."""
    fits = {name: tensor.shape[1] for name, tensor in outside.items() if tensor.shape[0] == vocabulary}
    heads = [width for name, width in fits.items() if _HEAD.search(name)]
    embedded = [width for name, width in fits.items() if "per_layer" not in name]
    return next(iter(heads or embedded), hidden)


def _shared(
    config: Mapping[str, Any], family: Family, inside: list[dict[str, TensorInfo]]
) -> dict[int, dict[str, TensorInfo]]:
    """Weights that layers of one kind share, for each layer whose own tensors lack them: files hold one copy."""
    kinds = config.get(family.lists[0]) if family.uncopied else None
    if not isinstance(kinds, list):
        return {}
    same = [index for index, kind in enumerate(kinds[: len(inside)]) if kind in family.uncopied]
    every = {name: tensor for index in same for name, tensor in inside[index].items()}
    return {index: {n: t for n, t in every.items() if n not in inside[index]} for index in same}


def _layer(
    base: Base, index: int, weights: Mapping[str, TensorInfo], shared: Mapping[str, TensorInfo]
) -> LayerSizes:
    config, hidden = section_of(base.config), base.facts.hidden_size
    family = family_of(base.facts.model_type)
    run = {name: t for name, t in {**weights, **shared}.items() if not _CROSS.search(name)}
    if len(run) < len(weights) and not any(_ATTENTION.search(name) for name in run):
        run = {}  # a layer that attends to an image alone is passed over where there is none
    matrices = {
        name: tensor
        for name, tensor in run.items()
        if len(tensor.shape) > 1 and not _NOT_MULTIPLIED.search(name)
    }
    share, experts = _share(config, base.facts.model_type, index)
    # What writes to the stream is (hidden, width) or, in gpt2, (width, hidden): its other side is the width.
    written = [tensor for name, tensor in matrices.items() if family.writes_residual(name)]
    plain = [tensor for tensor in written or matrices.values() if len(tensor.shape) == 2]
    return LayerSizes(
        parameters=sum(tensor.count for tensor in weights.values()),
        multiplied=sum(
            tensor.count * (share if _is_expert(name, tensor, experts) else 1)
            for name, tensor in matrices.items()
        ),
        attention=_attention(config, run, hidden),
        inner=max((tensor.count // hidden for tensor in plain), default=0),
    )


def _share(config: Mapping[str, Any], model_type: str, index: int) -> tuple[float, int | None]:
    """The share of a layer's experts that a token goes through, and how many there are."""
    inner = config.get("ffn_config")
    read = {**config, **inner} if isinstance(inner, dict) else config
    chosen, experts = (_of_layer(setting(read, *names), index) for names in (_CHOSEN, _EXPERTS))
    if not chosen or not experts or model_type in _EVERY_EXPERT:
        return 1.0, experts
    return min(1.0, chosen / experts), experts


def _of_layer(value: Any, index: int) -> int | None:
    """A number that a configuration has for all layers, or one for each."""
    if isinstance(value, list):
        value = value[index] if index < len(value) else None
    return value if isinstance(value, int) else None


def _is_expert(name: str, tensor: TensorInfo, experts: int | None) -> bool:
    """Whether a matrix is of routed experts: one of them, or all in one tensor."""
    fused = len(tensor.shape) == 3 and tensor.shape[0] == experts and "shared" not in name
    return fused or _EXPERT.search(name) is not None


def _attention(config: Mapping[str, Any], run: Mapping[str, TensorInfo], hidden: int) -> float:
    """Width of all heads, the mean of that of queries and that of values, over all attentions of a layer."""
    width, found = 0.0, False
    for name, tensor in run.items():
        match = _ATTENDED.search(name)
        if match is None or len(tensor.shape) < 2:
            continue
        found = True
        module = name[: match.end("module")]
        if not _scans(module, run):
            values = tensor.count // hidden
            width += (_queries(config, run, module, values) + values) / 2
    if found or not any(_ATTENTION.search(name) for name in run):
        return width
    heads = setting(config, *_HEADS)
    return heads * (setting(config, "head_dim") or hidden // heads) if isinstance(heads, int) else 0


def _scans(module: str, run: Iterable[str]) -> bool:
    """Whether a module is a linear attention or a state space, which make no scores."""
    return any(name.startswith(module) and _SCAN.search(name) for name in run)


def _queries(config: Mapping[str, Any], run: Mapping[str, TensorInfo], module: str, values: int) -> int:
    """Width of all queries: that of the values, but where keys are latent and have a part for the position."""
    latent, up = run.get(f"{module}kv_a_proj_with_mqa.weight"), run.get(f"{module}kv_b_proj.weight")
    query = run.get(f"{module}q_b_proj.weight") or run.get(f"{module}q_proj.weight")
    heads = setting(config, *_HEADS)
    if latent is None or up is None or query is None or not isinstance(heads, int):
        return values
    plain = up.shape[0] - values
    # A query may be followed by a gate, and a layer may have fewer heads than the configuration says.
    return plain + min(query.shape[0] - plain, heads * (latent.shape[0] - up.shape[1]))
