"""Growth on disk and in memory make the same new layers, however transformers joins and renames tensors.

A folder is upscaled and loaded; the model loaded from the folder is grown with the same seed: every tensor is
the same, bit for bit. Both are float32 here: rounding to a file's 16 bits is all that may lie between them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.core_model_loading import Chunk, WeightConverter
from transformers.utils import logging

from tests.tli.registry import rows, tiny_config
from tests.tli.test_registry import GROWN, base_of, planned
from tli.architectures.family import Family
from tli.architectures.lookup import family_of
from tli.architectures.table import FAMILIES
from tli.errors import FamilyError, InputError
from tli.growth.in_memory import grow
from tli.growth.on_disk import upscale_folder
from tli.growth.stored import StoredLayers
from tli.models.base import Base
from tli.planning.plan import Plan, plan

WAYS: dict[str, dict[str, Any]] = {
    "random": {"init": "random"},
    "noise": {"init": "identity", "noise": 0.1},
    "noise on a copy": {"init": "copy", "noise": 0.1},
    "slerp": {"init": "slerp"},
    "mean": {"init": "mean"},
    "damped": {"init": "damped"},
    "aligned": {"init": "aligned"},
    "predicted": {"init": "predicted"},
}
SELECTED = ("mixtral", "qwen2_moe", "granitemoe", "dbrx", "llama", "gpt2")


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> None:
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def loaded(folder: Path, like: PreTrainedModel) -> PreTrainedModel:
    """By plain AutoModelForCausalLM; by its own class where the auto class does not know what it saves."""
    known = "no_reload" not in rows().get(like.config.model_type.removesuffix("_text_model"), {})
    model: PreTrainedModel = (AutoModelForCausalLM if known else type(like)).from_pretrained(folder)
    return model


def compared(model: PreTrainedModel, folder: Path, decided: Plan, out: Path) -> str | None:
    """Why both ways refuse alike; None where both grow, and alike. `model` was loaded from `folder`."""
    try:
        upscale_folder(Base("base", folder), out, decided, seed=5)
    except InputError as error:
        with pytest.raises(InputError) as caught:
            grow(model, decided, seed=5)
        told, other = ([p.where.partition(":")[0] for p in each.problems] for each in (error, caught.value))
        assert told == other
        return str(error)
    written, grown = loaded(out, model).state_dict(), grow(model, decided, seed=5).state_dict()
    assert written.keys() == grown.keys()
    for name, tensor in written.items():
        assert tensor.dtype == grown[name].dtype, name
        assert torch.equal(tensor.isnan(), grown[name].isnan()), name
        assert torch.equal(tensor.nan_to_num(), grown[name].nan_to_num()), name
    return None


def compare_all(model_type: str, folder: Path, *without: str) -> set[str]:
    """The ways that a type grows by, each compared."""
    base = base_of(model_type)
    base.save_pretrained(folder / "base")
    model, grown = loaded(folder / "base", base), set()
    gains = (
        {"zero-gain": {"init": "identity", "identity": "zero-gain"}}
        if FAMILIES[model_type].post_norms
        else {}
    )
    for number, (name, settings) in enumerate({**WAYS, **gains}.items()):
        if name in without:
            continue
        decided = planned(base, model_type, **settings)
        if compared(model, folder / "base", decided, folder / str(number)) is None:
            grown.add(name)
    return grown


@pytest.mark.parametrize("model_type", SELECTED)
def test_a_folder_and_the_model_loaded_from_it_grow_alike(model_type: str, tmp_path: Path) -> None:
    grown = compare_all(model_type, tmp_path, "noise on a copy")
    assert {"random", "noise"} <= grown
    if model_type != "qwen2_moe":  # with layers of two kinds side by side
        assert {"slerp", "mean", "damped", "predicted"} <= grown
    if model_type in ("llama", "gpt2"):
        assert "aligned" in grown


@pytest.mark.slow
@pytest.mark.parametrize("model_type", [name for name in GROWN if name not in SELECTED])
def test_every_type_grows_alike(model_type: str, tmp_path: Path) -> None:
    grown = compare_all(model_type, tmp_path)
    assert "random" in grown
    assert "zero-gain" in grown or not FAMILIES[model_type].post_norms


def test_a_file_in_which_experts_are_joined_grows_alike_too(tmp_path: Path) -> None:
    """Such files exist of types whose usual files have a tensor for each matrix of each expert."""
    base = base_of("mixtral")
    base.save_pretrained(tmp_path / "base", save_original_format=False)
    model = loaded(tmp_path / "base", base)
    for number, way in enumerate(("random", "noise on a copy", "slerp")):
        decided = planned(base, "mixtral", **WAYS[way])
        assert compared(model, tmp_path / "base", decided, tmp_path / str(number)) is None


@pytest.mark.parametrize("model_type", ["mixtral", "ernie4_5_moe"])
def test_in_half_precision_only_the_files_rounding_lies_between(model_type: str, tmp_path: Path) -> None:
    """A class may keep single tensors in float32 that its files hold in bfloat16, as ernie does routers."""
    base_of(model_type).to(torch.bfloat16).save_pretrained(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.bfloat16)
    kept = {parameter.dtype for parameter in model.parameters()}
    assert (torch.float32 in kept) == (model_type == "ernie4_5_moe")
    for number, way in enumerate(("random", "noise on a copy", "slerp")):
        decided, out = planned(model, model_type, **WAYS[way]), tmp_path / str(number)
        upscale_folder(Base("base", tmp_path / "base"), out, decided)
        written = AutoModelForCausalLM.from_pretrained(out, dtype=torch.bfloat16).state_dict()
        grown = grow(model, decided).state_dict()
        assert written.keys() == grown.keys()
        for name, tensor in written.items():
            assert torch.equal(tensor.bfloat16(), grown[name].bfloat16()), (way, name)


def fused(model: PreTrainedModel) -> PreTrainedModel:
    """The same, as if its files had query, key and value in one tensor."""
    names = [f"self_attn.{part}_proj.weight" for part in "qkv"]
    model._weight_conversions = [WeightConverter("self_attn.qkv.weight", names, [Chunk(dim=0)])]
    return model


@pytest.mark.parametrize("way", ["random", "slerp", "noise"])
def test_what_cannot_be_told_alike_is_refused(way: str) -> None:
    model = fused(base_of("llama"))
    with pytest.raises(FamilyError, match=r"model: got model\.layers\.0\.self_attn\.qkv\.weight .* try tli"):
        grow(model, planned(model, "llama", **WAYS[way]))
    assert grow(model, planned(model, "llama", "damped")).config.num_hidden_layers == 6


def classes(model_type: str) -> list[str]:
    """Tensors that a row takes for something else under the name in files than under that in memory."""
    model, family = base_of(model_type), family_of(model_type)
    depth = len(model.get_submodule(family.layers))
    stored = StoredLayers.of(model, family, plan(depth, 2, init="random"))
    wrong = []
    for tensors, parts in zip(stored.tensors, stored.parts, strict=True):
        whole = {tensor.untyped_storage().data_ptr(): name for name, tensor in tensors.items()}
        for name, part in parts.items():
            other = whole[part.untyped_storage().data_ptr()]
            if seen(family, name) != seen(family, other):
                wrong.append(f"{name} in files, {other} in memory")
    return sorted(set(wrong))


def seen(family: Family, name: str) -> tuple[object, ...]:
    """What a row says of a tensor that decides its first weights."""
    return (
        family.writes_residual(name),
        family.is_gain(name),
        family.is_multiplier(name),
        family.is_buffer(name),
        family.offset(name),
    )


@pytest.mark.parametrize("model_type", [*SELECTED, "kolibri1"])
def test_a_row_knows_the_names_of_files_as_well(model_type: str) -> None:
    assert classes(model_type) == []


@pytest.mark.slow
@pytest.mark.parametrize("model_type", [name for name in GROWN if name not in SELECTED])
def test_every_row_knows_the_names_of_files_as_well(model_type: str) -> None:
    assert classes(model_type) == []


def test_a_configuration_that_names_no_deviation_has_that_of_its_class() -> None:
    """What a model in memory is drawn with where its config.json says nothing of it."""
    expected: dict[str, float | None] = {}
    for model_type in GROWN:
        section = tiny_config(model_type).get_text_config(decoder=True).to_dict()
        expected[model_type] = section.get("initializer_range") or section.get("init_std") or 0.02
    expected["youtu"] = None  # calculated
    assert {name: FAMILIES[name].deviation for name in GROWN} == expected


def test_a_file_that_names_no_deviation_grows_alike_or_is_refused(tmp_path: Path) -> None:
    for model_type in ("starcoder2", "youtu"):
        base, folder = base_of(model_type), tmp_path / model_type
        base.save_pretrained(folder)
        config = json.loads((folder / "config.json").read_text())
        del config["initializer_range"]
        (folder / "config.json").write_text(json.dumps(config))
        decided = planned(base, model_type, "random")
        if model_type == "youtu":
            with pytest.raises(FamilyError, match=r"config\.json: initializer_range: got none"):
                upscale_folder(Base("base", folder), tmp_path / "out", decided)
        else:
            assert compared(loaded(folder, base), folder, decided, tmp_path / "grown") is None
