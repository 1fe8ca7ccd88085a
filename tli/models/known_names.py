"""Settings of a language model that name something of transformers, and the names that it has for them.

transformers looks such a name up when it builds the model, long after a plan was made. It is not asked here,
as it would bring torch; `tests/tli/test_known_names.py` compares the names with the installed version's.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from tli.errors import Problem
from tli.terminal import formatted, formatted_bare

ACTIVATIONS = frozenset(
    (
        "gelu",
        "gelu_10",
        "gelu_accurate",
        "gelu_fast",
        "gelu_new",
        "gelu_python",
        "gelu_python_tanh",
        "gelu_pytorch_tanh",
        "hardswish",
        "laplace",
        "leaky_relu",
        "linear",
        "mish",
        "prelu",
        "quick_gelu",
        "relu",
        "relu2",
        "relu6",
        "sigmoid",
        "silu",
        "sqrtsoftplus",
        "swish",
        "tanh",
        "xielu",
    )
)
# With those of older files, which configuration classes translate; so below.
ROTATIONS = frozenset(
    ("default", "dynamic", "linear", "llama3", "longrope", "proportional", "yarn", "su", "mrope", "xdrope")
)
LAYER_TYPES = frozenset(
    (
        "full_attention",
        "sliding_attention",
        "chunked_attention",
        "window_attention",
        "indexed_attention",
        "compressed_sparse_attention",
        "heavily_compressed_attention",
        "minimax_m3_sparse",
        "conv",
        "moe",
        "hybrid",
        "hybrid_sliding",
        "reference_sliding_attention",
        "linear_attention",
        "sparse",
        "dense",
        "mamba",
        "attention",
        "deepseek_sparse_attention",
        "qwen_sparse_attention",
        "hash_moe",
    )
)
_ACTIVATION_KEYS = (
    "hidden_act",
    "hidden_activation",
    "activation_function",
    "mlp_hidden_act",
    "mamba_hidden_act",
    "hidden_mamba_act",
    "ff_activation",
)
_LONGEST = 60  # characters of a name for which one that is near is looked for
_KINDS_OF_LAYERS = 64  # more than any architecture has
_ROTATION_KEYS = ("rope_parameters", "rope_scaling")


def name_problems(section: Mapping[str, Any], where: str) -> Iterator[Problem]:
    """Settings of the language model whose name transformers does not know; null is always right."""
    for key in _ACTIVATION_KEYS:
        if section.get(key) is not None:
            yield from _unknown(section[key], ACTIVATIONS, f"{where}: {key}", "an activation function")
    for key, value in islice(_rotations(section), _KINDS_OF_LAYERS):
        yield from _unknown(value, ROTATIONS, f"{where}: {key}", "a kind of rotary embedding")
    kinds = section.get("layer_types")
    if isinstance(kinds, list) and all(isinstance(kind, str) for kind in kinds):
        for kind in islice((kind for kind in kinds if kind not in LAYER_TYPES), 1):
            yield from _unknown(kind, LAYER_TYPES, f"{where}: layer_types", "a kind of layer")


def _rotations(section: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Kinds of rotary embeddings, with their places: for all layers, or for each kind of layer."""
    for key in _ROTATION_KEYS:
        part = section.get(key)
        if not isinstance(part, Mapping):
            continue
        of_kinds = ((kind, value) for kind, value in part.items() if isinstance(value, Mapping))
        for place, settings in {key: part, **{f"{key}.{formatted_bare(k)}": v for k, v in of_kinds}}.items():
            name = next((each for each in ("rope_type", "type") if settings.get(each) is not None), None)
            if name is not None:
                yield f"{place}.{name}", settings[name]


def _unknown(value: Any, names: frozenset[str], where: str, what: str) -> Iterator[Problem]:
    if isinstance(value, str) and value in names:
        return
    near = difflib.get_close_matches(value[:_LONGEST], sorted(names), n=1) if isinstance(value, str) else []
    expected = f"{what} that transformers knows"
    yield Problem(
        where, formatted(value, 60), expected, near[0] if near else "the name that its authors give"
    )
