"""Sizes that a configuration speaks of, against the shapes of the tensors that are stored beside it.

transformers refuses a file whose tensors have other shapes than the configuration makes, but only when it
loads the weights. The rules here hold for every architecture that has tensors of these names; what a
configuration leaves out is not known here, as its class decides it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tli.architectures.config import depth_of, section_of
from tli.architectures.table import FAMILIES
from tli.checkpoint.header import TensorInfo
from tli.checkpoint.reader import Checkpoint
from tli.errors import Problem
from tli.models.config_checks import HIDDEN, setting, vocabulary_of
from tli.terminal import formatted

_FLOATS = ("F64", "F32", "F16", "BF16")  # packed tensors have other shapes
_TOWERS = re.compile(r"vision|visual|image|audio|vq|depth|multi_modal")
# Embedding and head: a row for each token, in nearly all architectures.
_BY_TOKEN = re.compile(
    r"(^|\.)(lm_head|embed_tokens|wte|word_embeddings?|embed_in|embed_out|embeddings|tokens_embed)\.weight$"
)
# Rows of an embedding behind those of the vocabulary.
_MORE_ROWS = {"mllama": 8, "mllama_text_model": 8, "moshi": 1}
_NARROWER = ("word_embed_proj_dim", "embedding_size", "input_embedding_size", "output_embedding_size")
_BY_POSITION = re.compile(r"(^|\.)(wpe|position_embeddings)\.weight$")  # a learned row for each
_POSITIONS = ("n_positions", "max_position_embeddings")
_NORM = re.compile(r"[a-z_]*norm\.weight")
_INNER = ("intermediate_size", "n_inner", "ffn_dim", "decoder_ffn_dim", "ffn_hidden_size")
# Matrices of a dense feed-forward part, and how many of its widths they are wide.
_FEED_FORWARD = {
    **dict.fromkeys(("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "mlp.c_fc", "mlp.c_proj"), 1),
    **dict.fromkeys(("mlp.fc_in", "mlp.fc_out", "mlp.fc1", "fc1"), 1),
    **dict.fromkeys(("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"), 1),
    "mlp.gate_up_proj": 2,
}
_HEADS = (
    *("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads", "attention_heads"),
    "num_decoder_attention_heads",
)
_PROJECTION = re.compile(r"(?:self_attn|attn|attention|self_attention)\.([qkv])_proj\.weight")
# Settings under which layers differ in their sizes, or heads have several parts.
_OTHER_LAYERS = ("per_layer_config", "block_configs", "quantization_config")
_LATENT = ("kv_lora_rank", "q_lora_rank")


def shape_problems(config: Mapping[str, Any], checkpoint: Checkpoint, where: str) -> list[Problem]:
    """Sizes of a checked configuration that are not those of the stored tensors, one problem a setting.

    Args:
        config: the content of config.json.
        checkpoint: the tensors beside it.
        where: what messages call the configuration.
    """
    family, section = FAMILIES.get(config["model_type"]), section_of(config)
    if family is None or family.refused:
        return []
    prefix = f"{family.stored_layers(checkpoint.tensors, depth_of(config, family))}."
    found: dict[str, Problem] = {}
    for name, tensor in checkpoint.tensors.items():
        if tensor.dtype not in _FLOATS:
            continue
        if name.startswith(prefix):
            rest = name.removeprefix(prefix).partition(".")[2]
            wrong = list(_in_layer(section, rest, tensor)) if not family.mixed else []
            wrong += _norm(section, rest, tensor)
            queries = checkpoint.tensors.get(re.sub(r"\b[kv]_proj\b", "q_proj", name))
            if queries is not None and not family.mixed:
                wrong += _heads(section, rest, tensor, queries)
        else:
            wrong = list(_outside(config, section, name, tensor))
        for key, told, fits in wrong:
            expected = f"{fits}, by {formatted(name)} of shape {list(tensor.shape)}"
            remedy = "the config.json of these weights"
            found.setdefault(key, Problem(f"{where}: {key}", repr(told), expected, remedy))
    return list(found.values())


_Wrong = Iterator[tuple[str, Any, str]]  # the setting, its value, what would fit


def _key(section: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return next((name for name in names if section.get(name) is not None), names[0])


def _outside(config: Mapping[str, Any], section: Mapping[str, Any], name: str, tensor: TensorInfo) -> _Wrong:
    """Of an embedding, or of the head."""
    if len(tensor.shape) != 2 or _TOWERS.search(name):
        return
    rows, width = tensor.shape
    positions = setting(section, *_POSITIONS)
    if _BY_POSITION.search(name) and positions is not None and rows != positions:
        yield _key(section, _POSITIONS), positions, str(rows)
    if not _BY_TOKEN.search(name):
        return
    vocabulary = vocabulary_of(config)
    if rows not in (vocabulary, vocabulary + _MORE_ROWS.get(config["model_type"], 0)):
        yield "vocab_size", vocabulary, str(rows)
    hidden = setting(section, *HIDDEN)
    if width not in (hidden, *(section.get(key) for key in _NARROWER)):
        yield _key(section, HIDDEN), hidden, str(width)


def _norm(section: Mapping[str, Any], rest: str, tensor: TensorInfo) -> _Wrong:
    """Of a norm of the stream."""
    hidden = setting(section, *HIDDEN)
    if _NORM.fullmatch(rest) and len(tensor.shape) == 1 and tensor.shape[0] != hidden:
        yield _key(section, HIDDEN), hidden, str(tensor.shape[0])


def _in_layer(section: Mapping[str, Any], rest: str, tensor: TensorInfo) -> _Wrong:
    """Of a matrix of the feed-forward part, where it is the same in all layers."""
    parts, inner = _FEED_FORWARD.get(rest.removesuffix(".weight")), setting(section, *_INNER)
    hidden, shape = setting(section, *HIDDEN), list(tensor.shape)
    if parts is None or not isinstance(inner, int) or _differ(section):
        return
    if len(shape) == 2 and hidden in shape and sorted(shape) != sorted([hidden, parts * inner]):
        yield _key(section, _INNER), inner, f"{shape[1 - shape.index(hidden)] / parts:g}"


def _heads(section: Mapping[str, Any], rest: str, tensor: TensorInfo, queries: TensorInfo) -> _Wrong:
    """Of the projection to queries, keys or values: so many heads of one size."""
    match = _PROJECTION.fullmatch(rest)
    if match is None or len(tensor.shape) != 2 or len(queries.shape) != 2 or _differ(section, *_LATENT):
        return
    key = "num_key_value_heads" if match[1] in "kv" else _key(section, _HEADS)
    every, heads = setting(section, *_HEADS), section.get(key)
    if not isinstance(every, int) or not isinstance(heads, int):
        return
    told, width = section.get("head_dim"), tensor.shape[0]
    size = told if isinstance(told, int) else queries.shape[0] / every
    if size != int(size):
        yield _key(section, _HEADS), every, f"a divisor of {queries.shape[0]}"
    elif width != heads * size:
        yield key, heads, f"{width / size:g}, of head_dim {size:g}"


def _differ(section: Mapping[str, Any], *more: str) -> bool:
    return any(section.get(key) for key in (*_OTHER_LAYERS, *more))
