"""Packaged descriptions: what transformers makes of their configurations, and when they are taken."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, Gemma3TextConfig

from tli.errors import CheckpointError, InputError
from tli.growth.on_disk import growth_problems
from tli.models.config_checks import config_problems, vocabulary_of
from tli.models.descriptions import Description, described, find_or_described, packaged
from tli.models.quantised import training_problems
from tli.models.stored_shapes import shape_problems
from tli.planning.injection import Injection
from tli.planning.plan import plan_for

PARAMETERS = {
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B": 3_212_749_824,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "meta-llama/Llama-3.1-70B": 70_553_706_496,
    "meta-llama/Llama-3.1-405B": 405_853_388_800,
    "Qwen/Qwen3-4B": 4_022_468_096,
    "google/gemma-3-4b-pt": 4_300_079_472,
    "allenai/OLMo-2-1124-7B": 7_298_617_344,
}
Tiny = Callable[[str], Path]


def test_these_are_packaged() -> None:
    assert set(packaged()) == set(PARAMETERS)
    by_name = described("llama-3.2-1b")
    assert by_name is not None
    assert by_name.revision == "4e20de362430cd3b72f300e6b0f18e50e7166e08"
    assert described("llama-3.2-2b") is None


@pytest.mark.parametrize("model", PARAMETERS)
def test_parameters_are_those_of_the_published_model(model: str) -> None:
    base = described(model)
    assert base is not None
    assert base.facts.parameters == PARAMETERS[model]
    assert base.facts.depth == base.config.get("text_config", base.config)["num_hidden_layers"]
    dtype = "F32" if "OLMo" in model else "BF16"
    assert base.facts.dtype == dtype
    assert base.checkpoint.nbytes == PARAMETERS[model] * {"F32": 4, "BF16": 2}[dtype]


@pytest.mark.parametrize("model", PARAMETERS)
def test_shapes_are_those_of_the_class_that_loads_it(model: str) -> None:
    """Of one layer each: that all are alike is in the description, and that there are so many in both files."""
    base = described(model)
    assert base is not None
    config = AutoConfig.from_pretrained(base.folder)
    depths = {}
    for section in (config, *(getattr(config, name, None) for name in ("text_config", "vision_config"))):
        if section is not None and "num_hidden_layers" in section.to_dict():
            depths[section.num_hidden_layers] = None
            section.num_hidden_layers = 1
    with torch.device("meta"):
        real = AutoModelForCausalLM.from_config(config)
    real.tie_weights()
    written = json.loads((base.folder / "tensors.json").read_text())["tensors"]
    repeated = {int(number) for name in written for number in re.findall(r"\{(\d+)\}", name)}
    assert repeated == set(depths)
    shapes = sorted(tuple(parameter.shape) for parameter in real.parameters())
    assert sorted(map(tuple, written.values())) == shapes
    if config.model_type != "gemma3":  # whose files have other names than its modules
        names = {re.sub(r"\{\d+\}", "0", name) for name in written}
        assert names == {name for name, _ in real.named_parameters()}


@pytest.mark.parametrize("model", PARAMETERS)
def test_they_pass_the_checks_of_a_real_one(model: str) -> None:
    base = described(model)
    assert base is not None
    assert config_problems(base.config, "config.json", allow_remote_code=False) == []
    assert list(shape_problems(base.config, base.checkpoint, "config.json")) == []
    assert list(training_problems(base)) == []
    assert list(growth_problems(base, plan_for(Injection("tli", k=2), base.facts.depth))) == []


def test_a_published_configuration_that_leaves_its_vocabulary_to_the_class() -> None:
    base = described("google/gemma-3-4b-pt")
    assert base is not None
    assert "vocab_size" not in base.config["text_config"]
    assert base.facts.vocabulary == vocabulary_of(base.config) == Gemma3TextConfig().vocab_size
    without: dict[str, Any] = {**base.config, "model_type": "llama"}
    assert vocabulary_of(without) is None


class TestWhenTheyAreTaken:
    NAME = "meta-llama/Llama-3.2-1B"

    def test_without_weights_here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        base = find_or_described(self.NAME)
        assert isinstance(base, Description)
        assert (base.name, base.facts.depth) == (self.NAME, 16)

    def test_a_folder_of_that_name_comes_first(
        self, tiny_model: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        shutil.copytree(tiny_model("llama"), tmp_path / self.NAME)
        assert find_or_described(self.NAME).facts.depth == 4

    def test_weights_that_were_downloaded_come_first(
        self, tiny_model: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        commit = "0" * 40
        root = tmp_path / "hub" / f"models--{self.NAME.replace('/', '--')}"
        (root / "refs").mkdir(parents=True)
        (root / "refs/main").write_text(commit)
        shutil.copytree(tiny_model("llama"), root / "snapshots" / commit)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        base = find_or_described(self.NAME)
        assert not isinstance(base, Description)
        assert (base.facts.depth, base.revision) == (4, commit)

    def test_another_model_is_looked_for(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(CheckpointError):
            find_or_described("./nowhere")
        with pytest.raises(InputError):
            find_or_described(3)  # type: ignore[arg-type]


def test_kinds_of_layers_are_those_that_transformers_makes(tmp_path: Path) -> None:
    """They are in the description, though not in the published file: to make them takes seconds of imports."""
    base = described("gemma-3-4b")
    assert base is not None
    config = json.loads((base.folder / "config.json").read_text())
    kinds = config["text_config"].pop("layer_types")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert AutoConfig.from_pretrained(tmp_path).text_config.layer_types == kinds
