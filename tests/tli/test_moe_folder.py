"""Experts from folder to folder: the same as in memory, copied where they can be, proven, and priced."""

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
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tli.architectures.mixtures import MIXTURES
from tli.checkpoint.header import TensorInfo
from tli.checkpoint.writer import Computed, Pieces, Zeros
from tli.cli.commands import main
from tli.errors import CheckpointError, FamilyError, PlanError
from tli.growth.activations import Setting
from tli.growth.cost import cost
from tli.growth.in_memory import grow, injected_parameters
from tli.growth.memory import memory
from tli.growth.on_disk import planned, upscale_folder
from tli.growth.verify import verify_folder
from tli.growth.verify_report import Report
from tli.models.base import find
from tli.planning.experts import Experts
from tli.planning.plan import Plan, plan

Save = Callable[..., Path]
Base = Callable[[str], Path]

PLAIN = plan(4, method="moe", experts=Experts(4, 2))
DRAWN = plan(4, method="moe", experts=Experts(4, 2, drop=0.5, noise=0.1))
FINER = plan(4, method="moe", experts=Experts(4, 1, granularity=3))
DEEPER = plan(4, 2, experts=Experts(4, 2, granularity=2))
MIXED = plan(4, 3, init="mean", noise=0.1, experts=Experts(3, 2, drop=0.25, granularity=2))
PLANS = {"plain": PLAIN, "drawn": DRAWN, "finer": FINER, "deeper": DEEPER, "mixed": MIXED}


@pytest.fixture(scope="session")
def dense_model(save_model: Save, tmp_path_factory: pytest.TempPathFactory) -> Base:
    """`dense_model("llama")`: a folder that can have experts. Shared: do not change it."""
    root = tmp_path_factory.mktemp("dense")

    def folder(model_type: str = "llama") -> Path:
        path = root / model_type
        plain = {"attention_bias": False, "mlp_bias": False} if model_type == "llama" else {}
        return path if path.exists() else save_model(path, model_type, **plain)

    return folder


def load(folder: Path, **settings: Any) -> PreTrainedModel:
    model, told = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **settings)
    assert not any(told.values()), told
    return model.eval()


def assert_same_weights(left: PreTrainedModel, right: PreTrainedModel) -> None:
    expected = dict(right.named_parameters())
    assert dict(left.named_parameters()).keys() == expected.keys()
    for name, parameter in left.named_parameters():
        assert parameter.dtype == expected[name].dtype, name
        assert torch.equal(parameter, expected[name]), name


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def found(report: Report) -> dict[str, str]:
    return {check.name: check.detail for check in report.checks if not check.ok}


@pytest.mark.parametrize("decided", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("model_type", MIXTURES)
def test_a_folder_and_a_loaded_model_come_out_alike(
    dense_model: Base, tmp_path: Path, model_type: str, decided: Plan
) -> None:
    """Ours and what transformers saves of the model in memory: names, types, numbers and configuration."""
    upscale_folder(dense_model(model_type), tmp_path / "ours", decided, seed=5)
    grown = grow(load(dense_model(model_type)), decided, seed=5)
    assert_same_weights(load(tmp_path / "ours"), grown)
    grown.save_pretrained(tmp_path / "theirs")
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "theirs"))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype, name
        assert torch.equal(tensor, theirs[name]), name
    configs = [AutoConfig.from_pretrained(tmp_path / name).to_dict() for name in ("ours", "theirs")]
    for config in configs:
        config.pop("_name_or_path")
    assert configs[0] == configs[1]


@pytest.mark.parametrize("decided", PLANS.values(), ids=PLANS)
def test_half_precision_is_kept_and_rounded_alike(save_model: Save, tmp_path: Path, decided: Plan) -> None:
    base = save_model(tmp_path / "base", "qwen2", dtype="bfloat16", shard="30KB")
    upscale_folder(base, tmp_path / "out", decided)
    written = load(tmp_path / "out", dtype=torch.bfloat16)
    assert_same_weights(written, grow(load(base, dtype=torch.bfloat16), decided))
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    largest = max(path.stat().st_size for path in base.glob("*.safetensors"))
    assert len(files) > len(list(base.glob("*.safetensors"))) > 2
    assert all(path.stat().st_size < largest + 4000 for path in files)
    assert {t.dtype for path in files for t in load_file(path).values()} == {torch.bfloat16}


