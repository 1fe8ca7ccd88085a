"""Settings of a wrong kind are problems with their place; those of every architecture's own configuration are none."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tli.registry import model_types, rows, tiny_config
from tli.architectures.table import FAMILIES
from tli.errors import CheckpointError
from tli.models.base import find
from tli.models.config_checks import config_problems

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "vocab_size": 257,
}


def places(**settings: Any) -> list[str]:
    problems = config_problems({**LLAMA, **settings}, "config.json", allow_remote_code=False)
    return [problem.where.removeprefix("config.json: ") for problem in problems]


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("architectures", [7, {}, "LlamaForCausalLM", ["LlamaForCausalLM", 3], [["x"]]]),
        ("num_hidden_layers", [10**9, "4", 4.0, True, 0, -1, [], {}]),
        ("num_nextn_predict_layers", [10**9, -1, "1", [1], {}, 0.5]),
        ("initializer_range", ["x", -0.1, [], 1e30, True]),
        ("max_window_layers", ["x", [4], {}, 1.5, 10**30]),
        ("mlp_only_layers", [3, "3", ["3"], [1.0], {"0": 1}]),
        ("layer_types", ["full_attention", [1], [["full_attention"]], {}]),
        ("per_layer_config", [[], {"x": {}}, {"1": 3}, {"9" * 5000: {}}]),
        ("attention_types", [3, [["global"]], [[["global"], 10**9]], [["global", 2]]]),
        ("num_attention_heads", [0, "4", [4], -4]),
        ("head_dim", ["8", 0, 1e300]),
        ("scale_depth", ["x", 10**400]),
        ("rms_norm_eps", ["x", [1e-6]]),
        ("max_position_embeddings", ["x", [64]]),
        ("rope_parameters", [3, "default", []]),
        ("quantization_config", [3, "gptq", []]),
        ("num_labels", [10**9]),
        ("vocab_size", [[257, 257], "257", 0]),
    ],
)
def test_a_wrong_kind_is_a_problem_at_its_place(key: str, wrong: list[Any]) -> None:
    for value in wrong:
        assert places(**{key: value}) == [key], value
    assert places(**{key: None}) in ([], [key])  # null is no setting; depth and sizes cannot do without


def test_sections_count_and_all_problems_come_at_once() -> None:
    told = places(vision_config={"num_hidden_layers": 10**9}, initializer_range="x", head_dim=-1)
    assert told == ["head_dim", "initializer_range", "vision_config.num_hidden_layers"]


def test_a_name_that_draws_on_the_screen() -> None:
    told = config_problems({**LLAMA, "architectures": ["\x1b[2J"]}, "config.json", allow_remote_code=False)
    assert "\x1b" not in str(told[0])


def test_no_architecture_of_transformers_is_refused_by_type() -> None:
    """Their own small configurations, of every type that can be grown; the refused ones lack a size."""
    checked = 0
    for model_type in model_types():
        if FAMILIES[model_type].refused or "cannot" in rows().get(model_type, {}):
            continue
        config = tiny_config(model_type, **rows().get(model_type, {}).get("to_grow", {}))
        told = config_problems(json.loads(config.to_json_string(use_diff=False)), "", allow_remote_code=False)
        assert [problem for problem in told if "is_encoder_decoder" not in problem.where] == [], model_type
        checked += 1
    assert checked > 150


@pytest.mark.parametrize("key", ["num_hidden_layers", "num_nextn_predict_layers", "num_labels"])
def test_a_thousand_million_layers_take_no_memory(
    tiny_model: Callable[[str], Path], tmp_path: Path, key: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model("llama"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, key: 10**9}))
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=f"{key}: got 1000000000; expected"):
            find(str(folder))
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.x.weight",
        "model.layers.007.weight",
        "model.layers.٣.weight",
        f"model.layers.{'9' * 5000}.a",
    ],
)
def test_a_layer_without_a_number(tmp_path: Path, tiny_model: Callable[[str], Path], name: str) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(tiny_model("llama"), folder)
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, name: torch.zeros(1)}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="got no number of a layer; expected one, from 0"):
        find(str(folder))
