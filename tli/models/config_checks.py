"""Checks a model's configuration before any of it is used: types, sizes, and what it leads to.

A config.json comes from outside. Each setting that this project or the configuration classes of transformers
calculate with has a kind here; a value of another kind is a problem with its place, not an error later on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tli.architectures.config import SECTION, TAKEN_FOR_SECTIONS, depth_of, section_of
from tli.architectures.family import Family
from tli.architectures.table import FAMILIES
from tli.errors import ENOUGH, Problem
from tli.models.known_names import name_problems
from tli.models.references import reference_problems
from tli.terminal import formatted, formatted_bare

HIDDEN = ("hidden_size", "n_embd", "d_model", "emb_dim", "dim_model")
VOCABULARY = ("vocab_size",)
# Of models whose published configurations leave it to the class of transformers.
_USUAL_VOCABULARY = {"gemma3": 262_208}
LARGEST = 2**31 - 1  # of a size or count
MOST = 100_000  # of what transformers makes lists of: layers, labels, stages
_LISTED = re.compile(r"^(num|n)_.*(layer|label|block|stage)|layers$|depth$")
_CAUSAL = ("ForCausalLM", "LMHeadModel", "ModelWithLMHead", "WithLMHeadModel", "GenerationDecoder")


_FROM_TOP = ("fuyu",)  # whose class makes a missing section of the settings at the top; others take defaults


def setting(config: Mapping[str, Any], *names: str) -> Any:
    """The first of `names` that a configuration sets: architectures call the same thing differently."""
    return next((config[name] for name in names if config.get(name) is not None), None)


def vocabulary_of(config: Mapping[str, Any]) -> Any:
    """Token ids that a config.json speaks of, not yet checked to be a number; None where it names none."""
    named = setting(section_of(config), *VOCABULARY)
    model_type = config.get("model_type")
    return (
        named if named is not None or not isinstance(model_type, str) else _USUAL_VOCABULARY.get(model_type)
    )


def config_problems(config: Mapping[str, Any], where: str, *, allow_remote_code: bool) -> list[Problem]:
    """What in the content of a config.json stands against upscaling it, whatever the architecture."""
    problems = reference_problems(config, where, allow_remote_code=allow_remote_code)
    problems += _class_problems(config, where)
    model_type = config.get("model_type")
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    inner = section_of(config)
    sizes = {"num_hidden_layers": depth_of(config, family)}
    sizes |= {HIDDEN[0]: setting(inner, *HIDDEN), VOCABULARY[0]: vocabulary_of(config)}
    for name, value in sizes.items():
        if not _count(value) or value < 1:
            got = "nothing" if value is None else formatted(value, 60)
            problems.append(Problem(f"{where}: {name}", got, "a whole number from 1"))
    problems += [*_section_problems(config, family, where), *_kind_problems(inner, where)]
    problems += [*name_problems(inner, where), *_large_counts(config, where)]
    first: dict[str, Problem] = {}  # one problem a place
    for problem in problems:
        first.setdefault(problem.where, problem)
    return list(first.values())[:ENOUGH]


def _section_problems(config: Mapping[str, Any], family: Family | None, where: str) -> Iterator[Problem]:
    """Sections that transformers takes for the language model's configuration, where the model has none."""
    if family is None or family.refused:
        return
    for key in TAKEN_FOR_SECTIONS:
        if config.get(key) is not None and not (family.sectioned and key == SECTION):
            got = f"a section, which transformers would read instead of the settings of a {family.model_type}"
            yield Problem(f"{where}: {key}", got, "none", f"leaving {key} out")
    inner = config.get(SECTION)
    left_out = inner is None and family.model_type in _FROM_TOP
    if family.sectioned and not left_out and not isinstance(inner, dict):
        got = "nothing" if inner is None else formatted(inner, 60)
        yield Problem(f"{where}: {SECTION}", got, f"the language model's settings, of a {family.model_type}")


def _class_problems(config: Mapping[str, Any], where: str) -> Iterator[Problem]:
    """Whether transformers knows it, and as a causal language model."""
    architectures, model_type = config.get("architectures"), config.get("model_type")
    if not isinstance(model_type, str):
        yield Problem(where, "no model_type", "a model that transformers knows")
    if config.get("is_encoder_decoder"):
        yield Problem(f"{where}: is_encoder_decoder", "an encoder and decoder", "a causal language model")
    elif architectures is not None and not _texts(architectures):
        yield Problem(f"{where}: architectures", formatted(architectures, 60), "a list of names")
    elif architectures and not any(_causal(name, model_type) for name in architectures):
        names = formatted_bare(", ".join(architectures))
        yield Problem(f"{where}: architectures", names, "a causal language model (...ForCausalLM)")


