"""The table of architectures, as data: one row for every causal language model that transformers registers.

A new one is a row here that passes `tests/tli/test_registry.py`, which grows a small model of each type and
proves the result. What a row says was found by experiment (which tensors have to be zero for a layer to hand
its input on unchanged) and is checked by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tli.architectures.family import Family

# Names that most architectures share, in memory and in files. A name that a layer lacks says nothing.
_USUAL = (
    "self_attn.o_proj",
    "linear_attn.out_proj",
    "linear_attn.o_proj",
    "mamba.out_proj",
    "mlp.down_proj",
    "mlp.experts.down_proj",
    "mlp.experts.*.down_proj",
    "mlp.shared_expert.down_proj",
    "mlp.shared_experts.down_proj",
    "mlp.shared_mlp.down_proj",
    "block_sparse_moe.experts.down_proj",
    "block_sparse_moe.experts.*.w2",
    "block_sparse_moe.down_proj",
    "block_sparse_moe.shared_experts.down_proj",
    "block_sparse_moe.output_linear",
    "shared_mlp.output_linear",
    "feed_forward.down_proj",
    "feed_forward.experts.down_proj",
    "feed_forward.experts.*.down_proj",
    "feed_forward.shared_expert.down_proj",
)
_OPT = ("self_attn.out_proj", "fc2")
_GPT2 = ("attn.c_proj", "mlp.c_proj")
_NEOX = ("attention.dense", "mlp.dense_4h_to_h")
_BLOOM = ("self_attention.dense", "mlp.dense_4h_to_h")
_PERSIMMON = ("self_attn.dense", "mlp.dense_4h_to_h")
_GPTJ = ("attn.out_proj", "mlp.fc_out")
_BERT = ("attention.output.dense", "output.dense")
_LFM2 = (
    "conv.out_proj",
    "self_attn.out_proj",
    "self_attn.o_proj",
    "feed_forward.w2",
    "feed_forward.experts.down_proj",
    "feed_forward.experts.*.w2",
)

_GEMMA4 = (*_USUAL, "per_layer_projection", "experts.down_proj")
_MIXER = ("mixer.out_proj", "mixer.o_proj", "mixer.down_proj", "mixer.experts.down_proj")
_NEMOTRON_H = (*_MIXER, "mixer.experts.*.down_proj", "mixer.shared_experts.down_proj")
_LONG_GEMMA = ("temporal_block.linear_out", "temporal_block.o_proj", "mlp_block.down_proj")
_JETMOE = ("self_attention.experts", "self_attention.experts.output_linear", "mlp", "mlp.output_linear")

_NORM_AND_FFN = ("post_attention_layernorm", "post_feedforward_layernorm")
_SELF_AND_MLP = ("post_self_attn_layernorm", "post_mlp_layernorm")

_ROTARY = ("self_attn.rotary_emb.inv_freq",)
_NEOX_BUFFERS = ("attention.bias", "attention.masked_bias", "attention.rotary_emb.inv_freq")
_GPT_BUFFERS = ("attn.bias", "attn.masked_bias")

_BY_INDEX = "what a layer computes depends on its index, so the layers behind a new one would change"
_POST_NORM = "the residual stream itself passes a norm, so no weights make a layer add nothing"
_HYPER = "the stream is mixed from several by the layer itself, so no weights make a layer add nothing"
_ZERO_EXPERTS = "some of its experts hand their input on, so no weights make a layer add nothing"
_SOME_NORMED = "only some of its layers norm what they add, so one scale would mean two things"
_STACKS = "it runs several stacks of layers, so K does not say where a new layer goes"
_NO_AUTO = "AutoModelForCausalLM does not load what a model of this type saves"
_ELSEWHERE = "its layers read what another model computed"

_SECTIONED = (
    *("dots3_note", "emu3", "fuyu", "gemma3", "gemma4", "gemma4_unified", "got_ocr2", "llama4", "mllama"),
    *("moss_transcribe_diarize", "qwen3_5", "qwen3_5_moe", "qwen4_exp"),
)
_PER_LAYER = (("embed_tokens_per_layer.weight", 1), ("per_layer_model_projection.weight", 0))
_BY_LAYER_INDEX = (("scale_attn_by_inverse_layer_idx", _BY_INDEX),)
_RESIDUAL_NORMED = (("apply_residual_connection_post_layernorm", _POST_NORM),)

_WINDOWED = {"lists": ("layer_types",), "lists_vary_with": "use_sliding_window"}
_TYPED = {"lists": ("layer_types",)}
_TWICE_TYPED = {"lists": ("layer_types", "mlp_layer_types"), "mixed": True}
_GPT = {"layers": "transformer.h", "depth_keys": ("n_layer",)}
_DECODER = {"layers": "model.decoder.layers", "depth_keys": ("decoder_layers", "encoder_layers")}
_LANGUAGE = {"layers": "model.language_model.layers"}


def _rows(types: str, **facts: Any) -> dict[str, Family]:
    facts.setdefault("residual_writers", () if facts.get("no_scale") or facts.get("refused") else _USUAL)
    return {name: Family(name, sectioned=name in _SECTIONED, **facts) for name in types.split()}


FAMILIES: Mapping[str, Family] = {
    # As llama: every layer alike.
    **_rows("llama mistral stablelm", buffers=_ROTARY),
    **_rows("minicpm3", buffers=_ROTARY, deviation=0.1),
    **_rows(
        "apertus arcee bitnet cohere cwm ernie4_5 glm granite helium"
        " hunyuan_v1_dense internlm3 iquestcoder jais2 ministral3 olmo phi3 phi4_multimodal seed_oss"
    ),
    **_rows("nemotron", deviation=0.0134),
    **_rows("youtu", deviation=None),
    **_rows("emu3 emu3_text_model", not_loaded=_NO_AUTO),
    **_rows("gemma", gain_offset=1.0),
    **_rows("starcoder2", residual_writers=("self_attn.o_proj", "mlp.c_proj"), deviation=0.018042),
    **_rows("phi", residual_writers=("self_attn.dense", "mlp.fc2"), buffers=_ROTARY),
    **_rows("nanochat", residual_writers=("self_attn.o_proj", "mlp.fc2")),
    **_rows("moshi", residual_writers=("self_attn.o_proj.linear", "mlp.fc2")),
    **_rows("persimmon", residual_writers=_PERSIMMON),
    **_rows("fuyu", residual_writers=_PERSIMMON, **_LANGUAGE),
    # Layers of several kinds in a pattern, spelled out in lists.
    **_rows("qwen2", buffers=_ROTARY, **_WINDOWED),
    **_rows("qwen3", **_WINDOWED),
    **_rows("got_ocr2 moss_transcribe_diarize", **_WINDOWED, **_LANGUAGE),
    **_rows("cohere2 cohere_compass_text ministral", **_TYPED),
    **_rows("vaultgemma", gain_offset=1.0, **_TYPED),
    **_rows("gpt_oss", residual_writers=(*_USUAL, "mlp.experts.down_proj_bias"), **_TYPED),
    **_rows("smollm3", lists=("layer_types", "no_rope_layers")),
    **_rows("granite_swa", lists=("layer_types", "layer_rope_theta")),
    **_rows("modernbert-decoder", residual_writers=("attn.Wo", "mlp.Wo"), mixed=True, fixed_layer="first",
            **_TYPED),
    **_rows("gpt_neo", residual_writers=("attn.attention.out_proj", "mlp.c_proj"), layers="transformer.h",
            depth_keys=("num_layers",), lists=("attention_types", "attention_layers"),
            buffers=("attn.attention.bias", "attn.attention.masked_bias")),
    **_rows("mllama mllama_text_model", residual_writers=(*_USUAL, "cross_attn.o_proj"), mixed=True,
            not_loaded=_NO_AUTO),
    # Norms behind the sublayers.
    **_rows("gemma2 gemma3_text", post_norms=_NORM_AND_FFN, gain_offset=1.0, **_TYPED),
    **_rows("gemma3", post_norms=_NORM_AND_FFN, gain_offset=1.0, **_TYPED, **_LANGUAGE),
    **_rows("glm4", post_norms=_SELF_AND_MLP),
    **_rows("olmo2 flex_olmo", post_norms=_NORM_AND_FFN),
    **_rows("olmo3 exaone4", post_norms=_NORM_AND_FFN, **_TYPED),
    **_rows("olmo_hybrid", only_zero=_SOME_NORMED, mixed=True, **_TYPED),
    **_rows("hyperclovax", post_norms=("post_norm1", "post_norm2")),
    **_rows("afmoe", post_norms=("post_attention_layernorm", "post_mlp_layernorm"), mixed=True, **_TYPED),
    **_rows("kolibri1", post_norms=(*_SELF_AND_MLP, "post_attn_norm", "post_ffn_norm"), **_TYPED),
    **_rows("axk1", only_zero=_SOME_NORMED, lists=("mlp_layer_types",), mixed=True),
    **_rows("lfm3", residual_writers=_LFM2, post_norms=("post_operator_norm", "post_ffn_norm"), mixed=True,
            **_TYPED),
    # Per-layer embeddings, and keys and values that later layers read.
    **_rows("gemma4_text", residual_writers=_GEMMA4, post_norms=(*_NORM_AND_FFN, "post_per_layer_input_norm"),
            multipliers=("layer_scalar",), per_layer_tensors=_PER_LAYER, mixed=True, **_TYPED),
    **_rows("gemma4", residual_writers=_GEMMA4, post_norms=(*_NORM_AND_FFN, "post_per_layer_input_norm"),
            multipliers=("layer_scalar",), per_layer_tensors=_PER_LAYER, mixed=True, **_TYPED, **_LANGUAGE),
    **_rows("gemma4_unified_text", post_norms=_NORM_AND_FFN, multipliers=("layer_scalar",), mixed=True,
            **_TYPED),
    **_rows("gemma4_unified", post_norms=_NORM_AND_FFN, multipliers=("layer_scalar",), mixed=True, **_TYPED,
            **_LANGUAGE),
    **_rows("gemma3n_text", no_scale=_HYPER, per_layer_tensors=_PER_LAYER, mixed=True,
            lists=("layer_types", "intermediate_size", "activation_sparsity_pattern")),
    # Mixtures of experts.
    **_rows("mixtral", buffers=_ROTARY),
    **_rows("aria_text", residual_writers=(*_USUAL, "mlp.experts.fc2")),
    **_rows(
        "deepseek_v2 deepseek_v3 glm4_moe granitemoe granitemoeshared hunyuan_v1_moe minimax_m2 olmoe phimoe"
        " qwen3_moe solar_open", mixed=True
    ),
    **_rows("granitemoe_swa", lists=("layer_types", "layer_rope_theta"), mixed=True),
    **_rows("ernie4_5_moe", periods=(("moe_layer_interval", None),), mixed=True),
    **_rows("glm4_moe_lite", lists=("mlp_layer_types",), mixed=True),
    **_rows("hy_v3", lists=("mlp_layer_types",), mixed=True, deviation=0.006),
    **_rows("qwen2_moe", mixed=True, **_WINDOWED),
    **_rows("dots1 flint", mixed=True, **_TYPED),
    **_rows(
        "axk2 cohere2_moe deepseek_v32 dots3_note dots3_note_text exaone_moe inkling_text mellum"
        " mimo_v2_flash", **_TWICE_TYPED
    ),
    **_rows("minimax_m3_vl_text", gain_offset=1.0, **_TWICE_TYPED),
    **_rows("glm_moe_dsa", lists=("layer_types", "mlp_layer_types", "indexer_types"), mixed=True),
    **_rows("hy_v4", lists=("layer_types", "mlp_layer_types", "indexer_types"), mixed=True, deviation=0.006),
    **_rows("laguna", lists=("layer_types", "mlp_layer_types", "num_attention_heads_per_layer"), mixed=True),
    **_rows("llama4 llama4_text", lists=("layer_types", "no_rope_layers", "moe_layers"), mixed=True),
    **_rows("jetmoe", residual_writers=_JETMOE, deviation=0.01),
    **_rows("longcat_flash", no_scale=_ZERO_EXPERTS, depth_keys=("num_layers",), mixed=True),
    **_rows("dbrx", residual_writers=("norm_attn_norm.attn.out_proj", "ffn.experts.mlp.w2"),
            layers="transformer.blocks", depth_keys=("n_layers",)),
    # Linear attention, state spaces, convolutions; alone or among others.
    **_rows("mamba mamba2 falcon_mamba", residual_writers=_MIXER, layers="backbone.layers", deviation=0.1),
    **_rows("bamba falcon_h1", mixed=True),
    **_rows("jamba", mixed=True, periods=(("attn_layer_period", "attn_layer_offset"),
                                          ("expert_layer_period", "expert_layer_offset"))),
    **_rows("granitemoehybrid", mixed=True, **_TYPED),
    **_rows("qwen3_next qwen3_5 qwen3_5_text qwen3_5_moe qwen3_5_moe_text", gain_offset=1.0,
            plain_norms=("linear_attn.norm",), mixed=True, **_TYPED),
    **_rows("qwen4_exp qwen4_exp_text", residual_writers=(*_USUAL, "ple.value_proj"), gain_offset=1.0,
            plain_norms=("linear_attn.norm",), mixed=True, **_TYPED),
    **_rows("kimi_linear", **_TWICE_TYPED),
    **_rows("bailing_hybrid", residual_writers=(*_USUAL, "attention.dense"), **_TWICE_TYPED),
    **_rows("lfm2 lfm2_moe", residual_writers=_LFM2, mixed=True, **_TYPED),
    **_rows("nemotron_h", residual_writers=_NEMOTRON_H, lists=("layers_block_type",), mixed=True),
    **_rows("recurrent_gemma", residual_writers=_LONG_GEMMA, gain_offset=1.0, lists=("block_types",),
            mixed=True),
    **_rows("xlstm", residual_writers=("mlstm_layer.out_proj", "ffn.proj_down"), layers="backbone.blocks",
            depth_keys=("num_hidden_layers", "num_blocks")),
    **_rows("rwkv", residual_writers=("attention.output", "feed_forward.value"), layers="rwkv.blocks",
            fixed_layer="first",
            mixed=True, refusals=(("rescale_every", "its outputs are scaled by a layer's index"),)),
    **_rows("zamba zamba2", residual_writers=("mamba.out_proj", "mamba_decoder.mamba.out_proj"), mixed=True,
            lists=("layers_block_type",), shared_kinds=("hybrid",)),
    # As GPT-2, GPT-NeoX, GPT-J, BLOOM, OPT.
    **_rows("gpt2 gpt-sw3 gpt_bigcode", residual_writers=_GPT2, buffers=_GPT_BUFFERS, drawn_by_depth=True,
            **_GPT,
            refusals=(*_BY_LAYER_INDEX, ("pruned_heads", "heads are pruned by index"))),
    **_rows("gpt_neox", residual_writers=_NEOX, layers="gpt_neox.layers", buffers=_NEOX_BUFFERS),
    **_rows("gpt_neox_japanese", residual_writers=(*_NEOX, "attention.dense_bias"),
            layers="gpt_neox_japanese.layers",
            fixed_layer="last", mixed=True),
    **_rows("gptj codegen", residual_writers=_GPTJ, buffers=_GPT_BUFFERS, **_GPT),
    **_rows("bloom", residual_writers=_BLOOM, refusals=_RESIDUAL_NORMED, **_GPT),
    **_rows("falcon", residual_writers=_BLOOM, refusals=_RESIDUAL_NORMED, layers="transformer.h"),
    **_rows("mpt", residual_writers=("attn.out_proj", "ffn.down_proj"), layers="transformer.blocks",
            depth_keys=("n_layers",)),
    **_rows("ctrl", residual_writers=("multi_head_attention.dense", "ffn.2"), **_GPT),
    **_rows("opt", residual_writers=_OPT, layers="model.decoder.layers"),
    **_rows("xglm", residual_writers=_OPT, depth_keys=("num_layers",)),
    **_rows("biogpt", residual_writers=_OPT, layers="biogpt.layers"),
    **_rows("cpmant", residual_writers=("self_att.self_attention.attention_out", "ffn.ffn.w_out"),
            layers="cpmant.encoder.layers", deviation=1.0),
    **_rows("blenderbot mbart pegasus bigbird_pegasus whisper", residual_writers=_OPT, **_DECODER),
    **_rows("megatron-bert", residual_writers=_BERT, layers="bert.encoder.layer"),
    **_rows("roberta-prelayernorm", residual_writers=_BERT, layers="roberta_prelayernorm.encoder.layer"),
    **_rows("xlm-roberta-xl", residual_writers=_BERT, layers="roberta.encoder.layer"),
    **_rows("reformer", residual_writers=("attention.output.dense", "feed_forward.output.dense"),
            layers="reformer.encoder.layers", lists=("attn_layers",), mixed=True),
    **_rows("doge", multipliers=("input_residual", "post_attention_residual")),
    # The stream passes a norm, or is mixed by the layer: a layer can be copied, but not be without effect.
    **_rows("bert bert-generation big_bird", layers="bert.encoder.layer", no_scale=_POST_NORM),
    **_rows("camembert roberta xlm-roberta xmod", layers="roberta.encoder.layer", no_scale=_POST_NORM),
    **_rows("data2vec-text", layers="data2vec_text.encoder.layer", no_scale=_POST_NORM),
    **_rows("electra", layers="electra.encoder.layer", no_scale=_POST_NORM),
    **_rows("ernie", layers="ernie.encoder.layer", no_scale=_POST_NORM),
    **_rows("git", layers="git.encoder.layer", no_scale=_POST_NORM),
    **_rows("rembert", layers="rembert.encoder.layer", no_scale=_POST_NORM),
    **_rows("roc_bert", layers="roc_bert.encoder.layer", no_scale=_POST_NORM),
    **_rows("roformer", layers="roformer.encoder.layer", no_scale=_POST_NORM),
    **_rows("bart blenderbot-small marian mvp plbart", no_scale=_POST_NORM, **_DECODER),
    **_rows("trocr", layers="model.decoder.layers", depth_keys=("decoder_layers",), no_scale=_POST_NORM),
    **_rows("prophetnet", layers="prophetnet.decoder.layers", no_scale=_POST_NORM, head_apart=False,
            depth_keys=("num_decoder_layers", "num_encoder_layers")),
    **_rows("openai-gpt", no_scale=_POST_NORM, buffers=("attn.bias",), **_GPT),
    **_rows("xlnet", layers="transformer.layer", depth_keys=("n_layer",), no_scale=_POST_NORM),
    **_rows("zaya", no_scale=_HYPER, mixed=True, fixed_layer="first", **_TYPED),
    **_rows("deepseek_v4", no_scale=_HYPER, **_TWICE_TYPED),
    # Refused.
    **_rows("beam diffllama inkling2_text minimax", refused=_BY_INDEX),
    **_rows("blt hrm_text", refused=_STACKS),
    **_rows("xlm", refused="its layers are spread over four lists"),
    **_rows("gemma3n", refused="its vision tower needs another library; its language model is gemma3n_text"),
    **_rows("gemma4_assistant gemma4_unified_assistant", refused=_ELSEWHERE),
    **_rows("musicgen musicgen_melody", refused="it is a decoder of audio codes behind two encoders"),
}  # fmt: skip