@pytest.mark.parametrize("model_type", MIXTURES)
@pytest.mark.parametrize("decided", PLANS.values(), ids=PLANS)
def test_it_can_be_proven(dense_model: Base, tmp_path: Path, model_type: str, decided: Plan) -> None:
    base = find(str(dense_model(model_type)))
    upscale_folder(base, tmp_path / "out", decided, seed=2)
    report = verify_folder(tmp_path / "out", base)
    assert found(report) == {}
    details = {check.name: check.detail for check in report.checks}
    assert details["experts"].startswith(f"{MIXTURES[model_type].target}, ")
    assert details["loads"] == MIXTURES[model_type].architecture
    assert ("logits" in details) == decided.preserves
    if decided.preserves:
        assert "differ from the base's by up to" in details["logits"]
        assert "is rounding" in details["logits"]


def test_times_three_is_rounded_in_bfloat16(save_model: Save, tmp_path: Path) -> None:
    base = find(str(save_model(tmp_path / "base", "qwen3", dtype="bfloat16")))
    upscale_folder(base, tmp_path / "out", FINER)
    assert found(verify_folder(tmp_path / "out", base)) == {}


class TestWhatIsCopied:
    def test_equal_experts_are_ranges_of_the_source(self, dense_model: Base) -> None:
        base = find(str(dense_model("llama")))
        for output in planned(base, PLAIN, seed=0):
            if output.name.endswith("block_sparse_moe.gate.weight"):
                assert isinstance(output.content, Computed)
            else:
                assert isinstance(output.content, TensorInfo), output.name
                assert output.content in base.checkpoint.tensors.values()

    def test_rows_of_parts_are_too(self, dense_model: Base) -> None:
        outputs = {out.name: out.content for out in planned(find(str(dense_model("qwen2"))), DEEPER, seed=0)}
        kinds = {
            name: type(outputs[f"model.layers.{name}.weight"])
            for name in (
                "0.mlp.experts.7.gate_proj",
                "0.mlp.experts.7.up_proj",
                "0.mlp.experts.7.down_proj",
                "2.mlp.experts.7.down_proj",  # of an injected identity layer
                "0.mlp.gate",
                "0.mlp.shared_expert.gate_proj",
                "0.mlp.shared_expert_gate",
            )
        }
        assert list(kinds.values()) == [TensorInfo, TensorInfo, Pieces, Zeros, Computed, Zeros, Zeros]

    def test_transformers_is_not_imported(self, dense_model: Base, tmp_path: Path) -> None:
        code = (
            "import sys; from pathlib import Path; from tli.planning.plan import plan; from tli.growth.on_disk import upscale_folder\n"
            "from tli.planning.experts import Experts\n"
            "upscale_folder(Path(sys.argv[1]), Path(sys.argv[2]), plan(4, 2, experts=Experts(4, 2, drop=0.5)))\n"
            "assert 'transformers' not in sys.modules"
        )
        program = [sys.executable, "-c", code, str(dense_model("qwen3")), str(tmp_path / "out")]
        subprocess.run(program, check=True)
        assert load(tmp_path / "out").config.num_hidden_layers == 6


class TestTheSame:
    @pytest.mark.parametrize("decided", [DRAWN, MIXED], ids=["drawn", "mixed"])
    def test_inputs_give_the_same_bytes(self, dense_model: Base, tmp_path: Path, decided: Plan) -> None:
        for name in ("a", "b"):
            upscale_folder(dense_model("qwen3"), tmp_path / name, decided, seed=2)
        assert contents(tmp_path / "a") == contents(tmp_path / "b")
        assert Plan.from_json(decided.to_json()) == decided

    def test_seed_is_all_that_a_seed_changes(self, dense_model: Base, tmp_path: Path) -> None:
        for seed in (1, 2):
            upscale_folder(dense_model("llama"), tmp_path / str(seed), PLAIN, seed=seed)
        one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("1", "2"))
        differ = {name for name, tensor in one.items() if not torch.equal(tensor, two[name])}
        assert differ == {f"model.layers.{n}.block_sparse_moe.gate.weight" for n in range(4)}


