from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from tests.conftest import TINY
from tests.tli.registry import tiny
from tli.checkpoint import atomic
from tli.errors import CheckpointError, FamilyError, InputError, PlanError
from tli.growth.in_memory import grow
from tli.growth.on_disk import upscale_folder
from tli.growth.verify import verify_folder
from tli.models.base import find
from tli.planning.injection import INITS
from tli.planning.plan import plan

Tiny = Callable[[str], Path]
PLAIN = ("copy", "identity", "damped")
Save = Callable[..., Path]


def load(folder: Path, **settings: Any) -> PreTrainedModel:
    model, told = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **settings)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    return model.eval()


def logits(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        return model(tokens).logits


def assert_same_weights(left: PreTrainedModel, right: PreTrainedModel) -> None:
    expected = dict(right.named_parameters())
    assert dict(left.named_parameters()).keys() == expected.keys()
    for name, parameter in left.named_parameters():
        assert parameter.dtype == expected[name].dtype, name
        assert torch.equal(parameter, expected[name]), name


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("model_type", "init"),
    [(name, init) for name in TINY for init in INITS if init in PLAIN or name in ("llama", "qwen3", "gpt2")],
)
def test_a_folder_and_a_loaded_model_come_out_alike(
    tiny_model: Tiny, tmp_path: Path, model_type: str, init: str
) -> None:
    decided = plan(4, 3, init=init, scale=0.3)
    upscale_folder(tiny_model(model_type), tmp_path / "out", decided, seed=5)
    written = load(tmp_path / "out")
    grown = grow(load(tiny_model(model_type)), decided, seed=5)
    assert_same_weights(written, grown)
    assert written.config.num_hidden_layers == 6


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_kept_and_rounded_alike(
    save_model: Save, tmp_path: Path, dtype: str, init: str
) -> None:
    base = save_model(tmp_path / "base", dtype=dtype)
    decided = plan(4, 2, init=init, scale=0.3)
    upscale_folder(base, tmp_path / "out", decided)
    kept = getattr(torch, dtype)
    assert {t.dtype for t in load_file(tmp_path / "out/model.safetensors").values()} == {kept}
    assert_same_weights(load(tmp_path / "out", dtype=kept), grow(load(base, dtype=kept), decided))


def test_shards_stay_shards(save_model: Save, tmp_path: Path, tokens: Tensor) -> None:
    base = save_model(tmp_path / "base", shard="30KB")
    upscale_folder(base, tmp_path / "out", plan(4, 1, init="mean"))
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    largest = max(path.stat().st_size for path in base.glob("*.safetensors"))
    assert len(files) > len(list(base.glob("*.safetensors"))) > 2
    assert all(path.stat().st_size < largest + 2000 for path in files)
    assert_same_weights(load(tmp_path / "out"), grow(load(base), plan(4, 1, init="mean")))


def test_what_stands_beside_the_weights_comes_along(tiny_model: Tiny, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_model("llama"), base)
    (base / "README.md").write_text("# a model of four layers")
    (base / "LICENSE").write_text("free")
    (base / "training_args.bin").write_bytes(b"pickle")
    (base / "code.py").write_text("boom")
    upscale_folder(base, tmp_path / "out", plan(4, 2))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {path.name for path in tiny_model("llama").iterdir()} | {"LICENSE", "lineage.json"}
    text = "one new layer"
    ids = AutoTokenizer.from_pretrained(base)(text).input_ids
    assert AutoTokenizer.from_pretrained(tmp_path / "out")(text).input_ids == ids
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (base, tmp_path / "out"))
    assert after == {**before, "num_hidden_layers": 6}


def test_the_lineage_says_what_was_done(tiny_model: Tiny, tmp_path: Path) -> None:
    upscale_folder(tiny_model("llama"), tmp_path / "once", plan(4, 2), seed=3)
    upscale_folder(tmp_path / "once", tmp_path / "twice", plan(6, 3))
    once, twice = (json.loads((tmp_path / n / "lineage.json").read_text()) for n in ("once", "twice"))
    assert once["plan"] == plan(4, 2).to_json()
    assert once["seed"] == 3
    assert once["base"]["fingerprint"] == find(str(tiny_model("llama"))).fingerprint
    assert once["versions"]["torch"] == torch.__version__
    assert twice["base"]["lineage"] == once
    assert twice["base"]["fingerprint"] == find(str(tmp_path / "once")).fingerprint


@pytest.mark.parametrize("init", INITS)
def test_the_same_inputs_give_the_same_bytes(tiny_model: Tiny, tmp_path: Path, init: str) -> None:
    for name in ("a", "b"):
        upscale_folder(tiny_model("llama"), tmp_path / name, plan(4, 2, init=init), seed=2)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_the_control_is_a_copy(tiny_model: Tiny, tmp_path: Path) -> None:
    upscale_folder(tiny_model("llama"), tmp_path / "out", plan(4, method="none"))
    assert_same_weights(load(tmp_path / "out"), load(tiny_model("llama")))


