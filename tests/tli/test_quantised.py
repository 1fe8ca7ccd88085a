"""Quantised checkpoints: copied where a plan is a pure copy, refused with the reason where it calculates."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tli.registry import tiny
from tli.errors import CheckpointError
from tli.growth.on_disk import upscale_folder
from tli.growth.verify import verify_folder
from tli.models.base import find
from tli.models.quantised import method_of, moved_settings, with_moved_settings
from tli.planning.plan import plan

Tiny = Callable[[str], Path]
Made = Callable[..., Path]


def packed(tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """As gptq and awq: whole numbers, zeros and scales in the place of a weight."""
    rows = torch.arange(tensor.shape[0] * 4, dtype=torch.int32).reshape(tensor.shape[0], 4)
    return {"qweight": rows, "qzeros": torch.full((1, 4), 7, dtype=torch.int32), "scales": torch.ones(1, 4)}


def float8(tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """As fp8: the weight in 8 bits, and its scale beside it."""
    return {"weight": tensor.to(torch.float8_e4m3fn), "weight_scale_inv": torch.ones(1, 1)}


KINDS = {"gptq": packed, "awq": packed, "bitsandbytes": packed, "fp8": float8}


@pytest.fixture
def quantised(tiny_model: Tiny, tmp_path: Path) -> Made:
    """The tiny llama with every projection quantised as a method does it, but for `plain` ones."""

    def make(method: str, *plain: str, **settings: Any) -> Path:
        folder = tmp_path / f"{method}{len(plain)}"
        folder.mkdir()
        source = tiny_model("llama")
        for path in source.iterdir():
            if path.suffix == ".json" and path.name != "config.json":
                (folder / path.name).write_bytes(path.read_bytes())
        tensors = {}
        for name, tensor in load_file(source / "model.safetensors").items():
            stem, _, leaf = name.rpartition(".")
            if stem.endswith("_proj") and leaf == "weight" and not stem.endswith(plain or ("none",)):
                tensors |= {f"{stem}.{key}": value for key, value in KINDS[method](tensor).items()}
            else:
                tensors[name] = tensor
        save_file(tensors, folder / "model.safetensors")
        config = json.loads((source / "config.json").read_text())
        config["quantization_config"] = {"quant_method": method, **settings}
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return make


@pytest.mark.parametrize("method", KINDS)
def test_a_copy_moves_the_bytes(quantised: Made, tmp_path: Path, method: str) -> None:
    base = find(str(quantised(method)))
    for settings in ({"k": 2, "init": "copy"}, {"method": "stack"}, {"method": "dus", "m": 1}):
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        upscale_folder(base, out, plan(4, **settings))
        report = verify_folder(out, base)
        assert report.ok, report
        assert report.checks[-1].detail == f"not run: {method} weights need a library of their own"


@pytest.mark.parametrize("method", KINDS)
@pytest.mark.parametrize(
    "settings",
    [
        {"init": "damped"},
        {"init": "mean"},
        {"init": "random"},
        {"init": "copy", "noise": 0.1},
        {"init": "copy", "source": "both"},
        {"init": "slerp", "scale": 0.0},
    ],
)
def test_arithmetic_is_refused(
    quantised: Made, tmp_path: Path, method: str, settings: dict[str, Any]
) -> None:
    base = find(str(quantised(method)))
    with pytest.raises(CheckpointError) as caught:
        upscale_folder(base, tmp_path / "out", plan(4, 2, **settings))
    assert str(caught.value) == (
        f"injection.init: got {settings['init']!r} for {method} weights, which are not to be calculated with;"
        " expected a pure copy; try copy"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes"])
def test_identity_needs_a_zero_that_is_one(quantised: Made, tmp_path: Path, method: str) -> None:
    base = find(str(quantised(method)))
    with pytest.raises(CheckpointError, match="is packed as I32, so zeros in it are no zeros of the weight"):
        upscale_folder(base, tmp_path / "out", plan(4, 2))
    # Where all that writes to the stream was left as it is, it can be had.
    mixed = find(str(quantised(method, "o_proj", "down_proj")))
    upscale_folder(mixed, tmp_path / "out", plan(4, 2))
    assert verify_folder(tmp_path / "out", mixed).ok
    written = load_file(tmp_path / "out/model.safetensors")
    assert not written["model.layers.2.mlp.down_proj.weight"].any()
    assert written["model.layers.2.mlp.up_proj.qweight"].any()


def test_halves_of_a_packed_matrix_are_no_weight(tmp_path: Path) -> None:
    """mxfp4, as gpt_oss is published: the experts' matrices are blocks and scales of whole numbers."""
    tiny("gpt_oss").save_pretrained(tmp_path / "base")
    tensors = {}
    for name, tensor in load_file(tmp_path / "base/model.safetensors").items():
        if name.endswith(("experts.down_proj", "experts.gate_up_proj")):
            halves = {f"{name}_blocks": (4, 32, 1, 16), f"{name}_scales": (4, 32, 1)}
            tensors |= {half: torch.full(shape, 7, dtype=torch.uint8) for half, shape in halves.items()}
        else:
            tensors[name] = tensor
    save_file(tensors, tmp_path / "base/model.safetensors")
    config = json.loads((tmp_path / "base/config.json").read_text())
    config["quantization_config"] = {"quant_method": "mxfp4"}
    (tmp_path / "base/config.json").write_text(json.dumps(config))
    base = find(str(tmp_path / "base"))
    with pytest.raises(CheckpointError, match=r"mxfp4 weights \(.*down_proj_(blocks|scales) is packed as U8"):
        upscale_folder(base, tmp_path / "out", plan(4, 2))
    upscale_folder(base, tmp_path / "out", plan(4, 2, init="copy"))
    assert verify_folder(tmp_path / "out", base).ok


