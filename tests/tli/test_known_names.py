"""The names that transformers looks up when it builds a model, as the installed version has them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.tli.test_config_checks import places
from tli.models.known_names import ACTIVATIONS, LAYER_TYPES, ROTATIONS


def test_the_names_are_those_of_transformers() -> None:
    from transformers.activations import ACT2FN
    from transformers.configuration_utils import ALLOWED_LAYER_TYPES
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    assert set(ACT2FN) == ACTIVATIONS
    assert set(ROPE_INIT_FUNCTIONS) < ROTATIONS
    assert set(ALLOWED_LAYER_TYPES) < LAYER_TYPES


@pytest.mark.parametrize(
    ("key", "wrong", "place"),
    [
        ("hidden_act", "sillu", "hidden_act"),
        ("hidden_act", 3, "hidden_act"),
        ("activation_function", "x", "activation_function"),
        ("hidden_activation", ["gelu"], "hidden_activation"),
        ("rope_scaling", {"type": "linier", "factor": 2.0}, "rope_scaling.type"),
        ("rope_parameters", {"rope_type": "x"}, "rope_parameters.rope_type"),
        (
            "rope_parameters",
            {"full_attention": {"rope_type": ["yarn"]}},
            "rope_parameters.full_attention.rope_type",
        ),
        ("layer_types", ["full_attention", "ful_attention"], "layer_types"),
    ],
)
def test_a_name_that_transformers_lacks(key: str, wrong: Any, place: str) -> None:
    assert places(**{key: wrong}) == [place]


@pytest.mark.parametrize(
    ("key", "right"),
    [
        ("hidden_act", "gelu_pytorch_tanh"),
        ("hidden_act", None),
        ("rope_scaling", {"type": "su"}),
        ("rope_parameters", {"full_attention": None, "sliding_attention": {"rope_type": "proportional"}}),
    ],
)
def test_names_that_it_has(key: str, right: Any) -> None:
    assert places(**{key: right}) == []
