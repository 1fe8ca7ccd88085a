"""What all inits share: scale, noise and source on top of them, and the same numbers in memory and on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.pairs import every_pair
from tli.architectures.lookup import family_of
from tli.errors import FamilyError
from tli.growth.in_memory import grow
from tli.growth.on_disk import upscale_folder
from tli.initializers.initial import Initial, InitKind
from tli.models.base import Base
from tli.planning.injection import INITS
from tli.planning.plan import plan

Tiny = Callable[[str], Path]
Save = Callable[..., Path]
BETWEEN = ("mean", "slerp", "aligned", "predicted")
WRITES = ("self_attn.o_proj.weight", "mlp.down_proj.weight")


def load(folder: Path, **settings: Any) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, **settings).eval()


def logits(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        return model(tokens).logits


def layer(model: PreTrainedModel, position: int) -> dict[str, Tensor]:
    named = dict(model.get_submodule(family_of(model.config.model_type).layers)[position].named_parameters())
    return {name: parameter.detach() for name, parameter in named.items()}


@pytest.fixture
def base(tiny_model: Tiny) -> PreTrainedModel:
    return load(tiny_model("qwen3"))


@pytest.mark.parametrize(
    ("settings", "model_type", "dtype", "init"),
    every_pair(
        [
            {"k": 1, "noise": 0.3},
            {"k": 2, "scale": 0.3, "noise": 0.1, "place": "start"},
            {"method": "stack", "g": 3, "scale": "1/sqrt(n)"},
            {"method": "dus", "m": 1, "scale": 0},
        ],
        ["llama", "qwen3", "gpt2"],
        ["float32", "bfloat16"],
        BETWEEN,
    ),
)
def test_memory_and_disk_give_the_same_numbers(
    save_model: Save, tmp_path: Path, model_type: str, dtype: str, init: str, settings: dict[str, Any]
) -> None:
    base = save_model(tmp_path / "base", model_type, dtype=dtype)
    decided = plan(4, init=init, **settings)
    upscale_folder(base, tmp_path / "out", decided, seed=5)
    kept = getattr(torch, dtype)
    grown = grow(load(base, dtype=kept), decided, seed=5)
    written = load(tmp_path / "out", dtype=kept)
    assert {tensor.dtype for tensor in load_file(tmp_path / "out/model.safetensors").values()} == {kept}
    expected = dict(grown.named_parameters())
    assert dict(written.named_parameters()).keys() == expected.keys()
    for name, parameter in written.named_parameters():
        assert torch.equal(parameter, expected[name]), name


@pytest.mark.parametrize("init", BETWEEN)
def test_the_order_of_tensors_in_shards_does_not_matter(save_model: Save, tmp_path: Path, init: str) -> None:
    whole = save_model(tmp_path / "whole", "mistral")
    parts = save_model(tmp_path / "parts", "mistral", shard="9KB")
    for base in (whole, parts):
        upscale_folder(base, tmp_path / f"{base.name}-out", plan(4, 1, init=init))
    expected = load_file(tmp_path / "whole-out/model.safetensors")
    files = sorted((tmp_path / "parts-out").glob("*.safetensors"))
    found = {name: tensor for file in files for name, tensor in load_file(file).items()}
    assert len(files) > 5
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize("source", ["previous", "next", "both"])
def test_identity_from_any_source_leaves_the_logits(
    base: PreTrainedModel, source: str, tokens: Tensor
) -> None:
    grown = grow(base, plan(4, 2, init="identity", source=source))
    assert torch.equal(logits(grown, tokens), logits(base, tokens))


@pytest.mark.parametrize(
    ("init", "model_type", "dtype"),
    every_pair([*BETWEEN, "damped", "random"], ["llama", "qwen3", "gpt2"], ["float32", "bfloat16"]),
)
def test_scale_zero_leaves_the_logits_whatever_the_init(
    tiny_model: Tiny, model_type: str, init: str, dtype: str, tokens: Tensor
) -> None:
    """`init: aligned, scale: 0` is OpT-DeUS."""
    base = load(tiny_model(model_type), dtype=getattr(torch, dtype))
    decided = plan(4, 1, init=init, scale=0, noise=0.5)
    grown = grow(base, decided)
    assert torch.equal(logits(grown, tokens), logits(base, tokens))
    family = family_of(model_type)
    plain = grow(base, plan(4, 1, init=init, noise=0.5))
    for name, value in layer(grown, 1).items():
        made = layer(plain, 1)[name]
        assert torch.equal(value, torch.zeros_like(made) if family.writes_residual(name) else made), name


@pytest.mark.parametrize("init", BETWEEN)
def test_a_scale_acts_on_what_writes_to_the_stream_alone(base: PreTrainedModel, init: str) -> None:
    whole, half = (grow(base, plan(4, 2, init=init, scale=scale)) for scale in (1.0, 0.5))
    for name, value in layer(whole, 2).items():
        assert torch.equal(layer(half, 2)[name], value / 2 if name in WRITES else value), name


@pytest.mark.parametrize(("rule", "factor"), [("1/n", 1 / 3), ("1/sqrt(n)", 3**-0.5)])
def test_a_rule_counts_how_often_a_source_stands_in_the_stack(
    base: PreTrainedModel, rule: str, factor: float
) -> None:
    decided = plan(4, method="repeat", layers="1:2", g=3, init="damped", scale=rule)
    assert decided.sources == (0, 1, 1, 1, 2, 3)
    grown = grow(base, decided)
    for position in (2, 3):
        for name, old in layer(base, 1).items():
            expected = old * factor if name in WRITES else old
            torch.testing.assert_close(layer(grown, position)[name], expected)
    assert all(torch.equal(layer(grown, 1)[name], old) for name, old in layer(base, 1).items())


def test_sources_are_the_layer_before_the_next_and_both(base: PreTrainedModel) -> None:
    for source, expected in {
        "previous": layer(base, 1),
        "next": layer(base, 2),
        "both": {name: (old + layer(base, 2)[name]) / 2 for name, old in layer(base, 1).items()},
    }.items():
        grown = grow(base, plan(4, init="copy", after="1", source=source))
        for name, value in layer(grown, 2).items():
            assert torch.equal(value, expected[name]), (source, name)


class TestNoise:
    def test_it_is_relative_to_each_matrix_and_leaves_vectors(self, base: PreTrainedModel) -> None:
        grown = grow(base, plan(4, 2, init="copy", noise=0.1))
        for position, source in {2: 1, 5: 3}.items():
            for name, old in layer(base, source).items():
                added = layer(grown, position)[name] - old
                if old.dim() == 1:
                    assert not added.any(), name
                else:
                    assert added.std().item() == pytest.approx(0.1 * old.std().item(), rel=0.1), name
                    assert abs(added.mean().item()) < 0.02 * old.std().item(), name

    def test_every_tensor_draws_its_own(self, base: PreTrainedModel) -> None:
        decided = plan(4, 2, init="copy", noise=0.1)
        grown, again, other = (grow(base, decided, seed=seed) for seed in (1, 1, 2))
        drawn = [
            (layer(grown, position)[name] - layer(base, source)[name]) / layer(base, source)[name].std()
            for position, source in {2: 1, 5: 3}.items()
            for name in ("mlp.up_proj.weight", "mlp.gate_proj.weight")
        ]
        likenesses = torch.corrcoef(torch.stack([tensor.flatten() for tensor in drawn])) - torch.eye(4)
        assert likenesses.abs().max() < 0.15
        name = "mlp.up_proj.weight"
        assert torch.equal(layer(grown, 2)[name], layer(again, 2)[name])
        assert not torch.equal(layer(grown, 2)[name], layer(other, 2)[name])

    def test_zeros_stay_zeros(self, base: PreTrainedModel, tokens: Tensor) -> None:
        grown = grow(base, plan(4, 2, init="identity", noise=0.5))
        assert torch.equal(logits(grown, tokens), logits(base, tokens))
        assert not any(layer(grown, 2)[name].any() for name in WRITES)
        assert not torch.equal(layer(grown, 2)["mlp.up_proj.weight"], layer(base, 1)["mlp.up_proj.weight"])


def test_the_way_of_a_tensor_is_known_without_torch() -> None:
    family = family_of("llama")

    def way(name: str, *, floating: bool = True, **settings: Any) -> InitKind:
        return Initial(plan(4, 2, **settings), family, 0, 0.02, normed=False).init_kind(
            name, floating=floating
        )

    for init in BETWEEN:
        assert way("mlp.up_proj.weight", init=init) is InitKind.COMPUTED
        assert way("input_layernorm.weight", init=init) is InitKind.COMPUTED
        assert way("mlp.down_proj.weight", init=init, scale=0) is InitKind.ZEROS
    for init in INITS:
        assert way("self_attn.rotary_emb.inv_freq", init=init, noise=1.0) is InitKind.COPY
        assert way("mlp.up_proj.qweight", init=init, floating=False, noise=1.0) is InitKind.COPY
    assert way("mlp.up_proj.weight", init="copy") is InitKind.COPY
    assert way("mlp.up_proj.weight", init="copy", noise=0.1) is InitKind.COMPUTED
    assert way("mlp.up_proj.weight", init="identity") is InitKind.COPY
    assert way("mlp.up_proj.weight", init="identity", source="both") is InitKind.COMPUTED


class TestUnlikeNeighbours:
    """Two layers that do not hold the same tensors have nothing between them."""

    @pytest.fixture
    def unlike(self, tiny_model: Tiny) -> PreTrainedModel:
        """Layer 2 lacks a bias that the others have."""
        model = load(tiny_model("llama"))
        model.model.layers[2].mlp.down_proj.bias = None
        return model

    @pytest.fixture
    def folder(self, unlike: PreTrainedModel, tmp_path: Path) -> Base:
        unlike.save_pretrained(tmp_path / "base")
        return Base("unlike", tmp_path / "base")

    @pytest.mark.parametrize(
        "settings", [{"init": init} for init in BETWEEN] + [{"init": "copy", "source": "both"}]
    )
    def test_they_are_refused_before_anything_is_written(
        self, unlike: PreTrainedModel, folder: Base, tmp_path: Path, settings: dict[str, Any]
    ) -> None:
        decided = plan(4, after="1", **settings)
        told = r"injection.init: got \w+ of layers 1 and 2: only 1 has mlp.down_proj.bias; expected layers"
        with pytest.raises(FamilyError, match=told) as one:
            grow(unlike, decided)
        with pytest.raises(FamilyError, match=r"; try copy$") as other:
            upscale_folder(folder, tmp_path / "out", decided)
        assert one.value.problems == other.value.problems
        assert [path.name for path in tmp_path.iterdir()] == ["base"]

    @pytest.mark.parametrize("settings", [{"after": "1", "init": "copy"}, {"after": "0", "init": "slerp"}])
    def test_copy_needs_no_neighbour_and_likes_are_combined(
        self, folder: Base, tmp_path: Path, settings: dict[str, Any]
    ) -> None:
        upscale_folder(folder, tmp_path / "out", plan(4, **settings))
        names = load_file(tmp_path / "out/model.safetensors").keys()
        assert {name.split(".")[2] for name in names if "down_proj.bias" in name} == {*"0124"}

    def test_every_such_place_is_told_of(self, unlike: PreTrainedModel) -> None:
        with pytest.raises(FamilyError) as raised:
            grow(unlike, plan(4, 1, init="slerp"))
        places = [problem.got.partition(":")[0] for problem in raised.value.problems]
        assert places == ["slerp of layers 1 and 2", "slerp of layers 2 and 3"]

    def test_other_shapes_are_told_of(self, tiny_model: Tiny) -> None:
        model = load(tiny_model("mistral"))
        mlp = model.model.layers[3].mlp
        mlp.up_proj, mlp.gate_proj = torch.nn.Linear(32, 40), torch.nn.Linear(32, 40)
        mlp.down_proj = torch.nn.Linear(40, 32, bias=False)
        for projection in (mlp.up_proj, mlp.gate_proj):
            projection.bias = None
        with pytest.raises(FamilyError, match=r"mlp.down_proj.weight has shapes \[32, 48\] and \[32, 40\]"):
            grow(model, plan(4, after="2", init="mean"))


def test_a_plan_that_injects_nothing_looks_at_no_layers() -> None:
    layout = [{"a": (1,)}, {}, {}, {}]
    assert not Initial.of(plan(4, method="none"), family_of("llama"), {}, 0, layout).uses_two_layers
