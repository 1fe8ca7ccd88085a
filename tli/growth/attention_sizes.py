"""Widths of a layer's attention scores, from the names and shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from tli.checkpoint.header import TensorInfo
from tli.models.config_checks import setting

HEADS = (
    "num_attention_heads",
    "n_head",
    "n_heads",
    "num_heads",
    "decoder_attention_heads",
    "attention_heads",
    "num_decoder_attention_heads",
)
DISTANCES = "rel_attn.r"
# Where the attended values leave an attention; their width is that of all heads together.
_ATTENDED = re.compile(
    r"(?:^|\.)(?P<module>(?:self_attn(?:\.\d+)?|self_attention|attention|attn|multi_head_attention|rel_attn"
    r"|temporal_block|mixer)\.)"
    r"(?:o_proj(?:\.linear)?|out_proj|dense|output\.dense|c_proj|Wo|attention_out|o)(?:\.weight)?$"
)
ATTENTION = re.compile(r"(^|\.)(self_attn|self_attention|attention|attn)\.")
_SCAN = re.compile(r"\.(A_log|dt_bias)$|mlstm_layer\.q\.weight$")


def attention_width(config: Mapping[str, Any], run: Mapping[str, TensorInfo], hidden: int) -> float:
    """Width of all heads, the mean of that of queries and that of values, over all attentions of a layer."""
    width, found = 0.0, False
    for name, tensor in run.items():
        match = _ATTENDED.search(name)
        if match is None or len(tensor.shape) < 2:
            continue
        found = True
        module = name[: match.end("module")]
        if not scans(run, module):
            values = tensor.count // hidden
            width += (_queries(config, run, module, values) + values) / 2
    if found or not any(ATTENTION.search(name) for name in run):
        return width
    heads, size = setting(config, *HEADS), config.get("head_dim")
    if not isinstance(heads, int) or heads < 1:
        return 0.0
    return heads * (size if isinstance(size, int) and size > 0 else hidden // heads)


def scans(names: Iterable[str], module: str = "") -> bool:
    """Whether a module, or any, is a linear attention or a state space, whose recurrence has no scores."""
    return any(name.startswith(module) and _SCAN.search(name) for name in names)


def _queries(config: Mapping[str, Any], run: Mapping[str, TensorInfo], module: str, values: int) -> int:
    """Width of all queries: that of the values, unless keys are latent and have a part for the position."""
    latent, up = run.get(f"{module}kv_a_proj_with_mqa.weight"), run.get(f"{module}kv_b_proj.weight")
    query = run.get(f"{module}q_b_proj.weight") or run.get(f"{module}q_proj.weight")
    heads = setting(config, *HEADS)
    if module + DISTANCES.rpartition(".")[2] in run:
        return 3 * values  # and of as many to each of twice as many distances
    if latent is None or up is None or query is None or not isinstance(heads, int):
        return values
    plain = up.shape[0] - values
    # A query may be followed by a gate, and a layer may have fewer heads than the configuration says.
    return plain + min(query.shape[0] - plain, heads * (latent.shape[0] - up.shape[1]))
