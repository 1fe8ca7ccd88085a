"""Whatever leads transformers to another file, repository or code is refused; and what it loads is what is checked.

The places were found by reading transformers 5.23.0. Looked at there, and found to lead nowhere: `_name_or_path` and
`name_or_path` (the folder's takes their place), `tokenizer_class` (classes of transformers alone), `custom_generate`
(an argument, read from no file; the folder of that name is code), `quant_method` (libraries that are installed),
`fusion_config` (a table in transformers), paths of a tokenizer's files where nothing is there, or which the folder's
own files always replace.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tli.checkpoint.tensors import read_tensor
from tli.errors import CheckpointError
from tli.models.base import Base, find
from tli.models.loading import load_model

CONFIG, TOKENIZER = "config.json", "tokenizer_config.json"
AUTO_MAP = {"AutoModelForCausalLM": "evil.Evil"}
# file, keys and value, whether it is code that may be allowed, and where transformers reads it
LEADS = [
    (CONFIG, "auto_map", AUTO_MAP, True, "models/auto/auto_factory.py"),
    (CONFIG, "text_config.auto_map", AUTO_MAP, True, "the section is swapped in, models/auto/auto_factory.py"),
    (CONFIG, "vision_config.encoder.auto_map", AUTO_MAP, True, "AutoModel.from_config of a section"),
    (CONFIG, "custom_pipelines", {"x": {"impl": "evil.Evil"}}, True, "pipelines/__init__.py"),
    (CONFIG, "attn_implementation", "org/kernel", True, "integrations/hub_kernels.py: load_and_register_attn_kernel"),
    (CONFIG, "_attn_implementation", "paged|org/kernel@v1", True, "configuration_utils.py: the setter"),
    (CONFIG, "attn_implementation", {"": "sdpa", "text_config": "org/kernel"}, True, "configuration_utils.py"),
    (CONFIG, "text_config._attn_implementation", "org/kernel", True, "configuration_utils.py"),
    (CONFIG, "experts_implementation", "org/kernel", True, "configuration_utils.py"),
    (CONFIG, "_auto_class", "AutoConfig", True, "configuration_utils.py: save_pretrained copies the class's file"),
    (CONFIG, "transformers_weights", "other.safetensors", False, "modeling_utils.py: _get_resolved_checkpoint_files"),
    (CONFIG, "text_config.transformers_weights", "other.safetensors", False, "the section is swapped in"),
    (CONFIG, "configuration_files", ["config.4.0.0.json"], False, "configuration_utils.py: get_config_dict"),
    (CONFIG, "quantization_config.gguf_file", "x.gguf", False, "utils/quantization_config.py: GgufConfig"),
    (CONFIG, "vision_config.backbone", "hf-hub:org/name", False, "models/timm_backbone: timm.create_model"),
    (CONFIG, "vision_config.architecture", "local-dir:/x", False, "models/timm_wrapper: timm.create_model"),
    (CONFIG, "use_pretrained_backbone", True, False, "backbone_utils.py, before 5.0"),
    (TOKENIZER, "auto_map", ["evil.Evil", None], True, "models/auto/tokenization_auto.py"),
    (TOKENIZER, "gguf_file", "x.gguf", False, "tokenization_utils_tokenizers.py: __init__"),
    (TOKENIZER, "fast_tokenizer_files", ["../tokenizer.4.0.json"], False, "tokenization_utils_base.py"),
    (TOKENIZER, "vocab_file", "/etc/passwd", False, "tokenization_utils_base.py: what the class has no file for"),
    (TOKENIZER, "merges_file", "/etc/passwd", False, "tokenization_utils_tokenizers.py: convert_to_native_format"),
    (TOKENIZER, "vocab", "/etc/passwd", False, "tokenization_utils_tokenizers.py: convert_to_native_format"),
    (TOKENIZER, "init_inputs", ["/etc/passwd"], False, "tokenization_utils_base.py: _from_pretrained"),
    (TOKENIZER, "mecab_kwargs.mecab_option", "-d /etc", False, "models/bert_japanese: fugashi"),
    ("generation_config.json", "auto_map", AUTO_MAP, True, "its keys become the model's"),
    ("processor_config.json", "auto_map", AUTO_MAP, True, "models/auto/processing_auto.py"),
    ("preprocessor_config.json", "image_processor.auto_map", AUTO_MAP, True, "models/auto/image_processing_auto.py"),
    ("video_preprocessor_config.json", "auto_map", AUTO_MAP, True, "models/auto/video_processing_auto.py"),
]  # fmt: skip
LEADS_NOWHERE = [
    (CONFIG, "attn_implementation", "sdpa"),
    (CONFIG, "_attn_implementation", "flash_attention_2"),
    (CONFIG, "_name_or_path", "org/name"),
    (CONFIG, "auto_map", None),
    (CONFIG, "vision_config.backbone", "resnet50"),
    (CONFIG, "transformers_weights", None),
    (TOKENIZER, "name_or_path", "org/name"),
    (TOKENIZER, "vocab_file", "/home/builder/nowhere/vocab.json"),
    (TOKENIZER, "special_tokens_map_file", "/etc/passwd"),
    (TOKENIZER, "tokenizer_file", "/etc/passwd"),
    (TOKENIZER, "fast_tokenizer_files", ["tokenizer.4.0.json"]),
    (TOKENIZER, "vocab", {"/": 0, "/etc": 1}),
]


@pytest.fixture
def folder(tiny_model: Callable[[str], Path], tmp_path: Path) -> Path:
    shutil.copytree(tiny_model("llama"), tmp_path / "model")
    return tmp_path / "model"


def put(path: Path, dotted: str, value: Any) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    *sections, key = dotted.split(".")
    place = content
    for section in sections:
        place = place.setdefault(section, {})
    place[key] = value
    path.write_text(json.dumps(content))


def refused(folder: Path, **settings: Any) -> list[str]:
    with pytest.raises(CheckpointError) as caught:
        find(str(folder), **settings)
    return [problem.where.removeprefix(f"{folder}/") for problem in caught.value.problems]


@pytest.mark.parametrize(("file", "key", "value", "code", "read_at"), LEADS)
def test_what_leads_elsewhere_is_refused(
    folder: Path, file: str, key: str, value: Any, code: bool, read_at: str
) -> None:
    put(folder / file, key, value)
    places = [
        place for place in refused(folder) if place != "config.json: text_config"
    ]  # refused by itself, too
    assert places == [f"{file}: {key}"], read_at
    if key.startswith("text_config."):
        return
    if code:
        assert find(str(folder), allow_remote_code=True).facts.depth == 4
    else:
        assert refused(folder, allow_remote_code=True) == [f"{file}: {key}"]


@pytest.mark.parametrize(("file", "key", "value"), LEADS_NOWHERE)
def test_what_leads_nowhere_is_not(folder: Path, file: str, key: str, value: Any) -> None:
    put(folder / file, key, value)
    assert find(str(folder)).facts.depth == 4


def test_all_of_them_at_once(folder: Path) -> None:
    put(folder / CONFIG, "transformers_weights", "a.safetensors")
    put(folder / CONFIG, "auto_map", AUTO_MAP)
    put(folder / TOKENIZER, "auto_map", ["a.B", None])
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "org/name"}')
    (folder / "generation_config.json").write_text("[NaN]")
    assert sorted(refused(folder)) == [
        "adapter_config.json",
        "config.json: auto_map",
        "config.json: transformers_weights",
        "generation_config.json",
        "tokenizer_config.json: auto_map",
    ]


class TestSameFiles:
    """What transformers loads, and what was checked and has the fingerprint, are the same bytes."""

    def other(self, folder: Path, name: str) -> None:
        """Other weights of the same shapes beside, under a name."""
        from safetensors.torch import load_file, save_file

        source = next(iter(sorted(folder.glob("model*.safetensors"))))
        changed = {key: tensor + 1 for key, tensor in load_file(source).items()}
        save_file(changed, folder / name, metadata={"format": "pt"})

    def same(self, folder: Path) -> None:
        base = find(str(folder))
        loaded = load_model(folder).state_dict()
        for name, tensor in base.checkpoint.tensors.items():
            assert torch.equal(loaded[name], read_tensor(tensor)), name

    @pytest.mark.parametrize(
        "name",
        [
            "consolidated.safetensors",
            "model.fp16.safetensors",
            "adapter_model.safetensors",
            "pytorch_model.safetensors",
        ],
    )
    def test_other_weights_beside_are_ignored_by_both(self, folder: Path, name: str) -> None:
        before = find(str(folder)).fingerprint
        self.other(folder, name)
        assert Base("x", folder).fingerprint == before
        self.same(folder)

    def test_one_file_goes_before_an_index(self, save_model: Callable[..., Path], tmp_path: Path) -> None:
        folder = save_model(tmp_path / "model", shard="20KB")
        assert len(list(folder.glob("*.safetensors"))) > 2
        self.same(folder)
        whole = save_model(tmp_path / "whole", seed=7)
        shutil.copyfile(whole / "model.safetensors", folder / "model.safetensors")
        self.same(folder)
        named = Base("x", folder).fingerprint
        next(folder.glob("model-*")).unlink()
        assert Base("x", folder).fingerprint == named, "the shards are not read any more"

    def test_a_second_index_is_ignored_by_both(self, save_model: Callable[..., Path], tmp_path: Path) -> None:
        folder = save_model(tmp_path / "model", shard="20KB")
        before = find(str(folder)).fingerprint
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        self.other(folder, "other.safetensors")
        index["weight_map"] = dict.fromkeys(index["weight_map"], "other.safetensors")
        for name in ("pytorch_model.bin.index.json", "model.safetensors.index.fp16.json"):
            (folder / name).write_text(json.dumps(index))
        assert Base("x", folder).fingerprint == before
        self.same(folder)

    def test_weights_that_the_configuration_names(self, folder: Path) -> None:
        """Nothing else of the project stands between: plain transformers loads them."""
        self.other(folder, "other.safetensors")
        put(folder / CONFIG, "transformers_weights", "other.safetensors")
        loaded = load_model(Base("x", folder)).state_dict()  # not checked again
        name, tensor = next(iter(Base("x", folder).checkpoint.tensors.items()))
        assert not torch.equal(loaded[name], read_tensor(tensor)), "so it has to be refused"
        assert refused(folder) == ["config.json: transformers_weights"]

    def test_a_distributed_checkpoint_beside(self, folder: Path) -> None:
        """By the names of its files, transformers loads it in place of model.safetensors."""
        self.other(folder, "shard-00001-model-00001-of-00001.safetensors")
        assert refused(folder) == ["shard-00001-model-00001-of-00001.safetensors"]

    def test_a_tokenizer_of_another_version(self, folder: Path) -> None:
        before = find(str(folder)).fingerprint
        put(folder / TOKENIZER, "fast_tokenizer_files", ["tokenizer.4.0.json"])
        named = Base("x", folder).fingerprint
        (folder / "tokenizer.json").rename(folder / "tokenizer.4.0.json")
        moved = Base("x", folder).fingerprint
        (folder / "tokenizer.4.0.json").write_text((folder / "tokenizer.4.0.json").read_text() + "\n")
        assert len({before, named, moved, Base("x", folder).fingerprint}) == 4
