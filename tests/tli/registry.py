"""A tiny random model of every causal-LM type that the installed transformers registers.

Most types need nothing but a smaller number for each size of their config (`SMALL`). `registry.json` holds what
is left, per type:

settings   what its config is given on top; a dict for a config in it
cannot     why no small model of the type runs by `model(input_ids)`; then `raises` is a part of what it says
no_cache   why even the untouched model does not generate with its cache what it generates without
no_reload  why what it saves is not loaded by the same auto class

and of growing it (`test_registry.py`):

plan          settings of the injection, where a new layer after every 2 is not possible
to_grow       settings of its config without which no layer can be injected
no_bfloat16   why even the untouched model does not run in bfloat16
train_length  tokens of a text that it can be trained on

and of what it costs (`test_cost_registry.py`):

scan          why the recurrence between its projections is not compared; everything else is
not_counted   why torch's counter has no figure for it
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

VOCABULARY = 257
DEPTH = 4

DEPTHS = frozenset(
    {"num_hidden_layers", "num_layers", "n_layer", "n_layers", "num_blocks", "depth"}
    | {"decoder_layers", "num_decoder_layers"}
    | {"encoder_layers", "num_encoder_layers"}  # a decoder alone makes a cache as long as its encoder is deep
)
# Small sizes, and the names by which configs call them.
_SIZES = (
    (VOCABULARY, "vocab_size"),
    (64, "max_position_embeddings n_positions n_ctx max_seq_len context_length"),
    (64, "max_target_positions max_source_positions original_max_position_embeddings"),
    (32, "hidden_size n_embd d_model emb_dim embedding_dim embedding_size word_embed_proj_dim"),
    (32, "input_embedding_size output_embedding_size"),
    (
        48,
        "intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim ffn_hidden_size dff dim_ff d_inner n_inner",
    ),
    (48, "feed_forward_size intermediate_size_mlp dense_intermediate_size"),
    (4, "num_attention_heads n_head n_heads num_heads attention_heads swa_num_attention_heads index_n_heads"),
    (4, "decoder_attention_heads num_decoder_attention_heads encoder_attention_heads"),
    (4, "num_encoder_attention_heads linear_num_heads linear_num_value_heads"),
    (2, "num_key_value_heads swa_num_key_value_heads num_kv_heads linear_num_key_heads"),
    (8, "head_dim swa_head_dim kv_channels qk_nope_head_dim v_head_dim dim_head d_head attention_head_size"),
    (8, "attention_head_dim linear_head_dim linear_key_head_dim linear_value_head_dim index_head_dim"),
    (4, "qk_rope_head_dim rotary_dim d_rel"),
    (16, "kv_lora_rank q_lora_rank o_lora_rank"),
    (4, "num_experts n_routed_experts num_local_experts moe_num_experts"),
    (2, "num_experts_per_tok moe_topk moe_k top_k_experts index_topk"),
    (1, "n_group topk_group n_shared_experts num_shared_experts"),
    (16, "moe_intermediate_size shared_expert_intermediate_size shared_experts_intermediate_size"),
    (16, "shared_intermediate_size moe_shared_expert_intermediate_size expert_ffn_hidden_size"),
    (4, "sliding_window window_size attention_window_size sliding_window_size local_attention"),
    (8, "mamba_d_state state_size ssm_state_size mamba_n_heads mamba_num_heads mamba_d_head mamba_head_dim"),
    (64, "mamba_d_ssm"),
    (8, "chunk_size mamba_chunk_size"),
    # Patterns over the layers, so short that a few layers show them.
    (2, "sliding_window_pattern global_attn_every_n_layers no_rope_layer_interval max_window_layers"),
    (1, "first_k_dense_replace"),
)
SMALL: dict[str, Any] = {
    **{name: size for size, names in _SIZES for name in names.split()},
    **dict.fromkeys(DEPTHS, DEPTH),
    "use_sliding_window": True,
    "is_decoder": True,
    "pad_token_id": 0,
    "bos_token_id": VOCABULARY - 1,
    "eos_token_id": VOCABULARY - 1,
}
# Buffers that training sets, and that start as zeros or ones.
LEARNED = {"e_score_correction_bias", "expert_bias", "layer_scalar"}


@cache
def rows() -> Mapping[str, Mapping[str, Any]]:
    """`registry.json`: each type's row, for those that have one."""
    found: dict[str, dict[str, Any]] = json.loads(
        Path(__file__).with_suffix(".json").read_text(encoding="utf-8")
    )
    return found


@cache
def model_types() -> tuple[str, ...]:
    """Every type that `AutoModelForCausalLM` knows, sorted."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return tuple(sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))


def _shrunk(config_class: Any) -> dict[str, Any]:
    """Settings of a config class: its own sizes, small, and those of the configs in it."""
    from transformers import CONFIG_MAPPING

    settings: dict[str, Any] = {
        field.name: SMALL[field.name] for field in fields(config_class) if field.name in SMALL
    }
    if {"kv_lora_rank", "num_key_value_heads"} <= settings.keys():  # latent attention has no groups of heads
        settings["num_key_value_heads"] = settings["num_attention_heads"]
    for name, nested in config_class.sub_configs.items():
        if nested.__name__ == "AutoConfig":
            model_type = config_class.sub_configs_defaults[name].model_type
            settings[name] = {**_shrunk(CONFIG_MAPPING[model_type]), "model_type": model_type}
        else:
            settings[name] = _shrunk(nested)
        if name.startswith(("vision", "audio", "vq")):  # towers beside the language model have another depth
            settings[name].update({key: 2 for key in settings[name] if key in DEPTHS})
    return settings


def _merged(settings: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    both = {**settings, **over}
    for key in settings.keys() & over.keys():
        if isinstance(settings[key], dict) and isinstance(over[key], dict):
            both[key] = _merged(settings[key], over[key])
    return both


def tiny_config(model_type: str, **over: Any) -> PreTrainedConfig:
    """The small config of a type; `over` replaces settings, dicts key by key."""
    from transformers import CONFIG_MAPPING

    config_class = CONFIG_MAPPING[model_type]
    settings = _merged(_shrunk(config_class), rows().get(model_type, {}).get("settings", {}))
    return config_class(**_merged(settings, over))


def tiny(model_type: str, **over: Any) -> PreTrainedModel:
    """A small model of a type: float32, on the CPU, in evaluation mode, no parameter at its usual start.

    The same for every call. Raises what transformers raises where the type cannot be built here.
    """
    import torch
    from transformers import AutoModelForCausalLM

    config = tiny_config(model_type, **over)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        learned = [buffer for name, buffer in model.named_buffers() if name.rpartition(".")[2] in LEARNED]
        for tensor in [*model.parameters(), *learned]:
            tensor.add_(torch.randn_like(tensor) * 0.1)
    return model