@pytest.mark.parametrize("model_type", ["llama", "qwen3", "gpt2"])
@pytest.mark.parametrize("init", ["copy", "identity"])
def test_copying_needs_no_torch(tiny_model: Tiny, tmp_path: Path, model_type: str, init: str) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_model(model_type), base)
    leave_out(base, "layer_types")
    code = (
        "import sys; from pathlib import Path; from tli.planning.plan import plan; from tli.growth.on_disk import upscale_folder\n"
        "upscale_folder(Path(sys.argv[1]), Path(sys.argv[2]), plan(4, 2, init=sys.argv[3]))\n"
        "assert not {'torch', 'transformers', 'numpy', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(base), str(tmp_path / "out"), init], check=True)
    assert load(tmp_path / "out").config.num_hidden_layers == 6


def leave_out(folder: Path, *keys: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k not in keys}))


@pytest.mark.parametrize("left_out", [(), ("layer_types",), ("layer_types", "no_rope_layers")])
@pytest.mark.parametrize(
    ("model_type", "settings"),
    [
        ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2}),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2}),
        ("smollm3", {"use_sliding_window": True, "sliding_window": 4, "no_rope_layer_interval": 2}),
    ],
)
def test_a_list_that_the_file_leaves_out_does_not_shift(
    save_model: Save,
    tmp_path: Path,
    model_type: str,
    settings: dict[str, Any],
    left_out: tuple[str, ...],
    tokens: Tensor,
) -> None:
    """Loaded with another depth, transformers would make the list anew and give the layers others' windows."""
    base = save_model(tmp_path / "base", model_type, **settings)
    leave_out(base, *left_out)
    upscale_folder(base, tmp_path / "out", plan(4, 1))
    before, after = load(base), load(tmp_path / "out")
    assert torch.equal(logits(after, tokens), logits(before, tokens))
    assert after.config.layer_types == [before.config.layer_types[n] for n in plan(4, 1).sources]
    assert len(set(after.config.layer_types)) == 2


def test_counts_from_the_bottom_move(save_model: Save, tmp_path: Path) -> None:
    for count, moved in ((2, 4), (4, 8), (28, 32), (0, 0)):
        base = save_model(tmp_path / f"base{count}", "qwen2", max_window_layers=count)
        upscale_folder(base, tmp_path / f"out{count}", plan(4, 1))
        config = json.loads((tmp_path / f"out{count}" / "config.json").read_text())
        assert config["max_window_layers"] == moved


def test_old_names_and_buffers_as_on_the_hub(tiny_model: Tiny, tmp_path: Path, tokens: Tensor) -> None:
    """The hub's gpt2 has no `transformer.` in its names, and masks among its tensors."""
    base = tmp_path / "base"
    shutil.copytree(tiny_model("gpt2"), base)
    tensors = {
        name.removeprefix("transformer."): t for name, t in load_file(base / "model.safetensors").items()
    }
    tensors |= {f"h.{n}.attn.bias": torch.ones(1, 1, 64, 64).tril() for n in range(4)}
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    assert find(str(base)).facts.parameters == find(str(tiny_model("gpt2"))).facts.parameters
    for init in INITS:
        upscale_folder(base, tmp_path / init, plan(4, 2, init=init))
        written = load_file(tmp_path / init / "model.safetensors")
        assert torch.equal(written["h.2.attn.bias"], tensors["h.1.attn.bias"])
        model = AutoModelForCausalLM.from_pretrained(tmp_path / init).eval()
        assert_same_weights(model, grow(load(tiny_model("gpt2")), plan(4, 2, init=init)))
    assert torch.equal(logits(load(tmp_path / "identity"), tokens), logits(load(base), tokens))


def test_float8_can_be_copied_but_not_calculated_with(tiny_model: Tiny, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_model("llama"), base)
    tensors = load_file(base / "model.safetensors")
    tensors = {n: t.to(torch.float8_e4m3fn) if "proj.weight" in n else t for n, t in tensors.items()}
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    upscale_folder(base, tmp_path / "copy", plan(4, 2, init="copy"))
    upscale_folder(base, tmp_path / "identity", plan(4, 2, init="identity"))
    zeros = load_file(tmp_path / "identity/model.safetensors")["model.layers.2.mlp.down_proj.weight"]
    assert zeros.dtype == torch.float8_e4m3fn
    assert not zeros.float().any()
    with pytest.raises(CheckpointError, match=r"got F8_E4M3; expected one of .* as mean calculates"):
        upscale_folder(base, tmp_path / "mean", plan(4, 2, init="mean"))
    assert not (tmp_path / "mean").exists()


