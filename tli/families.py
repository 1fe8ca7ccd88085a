"""Facts about architectures, as data. A new one is a row here that passes `tests/tli/test_upscale.py`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tli.errors import FamilyError, Problem


@dataclass(frozen=True)
class Family:
    """What must be known of one `model_type` to inject layers into it.

    `writes` names the modules of a layer whose outputs are added to the residual stream: with their weights
    and biases at zero the layer hands its input on unchanged. Only pre-norm architectures are listed; a norm
    behind the sublayer needs more than zeros.
    """

    model_type: str
    writes: tuple[str, ...]
    layers: str = "model.layers"  # the list of layers, in the module tree and on disk
    depth_key: str = "num_hidden_layers"  # in config.json
    layer_lists: tuple[str, ...] = ()  # config keys with one entry per layer, which a file may leave out
    lists_vary_with: str | None = (
        None  # left-out lists have equal entries while this key is false; None: they vary
    )
    leading_counts: tuple[str, ...] = ()  # config keys that count layers from the bottom
    gains: tuple[str, ...] = ()  # norms behind a sublayer, before its output is added to the stream
    gain_offset: float = 0.0  # what is added to the stored gain of a norm: 1 where it is stored as w of 1 + w
    buffers: tuple[str, ...] = ()  # in a layer of older files, but not weights: copied whatever the init
    drawn_by_depth: bool = False  # the initialiser divides the deviation of `writes` by sqrt(2 * depth)
    refusals: tuple[tuple[str, str], ...] = ()  # config key that must be false or empty, and why

    def writes_residual(self, name: str) -> bool:
        """Whether tensor `name` of a layer (`mlp.down_proj.weight`) makes what is added to the stream."""
        return name.rpartition(".")[0] in self.writes

    def is_gain(self, name: str) -> bool:
        """Whether tensor `name` of a layer is the gain or bias of a norm behind a sublayer."""
        return name.rpartition(".")[0] in self.gains

    def is_buffer(self, name: str) -> bool:
        """Whether tensor `name` of a layer is no weight."""
        return name in self.buffers

    def stored_layers(self, names: Iterable[str]) -> str:
        """Where the layers are in a file's tensor names; models saved without head lack the first part."""
        short = self.layers.partition(".")[2]
        return short if any(name.startswith(f"{short}.") for name in names) else self.layers


_ROTARY = ("self_attn.rotary_emb.inv_freq",)
_LLAMA = ("self_attn.o_proj", "mlp.down_proj")
_NEOX_BUFFERS = ("attention.bias", "attention.masked_bias", "attention.rotary_emb.inv_freq")
_MOVED_SCALE = "attention of every layer is scaled by its index, so the layers behind a new one would change"
_POST_NORM = (
    "the residual stream itself passes a norm, so no weights make a layer hand its input on unchanged"
)

_ROWS = (
    Family("llama", _LLAMA, buffers=_ROTARY),
    Family("mistral", _LLAMA, buffers=_ROTARY),
    Family(
        "qwen2",
        _LLAMA,
        layer_lists=("layer_types",),
        lists_vary_with="use_sliding_window",
        leading_counts=("max_window_layers",),
        buffers=_ROTARY,
    ),
    Family(
        "qwen3",
        _LLAMA,
        layer_lists=("layer_types",),
        lists_vary_with="use_sliding_window",
        leading_counts=("max_window_layers",),
    ),
    Family(
        "gpt2",
        ("attn.c_proj", "mlp.c_proj"),
        layers="transformer.h",
        depth_key="n_layer",
        buffers=("attn.bias", "attn.masked_bias"),
        drawn_by_depth=True,
        refusals=(
            ("scale_attn_by_inverse_layer_idx", _MOVED_SCALE),
            ("pruned_heads", "heads are pruned by index"),
        ),
    ),
    Family(
        "gpt_neox",
        ("attention.dense", "mlp.dense_4h_to_h"),
        layers="gpt_neox.layers",
        buffers=_NEOX_BUFFERS,
    ),
    Family("phi3", _LLAMA),
    Family("granite", _LLAMA),
    Family("olmo", _LLAMA),
    Family("stablelm", _LLAMA, buffers=_ROTARY),
    Family("smollm3", _LLAMA, layer_lists=("layer_types", "no_rope_layers")),
    Family("starcoder2", ("self_attn.o_proj", "mlp.c_proj")),
    Family("phi", ("self_attn.dense", "mlp.fc2"), buffers=_ROTARY),
    Family(
        "gptj",
        ("attn.out_proj", "mlp.fc_out"),
        layers="transformer.h",
        depth_key="n_layer",
        buffers=("attn.bias", "attn.masked_bias"),
    ),
    Family(
        "bloom",
        ("self_attention.dense", "mlp.dense_4h_to_h"),
        layers="transformer.h",
        depth_key="n_layer",
        refusals=(("apply_residual_connection_post_layernorm", _POST_NORM),),
    ),
)
FAMILIES: Mapping[str, Family] = {row.model_type: row for row in _ROWS}


def family_of(model_type: str | None, where: str = "config.json: model_type") -> Family:
    """The row of an architecture. Raises FamilyError for one that is not known."""
    if model_type is not None and model_type in FAMILIES:
        return FAMILIES[model_type]
    reason = "not known which of its weights write to the residual stream"
    raise FamilyError(Problem(where, f"{model_type!r} ({reason})", f"one of {', '.join(FAMILIES)}"))


def refusals(family: Family, config: Mapping[str, Any], where: str = "config.json") -> list[Problem]:
    """Settings of a config under which layers cannot be injected, each with its reason."""
    problems = [
        Problem(f"{where}: {key}", f"{config[key]!r} ({reason})", "it off", "another base model")
        for key, reason in family.refusals
        if config.get(key)
    ]
    depth = config.get(family.depth_key)
    known = {*family.layer_lists, "layer_types"}
    for key, value in config.items():
        # An unknown list with one entry per layer would be left behind and shift every later layer's setting.
        if "layer" in key and key not in known and isinstance(value, list) and len(value) == depth:
            problems.append(
                Problem(
                    f"{where}: {key}",
                    "a list with one entry per layer",
                    f"none that {family.model_type} lacks",
                )
            )
    return problems
