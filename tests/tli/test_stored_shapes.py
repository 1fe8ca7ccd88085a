"""A configuration whose sizes, or sections, are not those of the weights beside it, is refused unloaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tli.registry import model_types, rows, tiny, tiny_config
from tests.tli.test_config_checks import LLAMA, places
from tli.architectures.table import FAMILIES
from tli.checkpoint.reader import Checkpoint
from tli.errors import CheckpointError
from tli.models.base import find
from tli.models.stored_shapes import shape_problems

Model = Callable[[str], Path]


def told(folder: Path, into: Path, **settings: Any) -> list[str]:
    """Where a copy of a model has problems, with these settings in its configuration (None: left out)."""
    shutil.copytree(folder, into)
    config = {**json.loads((into / "config.json").read_text()), **settings}
    config = {key: value for key, value in config.items() if value is not None}
    (into / "config.json").write_text(json.dumps(config))
    try:
        find(str(into))
    except CheckpointError as error:
        return [problem.where.rpartition("config.json: ")[2] for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("model_type", "settings", "wrong"),
    [
        ("llama", {"hidden_size": 64}, ["hidden_size"]),
        ("llama", {"vocab_size": 258}, ["vocab_size"]),
        ("llama", {"intermediate_size": 64}, ["intermediate_size"]),
        ("llama", {"num_attention_heads": 8}, ["num_attention_heads"]),
        ("llama", {"num_attention_heads": 5, "head_dim": None}, ["num_attention_heads"]),
        ("llama", {"num_key_value_heads": 4}, ["num_key_value_heads"]),
        ("llama", {"num_key_value_heads": 4, "head_dim": None}, ["num_key_value_heads"]),
        ("llama", {"vocab_size": 9, "intermediate_size": 9}, ["vocab_size", "intermediate_size"]),
        ("gpt2", {"n_embd": 64}, ["n_embd"]),
        ("gpt2", {"n_inner": 64}, ["n_inner"]),
        ("gpt2", {"n_positions": 32}, ["n_positions"]),
        ("gpt_neox", {"intermediate_size": 64}, ["intermediate_size"]),
        ("phi3", {"intermediate_size": 64}, ["intermediate_size"]),
        ("bloom", {"hidden_size": 16}, ["hidden_size"]),
    ],
)
def test_a_size_that_the_weights_do_not_have(
    tiny_model: Model, tmp_path: Path, model_type: str, settings: dict[str, Any], wrong: list[str]
) -> None:
    assert sorted(told(tiny_model(model_type), tmp_path / "model", **settings)) == sorted(wrong)


def test_the_problem_says_what_the_weights_have(tiny_model: Model, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model("llama"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 300}))
    with pytest.raises(
        CheckpointError, match=r"vocab_size: got 300; expected 257, by '.*' of shape \[257, 32\]"
    ):
        find(str(folder))


@pytest.mark.parametrize("key", ["text_config", "decoder", "generator", "text_encoder"])
@pytest.mark.parametrize("section", [{}, {"hidden_size": 32}, dict(LLAMA), "x", []])
def test_a_section_beside_a_models_own_settings(key: str, section: Any) -> None:
    assert key in places(**{key: section})


def test_a_section_that_is_none_or_missing() -> None:
    assert "text_config" in places(model_type="gemma3", text_config="x")
    assert "text_config" in places(model_type="gemma3")


def test_which_configurations_have_a_section() -> None:
    from transformers import CONFIG_MAPPING

    for model_type, family in FAMILIES.items():
        if not family.refused:
            assert family.sectioned == ("text_config" in CONFIG_MAPPING[model_type].sub_configs), model_type


DEFAULT = {"llama", "gemma3", "gpt2", "opt", "minicpm3", "moshi", "xlnet", "electra"}
EVERY = [
    pytest.param(name, marks=() if name in DEFAULT else pytest.mark.slow)
    for name in model_types()
    if not FAMILIES[name].refused and "cannot" not in rows().get(name, {})
]


@pytest.mark.parametrize("model_type", EVERY)
def test_what_transformers_saves_is_right(model_type: str, tmp_path: Path) -> None:
    """Also where the sizes that are alike in the small models differ."""
    over = rows().get(model_type, {}).get("to_grow", {})
    for number, settings in enumerate(({}, _distinct(model_type))):
        folder = tmp_path / str(number)
        tiny(model_type, **{**over, **settings}).save_pretrained(folder)
        config = json.loads((folder / "config.json").read_text())
        assert shape_problems(config, Checkpoint.open(folder), "config.json") == []


def _distinct(model_type: str) -> dict[str, Any]:
    sizes = {"intermediate_size_mlp": 40, "dense_intermediate_size": 40, "word_embed_proj_dim": 16}
    sizes |= {"embedding_size": 24, "n_inner": 40, "moe_intermediate_size": 24, "ffn_dim": 56}
    known = tiny_config(model_type).to_dict()
    return {key: value for key, value in sizes.items() if key in known}
