"""Matrices and tensors outside a checkpoint's layers, from headers alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tli.architectures.config import section_of
from tli.architectures.lookup import family_of
from tli.checkpoint.header import TensorInfo
from tli.growth.layer_sizes import AHEAD, number
from tli.models.base import Base

_PROMPT = {"cpmant": "prompt_length"}  # so many tokens are put before each sequence
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
class OutsideSizes:
    """Matrices outside the layers, in elements: `front` behind the embedding, `back` to the logits.

    `prompt` is the number of tokens that the model puts before each sequence. `by_layer` are parameters of
    tensors that have a part for each layer, multiplied or looked up, and `front_by_layer` those of `front`.
    `idle` are parameters of towers for images and sound, which text does not pass through; `tied` says that
    the head is the embedding.
    """

    front: int
    back: int
    prompt: int = 0
    by_layer: int = 0
    front_by_layer: int = 0
    idle: int = 0
    tied: bool = False


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
    config = section_of(base.config)
    streams = number(config, AHEAD.get(facts.model_type)) or 1
    back = sum(t.count for name, t in outside.items() if _BEFORE_HEAD.search(name))
    others = {name: t for name, t in tensors.items() if not name.startswith(prefix)}
    return OutsideSizes(
        front=sum(front.values()),
        back=back + streams * facts.vocabulary * _head_width(outside, facts.vocabulary, facts.hidden_size),
        prompt=number(config, _PROMPT.get(facts.model_type)),
        by_layer=sum(tensor.count for tensor in parts.values()),
        front_by_layer=sum(front[name] for name in parts if name in front),
        idle=sum(tensor.count for name, tensor in others.items() if _TOWERS.search(name)),
        tied=not any(_HEAD.search(name) for name in outside),
    )


def deepened(outside: OutsideSizes, depth: int, new_depth: int) -> OutsideSizes:
    """The same of a model with another number of layers."""
    by_layer, front_by_layer = (
        count * new_depth // depth for count in (outside.by_layer, outside.front_by_layer)
    )
    front = outside.front - outside.front_by_layer + front_by_layer
    return replace(outside, front=front, by_layer=by_layer, front_by_layer=front_by_layer)


def _head_width(outside: Mapping[str, TensorInfo], vocabulary: int, hidden: int) -> int:
    """What a logit is made of: the width of the head, or of the embedding where the two are tied."""
    fits = {name: tensor.shape[1] for name, tensor in outside.items() if tensor.shape[0] == vocabulary}
    heads = [width for name, width in fits.items() if _HEAD.search(name)]
    embedded = [width for name, width in fits.items() if "per_layer" not in name]
    return max(heads or embedded, default=hidden)