def test_progress_is_told_in_bytes(tiny_model: Tiny, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    upscale_folder(tiny_model("llama"), tmp_path / "out", plan(4, 2), progress=lambda *at: told.append(at))
    assert told[-1] == (find(str(tmp_path / "out")).checkpoint.nbytes,) * 2


class TestWholeOrNotAtAll:
    """What stands at the destination is complete, or nothing stands there."""

    def test_an_existing_destination_is_not_touched(self, tiny_model: Tiny, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out/mine").write_text("mine")
        with pytest.raises(
            CheckpointError, match=r"out: got something that exists; expected a folder to be made"
        ):
            upscale_folder(tiny_model("llama"), tmp_path / "out", plan(4, 2))
        assert contents(tmp_path / "out") == {"mine": b"mine"}
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    @pytest.mark.parametrize(
        ("decided", "kind"),
        [(plan(8, 4), PlanError), (plan(8, method="none"), PlanError)],
    )
    def test_a_refused_plan_leaves_nothing(
        self, tiny_model: Tiny, tmp_path: Path, decided: Any, kind: type[InputError]
    ) -> None:
        with pytest.raises(kind, match="got 8; expected 4"):
            upscale_folder(tiny_model("llama"), tmp_path / "out", decided)
        assert not list(tmp_path.iterdir())

    def test_an_impossible_setting_leaves_nothing(self, save_model: Save, tmp_path: Path) -> None:
        base = save_model(tmp_path / "base", "gpt2", scale_attn_by_inverse_layer_idx=True)
        with pytest.raises(FamilyError, match="layers behind a new one would change"):
            upscale_folder(base, tmp_path / "out", plan(4, 2))
        assert [path.name for path in tmp_path.iterdir()] == ["base"]

    def test_a_full_disk_is_seen_before(self, tmp_path: Path) -> None:
        (shortage,) = atomic.disk_space_problems(tmp_path / "not" / "there", 10**18)
        assert "GB free; expected 1000000000.00 GB" in str(shortage)
        assert atomic.disk_space_problems(tmp_path, 1) == []

    def test_a_failure_on_the_way_leaves_nothing(self, tiny_model: Tiny, tmp_path: Path) -> None:
        def fail(done: int, total: int) -> None:
            if done > total / 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            upscale_folder(tiny_model("llama"), tmp_path / "out", plan(4, 2), progress=fail)
        assert not list(tmp_path.iterdir())

    def test_what_a_killed_run_left_is_cleaned_up(self, tiny_model: Tiny, tmp_path: Path) -> None:
        code = (
            "import os, signal, sys; from pathlib import Path; from tli.planning.plan import plan\n"
            "from tli.growth.on_disk import upscale_folder\n"
            "def kill(done, total):\n"
            "    if done > total / 2: os.kill(os.getpid(), signal.SIGKILL)\n"
            "upscale_folder(Path(sys.argv[1]), Path(sys.argv[2]), plan(4, 2), progress=kill)"
        )
        program = [sys.executable, "-c", code, str(tiny_model("llama")), str(tmp_path / "out")]
        assert subprocess.run(program, check=False).returncode == -signal.SIGKILL
        (left,) = tmp_path.iterdir()
        assert left.name.startswith(".out.tmp-")
        neighbour = tmp_path / f".out.tmp-{os.getppid()}"  # of a run that is alive
        neighbour.mkdir()
        upscale_folder(tiny_model("llama"), tmp_path / "out", plan(4, 2))
        assert {path.name for path in tmp_path.iterdir()} == {"out", neighbour.name}
        assert load(tmp_path / "out").config.num_hidden_layers == 6

    def test_the_second_of_two_runs_gives_way(self, tiny_model: Tiny, tmp_path: Path) -> None:
        def other(done: int, total: int) -> None:
            if done == total:
                (tmp_path / "out").mkdir(exist_ok=True)
                (tmp_path / "out/theirs").write_text("theirs")

        with pytest.raises(CheckpointError, match="something that exists"):
            upscale_folder(tiny_model("llama"), tmp_path / "out", plan(4, 2), progress=other)
        assert contents(tmp_path / "out") == {"theirs": b"theirs"}
        assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_layers_that_predict_several_tokens_stay_behind_the_last(tmp_path: Path) -> None:
    """They are stored as layers of their own; a new layer must not take their place."""
    tiny("deepseek_v3", num_nextn_predict_layers=1).save_pretrained(tmp_path / "base")
    tensors = load_file(tmp_path / "base/model.safetensors")
    behind = {
        name.replace(".layers.3.", ".layers.4."): t + 1 for name, t in tensors.items() if ".layers.3." in name
    }
    extra = {"model.layers.4.eh_proj.weight": torch.ones(32, 64)}
    save_file({**tensors, **behind, **extra}, tmp_path / "base/model.safetensors", {"format": "pt"})
    upscale_folder(find(str(tmp_path / "base")), tmp_path / "out", plan(4, 2, init="copy"))
    written = load_file(tmp_path / "out/model.safetensors")
    assert torch.equal(written["model.layers.6.eh_proj.weight"], extra["model.layers.4.eh_proj.weight"])
    for name, tensor in behind.items():
        assert torch.equal(written[name.replace(".layers.4.", ".layers.6.")], tensor)
    assert verify_folder(tmp_path / "out", find(str(tmp_path / "base"))).ok
