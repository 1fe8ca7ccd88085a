from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.conftest import TINY
from tli.errors import CheckpointError, PlanError, VerificationError
from tli.growth.in_memory import grow
from tli.growth.on_disk import upscale_folder
from tli.growth.verify import verify_folder
from tli.growth.verify_by_running import generation
from tli.growth.verify_report import Report
from tli.models.base import find
from tli.planning.injection import INITS
from tli.planning.plan import plan

Tiny = Callable[[str], Path]
Save = Callable[..., Path]


def found(report: Report) -> dict[str, str]:
    return {check.name: check.detail for check in report.checks if not check.ok}


@pytest.mark.parametrize("model_type", TINY)
def test_every_family_passes(tiny_model: Tiny, tmp_path: Path, model_type: str) -> None:
    base = find(str(tiny_model(model_type)))
    upscale_folder(base, tmp_path / "out", plan(4, 3))
    report = verify_folder(tmp_path / "out", base)
    assert found(report) == {}
    assert [check.name for check in report.checks] == [
        "base",
        "depth",
        "beside",
        "tensors",
        "finite",
        "loads",
        "ties",
        "logits",
        "generation",
    ]
    assert report.checks[7].detail == "bit-equal to the base's, in float32"


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_init_passes(save_model: Save, tmp_path: Path, init: str, dtype: str) -> None:
    base = find(str(save_model(tmp_path / "base", dtype=dtype, shard="30KB")))
    upscale_folder(base, tmp_path / "out", plan(4, 2, init=init), seed=11)
    report = verify_folder(tmp_path / "out", base)
    assert found(report) == {}
    assert ("logits" in {check.name for check in report.checks}) == (init == "identity")


@pytest.fixture
def base(tiny_model: Tiny) -> Any:
    return find(str(tiny_model("llama")))


@pytest.fixture
def out(base: Any, tmp_path: Path) -> Path:
    upscale_folder(base, tmp_path / "out", plan(4, 2))
    return tmp_path / "out"


