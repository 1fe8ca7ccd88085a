"""A tiny random model of every causal-LM type that the installed transformers registers.

Most types need nothing but a smaller number for each size of their config (`SMALL`). `registry.json` holds what
is left, per type: `settings` for its config (dicts for configs in it), or `cannot`, the reason why no small
model of the type runs by `model(input_ids)`; and `no_cache`, why even the untouched model does not generate
with its cache what it generates without.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

VOCABULARY = 257
DEPTH = 4

DEPTHS = (
    "num_hidden_layers n_layer n_layers num_layers num_blocks decoder_layers num_decoder_layers depth"
    " encoder_layers num_encoder_layers"  # a decoder alone makes a cache as long as its encoder is deep
).split()
# What a number in a config is about, and how small it gets. Names in the spelling of the configs.
SMALL: dict[str, Any] = {
    **dict.fromkeys(DEPTHS, DEPTH),
    **dict.fromkeys(
        (
            "hidden_size n_embd d_model emb_dim embedding_dim embedding_size word_embed_proj_dim"
            " input_embedding_size output_embedding_size"
        ).split(),
        32,
    ),
    **dict.fromkeys(
        (
            "num_attention_heads n_head n_heads num_heads attention_heads encoder_attention_heads"
            " decoder_attention_heads num_encoder_attention_heads num_decoder_attention_heads"
            " swa_num_attention_heads linear_num_heads linear_num_value_heads index_n_heads"
        ).split(),
        4,
    ),
    **dict.fromkeys(
        "num_key_value_heads swa_num_key_value_heads num_kv_heads linear_num_key_heads".split(), 2
    ),
    **dict.fromkeys(
        (
            "head_dim swa_head_dim kv_channels linear_head_dim linear_key_head_dim linear_value_head_dim"
            " qk_nope_head_dim v_head_dim dim_head d_head attention_head_dim attention_head_size index_head_dim"
        ).split(),
        8,
    ),
    **dict.fromkeys("qk_rope_head_dim rotary_dim d_rel".split(), 4),
    **dict.fromkeys("kv_lora_rank q_lora_rank o_lora_rank".split(), 16),
    **dict.fromkeys(
        (
            "intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim ffn_hidden_size dff dim_ff d_inner"
            " feed_forward_size intermediate_size_mlp dense_intermediate_size n_inner"
        ).split(),
        48,
    ),
    **dict.fromkeys(
        (
            "moe_intermediate_size shared_expert_intermediate_size shared_experts_intermediate_size"
            " shared_intermediate_size moe_shared_expert_intermediate_size expert_ffn_hidden_size"
        ).split(),
        16,
    ),
    **dict.fromkeys("num_experts n_routed_experts num_local_experts moe_num_experts".split(), 4),
    **dict.fromkeys(
        "num_experts_per_tok num_experts_per_token moe_topk moe_k top_k_experts index_topk".split(), 2
    ),
    **dict.fromkeys("n_group topk_group num_expert_group n_shared_experts num_shared_experts".split(), 1),
    **dict.fromkeys(
        (
            "max_position_embeddings n_positions n_ctx max_seq_len model_max_length context_length"
            " max_target_positions max_source_positions original_max_position_embeddings"
        ).split(),
        64,
    ),
    **dict.fromkeys(
        "sliding_window window_size attention_window_size sliding_window_size local_attention".split(), 4
    ),
    **dict.fromkeys("mamba_d_state state_size ssm_state_size".split(), 8),
    **dict.fromkeys("mamba_n_heads mamba_num_heads".split(), 8),
    **dict.fromkeys("mamba_d_head mamba_head_dim mamba_headdim".split(), 8),
    **dict.fromkeys("chunk_size mamba_chunk_size".split(), 8),
    **dict.fromkeys("sliding_window_pattern global_attn_every_n_layers no_rope_layer_interval".split(), 2),
    "first_k_dense_replace": 1,
    "mamba_d_ssm": 64,
    "use_sliding_window": True,
    "max_window_layers": 2,
    "is_decoder": True,
    "vocab_size": VOCABULARY,
    "pad_token_id": 0,
    "bos_token_id": VOCABULARY - 1,
    "eos_token_id": VOCABULARY - 1,
}


@cache
def rows() -> Mapping[str, Mapping[str, Any]]:
    """`registry.json`: type to what is known of it beside the sizes."""
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
    if (
        "kv_lora_rank" in settings and "num_key_value_heads" in settings
    ):  # a latent cache has no groups of heads
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


def tiny_config(model_type: str, **over: Any) -> Any:
    """The small `PreTrainedConfig` of a type; `over` replaces settings."""
    from transformers import CONFIG_MAPPING

    config_class = CONFIG_MAPPING[model_type]
    settings = _merged(_shrunk(config_class), rows().get(model_type, {}).get("settings", {}))
    return config_class(**_merged(settings, over))


def tiny(model_type: str, **over: Any) -> Any:
    """A small model of a type: float32, on the CPU, not training, every parameter away from its usual start."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(model_type, **over), dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model