class TestFalseFoldersAreFound:
    @pytest.fixture
    def out(self, dense_model: Base, tmp_path: Path) -> Path:
        upscale_folder(dense_model("qwen3"), tmp_path / "out", PLAIN)
        return tmp_path / "out"

    @pytest.mark.parametrize("name", ["mlp.gate.weight", "mlp.experts.3.up_proj.weight"])
    def test_by_one_number(self, dense_model: Base, out: Path, name: str) -> None:
        tensors = load_file(out / "model.safetensors")
        tensors[f"model.layers.1.{name}"].view(-1)[5] += 0.5
        save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
        problems = found(verify_folder(out, find(str(dense_model("qwen3")))))
        assert problems["tensors"].startswith(f"model.layers.1.{name} differs from")
        assert problems["tensors"].endswith("first at element 5")

    def test_by_logits_that_are_off(self, dense_model: Base, out: Path) -> None:
        tensors = load_file(out / "model.safetensors")
        for number in range(4):
            tensors[f"model.layers.1.mlp.experts.{number}.up_proj.weight"] *= 1.05
        save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
        assert "is rounding" in found(verify_folder(out, find(str(dense_model("qwen3")))))["logits"]

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("norm_topk_prob", False),
            ("num_experts_per_tok", 3),
            ("model_type", "qwen2_moe"),
            ("rope_parameters", {"rope_theta": 5.0, "rope_type": "default"}),
        ],
    )
    def test_by_a_setting(self, dense_model: Base, out: Path, key: str, value: Any) -> None:
        config = json.loads((out / "config.json").read_text())
        (out / "config.json").write_text(json.dumps({**config, key: value}))
        report = verify_folder(out, find(str(dense_model("qwen3"))), load=False)
        assert found(report)["experts"].startswith(f"{key} is {value!r}, not ")

    def test_by_a_setting_that_no_class_takes(self, dense_model: Base, out: Path) -> None:
        config = json.loads((out / "config.json").read_text())
        (out / "config.json").write_text(json.dumps({**config, "model_type": "unheard_of"}))
        report = verify_folder(out, find(str(dense_model("qwen3"))), load=False)
        assert "expected what transformers reads" in found(report)["depth"]


class TestRefusedBeforeAnythingIsWritten:
    def refused(self, base: Path, tmp_path: Path, decided: Plan, kind: type, match: str) -> None:
        with pytest.raises(kind, match=match):
            upscale_folder(base, tmp_path / "out", decided)
        assert not [path for path in tmp_path.iterdir() if "out" in path.name]

    def test_settings(self, dense_model: Base, tiny_model: Base, tmp_path: Path) -> None:
        uneven = plan(4, method="moe", experts=Experts(4, 2, granularity=5))
        self.refused(dense_model("llama"), tmp_path, uneven, PlanError, "a divisor of 48")
        self.refused(tiny_model("llama"), tmp_path, PLAIN, PlanError, "no biases")
        self.refused(tiny_model("gpt2"), tmp_path, PLAIN, FamilyError, "experts for 'gpt2'")
        self.refused(tiny_model("gpt2"), tmp_path, DEEPER, FamilyError, "experts for 'gpt2'")

    def changed(self, source: Path, target: Path, change: Callable[[str, torch.Tensor], Any]) -> Path:
        shutil.copytree(source, target)
        tensors = load_file(source / "model.safetensors")
        tensors = {name: change(name, tensor) for name, tensor in tensors.items()}
        save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
        return target

    def test_types_without_arithmetic(self, dense_model: Base, tmp_path: Path) -> None:
        base = self.changed(
            dense_model("llama"),
            tmp_path / "base",
            lambda name, tensor: tensor.to(torch.float8_e4m3fn) if "up_proj" in name else tensor,
        )
        with pytest.raises(CheckpointError) as caught:
            planned(find(str(base)), DEEPER, seed=0)
        assert len(caught.value.problems) == 6
        self.refused(
            base, tmp_path, PLAIN, CheckpointError, r"mlp\.up_proj\.weight: got F8_E4M3; expected one"
        )

    def test_another_shape_than_the_configuration_says(self, dense_model: Base, tmp_path: Path) -> None:
        base = self.changed(
            dense_model("llama"),
            tmp_path / "base",
            lambda name, tensor: tensor[:40].contiguous() if "gate_proj" in name else tensor,
        )
        self.refused(base, tmp_path, PLAIN, CheckpointError, r"intermediate_size: got 48; expected 40")

    def test_a_tensor_that_experts_have_no_place_for(self, dense_model: Base, tmp_path: Path) -> None:
        base = tmp_path / "base"
        shutil.copytree(dense_model("llama"), base)
        tensors = load_file(base / "model.safetensors")
        tensors |= {f"model.layers.{n}.mlp.norm.weight": torch.ones(32) for n in range(4)}
        save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
        self.refused(
            base, tmp_path, PLAIN, CheckpointError, r"0\.mlp\.norm\.weight: got a tensor that experts"
        )


