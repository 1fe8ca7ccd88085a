from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, BertConfig, BertForMaskedLM

from tli.errors import CheckpointError
from tli.models.base import Base, find

Tiny = Callable[[str], Path]
Save = Callable[..., Path]


def refused(model: Path | str, **settings: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        find(str(model), **settings)
    return str(caught.value).replace(str(model), "F")


@pytest.fixture
def folder(tiny_model: Tiny, tmp_path: Path) -> Path:
    shutil.copytree(tiny_model("llama"), tmp_path / "model")
    return tmp_path / "model"


def configure(folder: Path, **settings: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config = {key: value for key, value in {**config, **settings}.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "qwen3", "gpt2", "gpt_neox"])
def test_facts_are_those_of_the_loaded_model(tiny_model: Tiny, model_type: str) -> None:
    facts = find(str(tiny_model(model_type))).facts
    model = AutoModelForCausalLM.from_pretrained(tiny_model(model_type))
    assert facts.model_type == model_type
    assert facts.parameters == sum(p.numel() for p in model.parameters())
    assert (facts.depth, facts.hidden_size, facts.vocabulary, facts.context) == (4, 32, 257, 64)
    assert facts.dtype == "F32"


def test_the_built_in_model_is_there() -> None:
    base = find("builtin:tiny-llama")
    assert base.name == "builtin:tiny-llama"
    assert base.revision is None
    assert (base.facts.model_type, base.facts.depth, base.facts.hidden_size) == ("llama", 8, 128)


def test_a_base_travels_to_another_process(folder: Path) -> None:
    base = find(str(folder))
    again = pickle.loads(pickle.dumps(base))
    assert again == base
    assert again.fingerprint == base.fingerprint


class TestFingerprint:
    """It names the content, not the place."""

    def test_a_copy_has_the_same(self, folder: Path, tiny_model: Tiny) -> None:
        assert find(str(folder)).fingerprint == find(str(tiny_model("llama"))).fingerprint

    @pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
    def test_one_changed_byte_changes_it(self, folder: Path, name: str) -> None:
        before = find(str(folder)).fingerprint
        content = bytearray((folder / name).read_bytes())
        if name == "model.safetensors":
            content[-1] ^= 1
        else:
            content += b"\n"
        (folder / name).write_bytes(content)
        assert Base(str(folder), folder).fingerprint != before

    def test_other_files_do_not(self, folder: Path) -> None:
        before = find(str(folder)).fingerprint
        (folder / "README.md").write_text("new")
        assert Base(str(folder), folder).fingerprint == before


class TestRefusals:
    """Each says what stands where, and what to do."""

    def test_nothing_there(self, folder: Path) -> None:
        text = refused(folder.parent / "modle")
        assert text == (
            "model: got 'F', which does not exist; expected a folder, a hub id or the built-in model;"
            f" try {folder}"
        )
        assert refused("./no/such/place").endswith("try builtin:tiny-llama")
        with pytest.raises(CheckpointError, match="model: got '', which does not exist"):
            find("")

    def test_unknown_builtins(self) -> None:
        for name in ("builtin:tiny-lama", "builtin:", "builtin:../builtin/tiny-llama"):
            with pytest.raises(CheckpointError) as caught:
                find(name)
            expected = f"model: got {name!r}; expected one of builtin:tiny-llama; try builtin:tiny-llama"
            assert str(caught.value) == expected

    def test_a_file(self, folder: Path) -> None:
        text = refused(folder / "config.json")
        assert text == f"model: got 'F', a file; expected a model folder; try {folder}"

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        assert refused(tmp_path) == "F: got no config.json; expected the folder of a causal language model"

    def test_an_adapter(self, tmp_path: Path) -> None:
        (tmp_path / "adapter_config.json").write_text("{}")
        assert refused(tmp_path).startswith("F: got an adapter; expected the folder of a causal")

    def test_a_revision_of_a_folder(self, folder: Path) -> None:
        assert refused(folder, revision="v1") == "revision: got 'v1'; expected none, as F is a folder"

    @pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "\xff", "[" * 100_000])
    def test_a_config_that_is_none(self, folder: Path, text: str) -> None:
        (folder / "config.json").write_text(text, encoding="latin-1")
        assert refused(folder).startswith("F/config.json: got ")

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"auto_map": {"AutoModel": "evil.Evil"}}, "F/config.json: auto_map: got code of its own; expected none; try allowing remote code, if you trust it"),
            ({"architectures": ["BertForMaskedLM"]}, "F/config.json: architectures: got BertForMaskedLM; expected a causal language model (...ForCausalLM)"),
            ({"is_encoder_decoder": True}, "F/config.json: is_encoder_decoder: got an encoder and decoder; expected a causal language model"),
            ({"model_type": ...}, "F/config.json: got no model_type; expected a model that transformers knows"),
            ({"vocab_size": ...}, "F/config.json: vocab_size: got nothing; expected a whole number from 1"),
            ({"hidden_size": True}, "F/config.json: hidden_size: got True; expected a whole number from 1"),
            ({"num_hidden_layers": 6}, "F: got 4 layers; expected 6, as config.json: num_hidden_layers says"),
            ({"num_hidden_layers": "4"}, "F/config.json: num_hidden_layers: got '4'; expected a whole number from 1"),
            ({"model_type": "gpt2", "n_layer": 4, "num_hidden_layers": ...}, "F: got no layers under transformer.h; expected 4, as config.json: n_layer says"),
        ],
    )  # fmt: skip
    def test_configs(self, folder: Path, settings: dict[str, Any], message: str) -> None:
        configure(folder, **settings)
        assert refused(folder) == message

    def test_remote_code_that_was_allowed(self, folder: Path) -> None:
        configure(folder, auto_map={"AutoModel": "mine.Mine"})
        assert find(str(folder), allow_remote_code=True).facts.depth == 4

    def test_an_encoder(self, tmp_path: Path) -> None:
        config = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
        BertForMaskedLM(config).save_pretrained(tmp_path)
        assert "got BertForMaskedLM; expected a causal language model" in refused(tmp_path)

    def test_pickles(self, folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        assert refused(folder).startswith(
            "F/pytorch_model.bin: got weights as a pickle; expected safetensors"
        )
        torch.save({}, folder / "model.safetensors")
        assert "got a pickle in a zip (torch.save) under another name" in refused(folder)

    def test_a_truncated_file(self, folder: Path) -> None:
        path = folder / "model.safetensors"
        size = path.stat().st_size
        os.truncate(path, size - 1)
        assert refused(folder) == (
            f"F/model.safetensors: got {size - 1} bytes (truncated); expected {size}, as its header says;"
            " try downloading it again"
        )

    def test_all_problems_at_once(self, folder: Path) -> None:
        configure(folder, auto_map={"AutoModel": "evil.Evil"}, is_encoder_decoder=True)
        (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
        lines = refused(folder, revision="main").splitlines()
        assert [line.split(": got")[0] for line in lines] == [
            "F/config.json: auto_map",
            "F/config.json: is_encoder_decoder",
            "F/model.safetensors",
            "revision",
        ]


class TestHub:
    """Against the hub's own cache; there is no network in the tests."""

    COMMIT = "0123456789abcdef0123456789abcdef01234567"

    def run(self, cache: Path, model: str, *arguments: str, offline: str = "1") -> tuple[str, str]:
        code = (
            "import sys; from tli.models.base import find; from tli.errors import InputError\n"
            "try: base = find(sys.argv[1], **eval(sys.argv[2] if sys.argv[2:] else '{}'))\n"
            "except InputError as error: sys.exit(str(error))\n"
            "print(base.name, base.revision, base.facts.depth)\n"
            "assert not {'torch', 'transformers'} & set(sys.modules)"
        )
        environment = {**os.environ, "HF_HUB_OFFLINE": offline, "HF_HOME": str(cache)}
        environment |= {"HF_HUB_CACHE": str(cache), "HF_ENDPOINT": "http://127.0.0.1:9"}  # nobody is there
        program = [sys.executable, "-c", code, model, *arguments]
        done = subprocess.run(
            program, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        return done.stdout.strip(), done.stderr.strip()

    @pytest.fixture
    def cache(self, tiny_model: Tiny, tmp_path: Path) -> Path:
        root = tmp_path / "hub/models--team--small"
        (root / "refs").mkdir(parents=True)
        (root / "refs/main").write_text(self.COMMIT)
        shutil.copytree(tiny_model("llama"), root / "snapshots" / self.COMMIT)
        return tmp_path / "hub"

    @pytest.mark.parametrize("offline", ["0", "1"])
    def test_a_cached_model_is_found_and_its_commit_recorded(self, cache: Path, offline: str) -> None:
        assert self.run(cache, "team/small", offline=offline) == (f"team/small {self.COMMIT} 4", "")
        pinned = self.run(cache, "team/small", f"{{'revision': '{self.COMMIT}'}}", offline=offline)
        assert pinned == (f"team/small {self.COMMIT} 4", "")

    @pytest.mark.parametrize("offline", ["0", "1"])
    def test_an_unknown_one_is_told_at_once(self, cache: Path, offline: str) -> None:
        assert self.run(cache, "team/other", offline=offline)[1] == (
            "model: got 'team/other', no folder here, not downloaded before, and the hub cannot be reached;"
            " expected a folder, a hub id or the built-in model;"
            " try `hf download team/other` where there is a network, and the folder that it gives"
        )

    def test_what_is_no_id(self, cache: Path) -> None:
        out, error = self.run(cache, "team/a..b")
        assert out == ""
        assert error.startswith("model: got 'team/a..b', no folder here, and the hub says: ")

    def test_remote_code_is_refused_from_its_config(self, cache: Path) -> None:
        configure(cache / "models--team--small/snapshots" / self.COMMIT, auto_map={"AutoModel": "evil.Evil"})
        assert self.run(cache, "team/small")[1] == (
            "team/small: config.json: auto_map: got code of its own; expected none;"
            " try allowing remote code, if you trust it"
        )
        assert self.run(cache, "team/small", "{'allow_remote_code': True}")[0].endswith(" 4")