def _causal(architecture: str, model_type: object) -> bool:
    """Whether a class is a causal language model; some that also see or hear are, under another ending."""
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    several = bool(family and family.layers.startswith("model.language_model."))
    return architecture.endswith((*_CAUSAL, "ForConditionalGeneration") if several else _CAUSAL)


def _whole(value: Any) -> bool:
    return type(value) is int and abs(value) <= LARGEST


def _count(value: Any) -> bool:
    return _whole(value) and bool(value >= 0)


def _size(value: Any) -> bool:
    return _whole(value) and bool(value >= 1)


def _number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= 1e30


def _deviation(value: Any) -> bool:
    return _number(value) and bool(0 <= value <= 1e6)


def _list_of(item: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) <= MOST and all(map(item, value))


def _either(*kinds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: any(kind(value) for kind in kinds)


def _by_layer(value: Any) -> bool:
    return isinstance(value, dict) and all(
        len(key) <= 6 and key.isascii() and key.isdecimal() and isinstance(inner, dict)
        for key, inner in value.items()
    )


def _runs(value: Any) -> bool:
    """`[[[kind, ...], times], ...]`, of at most `MOST` layers."""
    if not isinstance(value, list) or not all(isinstance(run, list) and len(run) == 2 for run in value):
        return False
    if not all(_texts(kinds) and _count(times) for kinds, times in value):
        return False
    return bool(sum(len(kinds) * times for kinds, times in value) <= MOST)


def _mapping(value: Any) -> bool:
    return isinstance(value, dict)


_texts = _list_of(lambda value: isinstance(value, str))
_KINDS: tuple[tuple[Callable[[Any], bool], str, str], ...] = (  # which values are right, their name, the keys
    (
        _size,
        "a whole number from 1",
        """num_attention_heads n_head n_heads num_heads decoder_attention_heads attention_heads
        num_decoder_attention_heads head_dim num_key_value_heads""",
    ),
    (
        _count,
        "a whole number from 0",
        """num_experts_per_tok num_experts_per_token moe_k top_k_experts num_local_experts n_routed_experts
        moe_num_experts num_nextn_predict_layers first_k_dense_replace num_dense_layers num_kv_shared_layers
        decoder_sparse_step attn_layer_period expert_layer_period moe_layer_interval sliding_window""",
    ),
    (
        _whole,
        "a whole number",
        """max_window_layers moe_layer_start_index moe_layer_end_index attn_layer_offset expert_layer_offset
        max_position_embeddings n_positions seq_length""",
    ),
    (
        _either(_count, _list_of(_count)),
        "a whole number from 0, or a list with one per layer",
        "intermediate_size moe_intermediate_size num_experts moe_topk num_shared_expert",
    ),
    (
        _list_of(_whole),
        "a list of whole numbers",
        """attn_layer_indices mlp_only_layers moe_layers cross_attention_layers full_attn_idxs
        hybrid_layer_ids ple_layer_ids no_rope_layers num_attention_heads_per_layer""",
    ),
    (
        _texts,
        "a list of names",
        """layer_types mlp_layer_types indexer_types attention_layers attn_layers layers_block_type
        block_types""",
    ),
    (lambda value: isinstance(value, str), "a text", "hybrid_override_pattern"),
    (
        _either(_number, _list_of(lambda value: value is None or _number(value))),
        "a number, or a list with one per layer",
        "layer_rope_theta activation_sparsity_pattern",
    ),
    (_runs, "lists of names, each with how often they are repeated", "attention_types"),
    (_by_layer, "settings by the number of a layer", "per_layer_config"),
    (_number, "a number", "rms_norm_eps layer_norm_eps layer_norm_epsilon rope_theta scale_depth"),
    (_deviation, "a number from 0", "initializer_range init_std"),
    (_mapping, "a mapping", "rope_parameters rope_scaling quantization_config"),
)


def _kind_problems(section: Mapping[str, Any], where: str) -> Iterator[Problem]:
    """Settings of the language model that are not of their kind; null is always right."""
    for right, expected, keys in _KINDS:
        for key in keys.split():
            value = section.get(key)
            if value is not None and not right(value):
                yield Problem(f"{where}: {key}", formatted(value, 60), expected)


def _large_counts(config: Mapping[str, Any], where: str) -> Iterator[Problem]:
    """Numbers of layers or labels in any section, of which transformers would make lists of that length."""
    sections = [("", config)]
    sections += [(f"{key}.", value) for key, value in config.items() if isinstance(value, dict)]
    for prefix, section in sections:
        for key, value in section.items():
            if _LISTED.search(key) and type(value) is int and abs(value) > MOST:
                yield Problem(
                    f"{where}: {formatted_bare(prefix + key)}", formatted(value, 60), f"at most {MOST:,}"
                )
