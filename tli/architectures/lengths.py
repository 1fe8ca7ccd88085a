"""The context length of a model, by the many names that configurations have for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tli.architectures.config import section_of
from tli.errors import Problem

_POSITIONS = (
    *("max_position_embeddings", "n_positions", "seq_length", "max_seq_len", "max_target_positions"),
    "context_length",
)
# Positions that are numbered from the one behind the padding token's id, so that the rows up to it are never
# used; and how many more are not, as another token ahead is predicted.
_BEHIND_PADDING = {
    **dict.fromkeys(("camembert", "data2vec-text", "roberta", "roberta-prelayernorm", "xlm-roberta"), 0),
    **dict.fromkeys(("xlm-roberta-xl", "xmod"), 0),
    "prophetnet": 1,
}
_PADDING = 1  # where such a configuration names no id


def context_of(config: Mapping[str, Any]) -> int | None:
    """The most tokens that a model takes by its config.json; None where that sets no limit."""
    inner = section_of(config)
    found = next((inner[name] for name in _POSITIONS if inner.get(name) is not None), None)
    if type(found) is not int or found < 1:
        return None
    more = _BEHIND_PADDING.get(str(config.get("model_type")))
    if more is None:
        return found
    padding = inner.get("pad_token_id")
    return found - (padding if isinstance(padding, int) else _PADDING) - 1 - more


def length_problems(config: Mapping[str, Any], length: int, where: str, name: str) -> list[Problem]:
    """Why a model called `name` cannot be trained on sequences of `length` tokens; none where it can."""
    context = context_of(config)
    if context is not None and length > context:
        expected = f"at most {context}, the context of {name}"
        return [Problem(where, str(length), expected, str(context))]
    return _reformer_problems(config, length, where, name) if config.get("model_type") == "reformer" else []


def _reformer_problems(config: Mapping[str, Any], length: int, where: str, name: str) -> list[Problem]:
    """Its training takes whole tables of positions or, without one, whole chunks."""
    shape = config.get("axial_pos_shape", [64, 64])
    if config.get("axial_pos_embds", True) and _whole(shape):
        whole = math.prod(shape)
        expected = f"{whole}, as {name} has its positions in a table of {' x '.join(map(str, shape))}"
        return [] if length == whole else [Problem(where, str(length), expected, str(whole))]
    chunks = [config.get(f"{kind}_attn_chunk_length", 64) for kind in ("local", "lsh")]
    chunk = math.lcm(*chunks) if _whole(chunks) else 1
    nearest = str(math.ceil(length / chunk) * chunk)
    expected = f"a multiple of {chunk}, the chunks of its attention"
    return [Problem(where, str(length), expected, nearest)] if length % chunk else []


def _whole(sizes: Any) -> bool:
    return isinstance(sizes, (list, tuple)) and all(type(size) is int and size > 0 for size in sizes)