class TestCosts:
    @pytest.mark.parametrize("decided", PLANS.values(), ids=PLANS)
    @pytest.mark.parametrize("model_type", MIXTURES)
    def test_parameters_are_those_of_the_grown_model(
        self, dense_model: Base, model_type: str, decided: Plan
    ) -> None:
        base = find(str(dense_model(model_type)))
        grown = grow(load(base.folder), decided)
        told = cost(base, decided, sequence_length=16)
        sizes = {name: parameter.numel() for name, parameter in grown.named_parameters()}
        assert told.depth == decided.new_depth
        assert told.parameters == sum(sizes.values())
        assert told.injected_parameters == sum(sizes[n] for n in injected_parameters(grown, decided))

    @pytest.mark.parametrize("decided", [PLAIN, DEEPER], ids=["plain", "deeper"])
    @pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen3"])
    @pytest.mark.parametrize("train", ["all", "injected"])
    def test_flops_are_those_of_the_chosen_experts(
        self, dense_model: Base, model_type: str, decided: Plan, train: str
    ) -> None:
        base = find(str(dense_model(model_type)))
        model = AutoModelForCausalLM.from_pretrained(base.folder, attn_implementation="eager")
        grown = grow(model, decided)
        grown.set_experts_implementation("eager")  # the counter does not see into the grouped kernel
        if train == "injected":
            names = injected_parameters(grown, decided)
            for name, parameter in grown.named_parameters():
                parameter.requires_grad_(name in names)
        tokens = torch.randint(0, 256, (2, 16))
        with FlopCounterMode(display=False) as counter:
            grown(tokens).logits.float().logsumexp(-1).mean().backward()
        told = cost(base, decided, sequence_length=16, train=train)
        assert told.flops_per_token == pytest.approx(counter.get_total_flops() / tokens.numel(), rel=0.04)

    def test_memory_is_of_the_right_size(self, dense_model: Base) -> None:
        base = find(str(dense_model("llama")))
        grown = grow(load(base.folder), PLAIN)
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        tokens = torch.randint(0, 256, (32, 64))
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = grown(tokens, labels=tokens).loss
        weights = {p.untyped_storage().data_ptr() for p in grown.parameters()}
        activations = sum(size for place, size in kept.items() if place not in weights)
        loss.backward()
        told = memory(base, PLAIN, Setting(tokens.numel()))
        real = activations + 4 * sum(4 * p.numel() for p in grown.parameters())
        assert real / 2 < told.total < real * 2


class TestByCommand:
    def test_written_and_proven(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "out"
        options = ["builtin:tiny-llama", str(out), "--method", "moe", "--experts", "8", "--top-k", "2"]
        assert main(["upscale", *options, "--verify"]) == 0
        told = capfd.readouterr()
        assert "8 layers, none injected; 8 experts, 2 a token" in told.err
        assert "ok      logits      differ from the base's by up to" in told.out
        config = load(out).config
        assert (config.num_local_experts, config.num_experts_per_tok) == (8, 2)

    def test_depth_then_experts(self, tmp_path: Path) -> None:
        options = ["--k", "4", "--experts", "4", "--granularity", "2", "--drop", "0.5", "--seed", "3"]
        assert main(["upscale", "builtin:tiny-llama", str(tmp_path / "out"), *options, "--verify"]) == 0
        config = load(tmp_path / "out").config
        assert (config.num_hidden_layers, config.num_local_experts, config.num_experts_per_tok) == (10, 8, 4)

    def test_planned_with_its_price(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["plan", "builtin:tiny-llama", "--method", "moe", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        grown = grow(load(find("builtin:tiny-llama").folder), Plan.from_json(told))
        assert told["parameters"] == sum(parameter.numel() for parameter in grown.parameters())

    def test_what_does_not_fit_the_model_is_said_at_its_option(
        self, tiny_model: Base, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["plan", "builtin:tiny-llama", "--method", "moe", "--granularity", "5"]) == 2
        expected = "error: --granularity: got 5; expected a divisor of 384, the neurons of a feed-forward part; try 4\n"
        assert capsys.readouterr().err == expected
        assert main(["plan", str(tiny_model("gpt2")), "--experts", "4"]) == 2
        assert capsys.readouterr().err.startswith("error: --experts: got experts for 'gpt2'")