def change(folder: Path, name: str, edit: Callable[[torch.Tensor], torch.Tensor | None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edited = edit(tensors[name].clone())
    tensors = (
        {**tensors, name: edited} if edited is not None else {n: t for n, t in tensors.items() if n != name}
    )
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def put(index: int, value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def edit(tensor: torch.Tensor) -> torch.Tensor:
        tensor.view(-1)[index] = value
        return tensor

    return edit


@pytest.mark.parametrize("options", [{"init": "mean", "noise": 0.1}, {"init": "random"}], ids=str)
def test_bytes_are_compared_without_torch(tiny_model: Tiny, tmp_path: Path, options: dict[str, Any]) -> None:
    upscale_folder(find(str(tiny_model("qwen3"))), tmp_path / "out", plan(4, 2, **options))
    code = (
        "import sys; from pathlib import Path; from tli.models.base import find; from tli.growth.verify import verify_folder\n"
        "report = verify_folder(Path(sys.argv[1]), find(sys.argv[2]), load=False)\n"
        "assert report.ok and len(report.checks) == 5, report\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "out"), str(tiny_model("qwen3"))]
    subprocess.run(command, check=True)


def test_one_changed_number_is_found(base: Any, out: Path) -> None:
    change(out, "model.layers.3.mlp.up_proj.weight", put(123, 0.25))
    report = verify_folder(out, base)
    expected = "model.layers.3.mlp.up_proj.weight differs from model.layers.2.mlp.up_proj.weight of the base"
    assert found(report)["tensors"] == f"{expected}, first at element 123"
    assert "differ from the base's by up to" in found(report)["logits"]
    with pytest.raises(VerificationError, match=r"tensors: model\.layers\.3\.mlp\.up_proj\.weight differs"):
        report.require()
    assert not report.ok
    assert not report.to_json()["ok"]


def test_a_zero_that_is_none_is_found_without_loading(base: Any, out: Path) -> None:
    change(out, "model.layers.2.mlp.down_proj.bias", put(31, 1e-30))
    report = verify_folder(out, base, load=False)
    assert found(report) == {
        "tensors": "model.layers.2.mlp.down_proj.bias differs from what the plan says, first at element 31"
    }
    assert "loads" not in {check.name for check in report.checks}


def test_a_number_that_is_none_is_found(base: Any, out: Path) -> None:
    change(out, "model.norm.weight", put(3, float("nan")))
    problems = found(verify_folder(out, base))
    assert problems["finite"] == "model.norm.weight is not"
    assert {"tensors", "logits", "generation"} <= problems.keys()


def test_another_type_is_found(base: Any, out: Path) -> None:
    change(out, "model.norm.weight", lambda tensor: tensor.half())
    assert found(verify_folder(out, base))["tensors"] == "model.norm.weight is F16, not F32"


def test_another_shape_is_found(base: Any, out: Path) -> None:
    change(out, "model.norm.weight", lambda tensor: tensor.reshape(2, -1))
    problems = found(verify_folder(out, base))
    assert problems["tensors"] == "model.norm.weight has shape [2, 16], not [32]"
    assert "model.norm.weight" in problems["loads"]


def test_a_second_head_is_found(base: Any, out: Path) -> None:
    tensors = load_file(out / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    assert found(verify_folder(out, base))["tensors"] == "lm_head.weight is too many"


def test_a_missing_layer_is_refused(base: Any, out: Path) -> None:
    change(out, "model.layers.5.mlp.up_proj.weight", lambda _: None)
    with pytest.raises(
        CheckpointError, match=r"layers\.5: got no mlp\.up_proj\.weight; expected what other layers"
    ):
        verify_folder(out, base)


def test_a_missing_norm_is_found(base: Any, out: Path) -> None:
    change(out, "model.norm.weight", lambda _: None)
    problems = found(verify_folder(out, base))
    assert problems["tensors"] == "model.norm.weight is missing"
    assert "lacks model.norm.weight" in problems["loads"]


def test_another_base_is_found(save_model: Save, out: Path, tmp_path: Path) -> None:
    other = find(str(save_model(tmp_path / "other", seed=9)))
    problems = found(verify_folder(out, other, load=False))
    assert "the lineage names" in problems["base"]
    assert "differs from" in problems["tensors"]


def test_a_shifted_pattern_is_found(save_model: Save, tmp_path: Path) -> None:
    settings = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2}
    base = find(str(save_model(tmp_path / "base", "qwen3", **settings)))
    upscale_folder(base, tmp_path / "out", plan(4, 1))
    config = json.loads((tmp_path / "out/config.json").read_text())
    config["layer_types"].reverse()
    (tmp_path / "out/config.json").write_text(json.dumps(config))
    problems = found(verify_folder(tmp_path / "out", base))
    assert problems["depth"].startswith("layer_types is ['sliding_attention', ")
    assert "logits" in problems


def test_a_layer_that_uses_anothers_cache_is_found(base: Any) -> None:
    grown = grow(AutoModelForCausalLM.from_pretrained(base.folder), plan(4, 2)).eval()
    prompt = torch.arange(12)[None]
    with torch.no_grad():
        assert generation(grown, prompt).ok
        grown.model.layers[3].self_attn.layer_idx = 2
        assert not generation(grown, prompt).ok


def test_a_trained_model_is_checked_for_what_training_keeps(base: Any, out: Path) -> None:
    change(out, "model.norm.weight", put(0, 0.5))
    told = json.loads((out / "lineage.json").read_text())
    (out / "lineage.json").write_text(json.dumps({**told, "training": {"tokens": 1}}))
    report = verify_folder(out, base)
    assert report.ok
    assert "trained since" in report.checks[3].detail
    change(out, "model.norm.weight", put(0, float("inf")))
    assert "finite" in found(verify_folder(out, base))


def test_the_control_is_verified_too(base: Any, tmp_path: Path) -> None:
    upscale_folder(base, tmp_path / "out", plan(4, method="none"))
    report = verify_folder(tmp_path / "out", base)
    assert found(report) == {}
    assert "logits" in {check.name for check in report.checks}


def test_a_folder_without_its_story_cannot_be_verified(tiny_model: Tiny, base: Any, out: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"got no lineage\.json; expected a folder written by `tli upscale`"
    ):
        verify_folder(tiny_model("llama"), base)
    for text, message in {
        "{": "no JSON",
        "[]": "not what this version",
        '{"format": 2}': "not what this version",
    }.items():
        (out / "lineage.json").write_text(text)
        with pytest.raises(CheckpointError, match=message):
            verify_folder(out, base)


def test_a_plan_that_was_tampered_with_is_refused(base: Any, out: Path) -> None:
    told = json.loads((out / "lineage.json").read_text())
    told["plan"]["sources"][0] = 3
    (out / "lineage.json").write_text(json.dumps(told))
    with pytest.raises(PlanError, match=r"plan\.sources"):
        verify_folder(out, base)


def test_a_copied_folder_is_the_same(base: Any, out: Path, tmp_path: Path) -> None:
    shutil.copytree(base.folder, tmp_path / "elsewhere")
    assert verify_folder(out, find(str(tmp_path / "elsewhere")), load=False).ok