def test_zeros_of_float8_are_zeros(quantised: Made, tmp_path: Path) -> None:
    base = find(str(quantised("fp8")))
    upscale_folder(base, tmp_path / "out", plan(4, 2))
    assert verify_folder(tmp_path / "out", base).ok
    written = load_file(tmp_path / "out/model.safetensors")
    assert not written["model.layers.2.self_attn.o_proj.weight"].float().any()
    assert written["model.layers.2.self_attn.q_proj.weight"].float().any()


def test_layers_that_are_left_out_of_it_are_left_out_at_their_new_places(
    quantised: Made, tmp_path: Path
) -> None:
    kept = ["lm_head", "model.layers.1.mlp.up_proj", "re:.*layers.3.*"]
    base = find(str(quantised("fp8", modules_to_not_convert=kept)))
    upscale_folder(base, tmp_path / "out", plan(4, 2))
    told = json.loads((tmp_path / "out/config.json").read_text())["quantization_config"]
    assert told["modules_to_not_convert"] == [
        "lm_head",
        "model.layers.1.mlp.up_proj",
        "model.layers.2.mlp.up_proj",
        "re:.*layers.4.*",
        "re:.*layers.5.*",
    ]
    nested = {"groups": {"model.layers.0.q": {"bits": 4}}, "bits": 8}
    assert moved_settings(nested, plan(2, 1)) == {
        "groups": {"model.layers.0.q": {"bits": 4}, "model.layers.1.q": {"bits": 4}},
        "bits": 8,
    }


def test_settings_in_the_section_of_the_language_model_count_as_those_at_the_top() -> None:
    settings = {"quant_method": "gptq", "modules_to_not_convert": ["model.layers.3.mlp"]}
    inner = {"num_hidden_layers": 4, "quantization_config": settings}
    config = {"model_type": "gemma3", "text_config": inner}
    assert method_of(config) == "gptq"
    moved = with_moved_settings(config, plan(4, 2))
    names = moved["text_config"]["quantization_config"]["modules_to_not_convert"]
    assert names == ["model.layers.4.mlp", "model.layers.5.mlp"]
    assert inner["quantization_config"] is settings
    assert settings["modules_to_not_convert"] == ["model.layers.3.mlp"]
