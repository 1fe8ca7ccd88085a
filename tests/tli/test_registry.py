"""Every causal-LM type that transformers registers is grown, small, and the result proven, or refused with a reason.

Proof: identity leaves the logits bit-equal, in float32 and bfloat16, without a cache and with one; a copy computes
what the layer run twice does; what is saved computes the same when it is loaded; the folder written from byte ranges
is the one that the grown model in memory saves; and every new parameter learns.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

from tests.tli.registry import model_types, rows, tiny, tiny_config
from tli.architectures.lookup import family_of
from tli.architectures.table import FAMILIES
from tli.checkpoint.reader import Checkpoint
from tli.errors import FamilyError
from tli.growth.in_memory import grow, injected_parameters
from tli.growth.on_disk import upscale_folder
from tli.models.base import Base, find
from tli.planning.injection import Injection
from tli.planning.plan import Plan, plan_for

GROWN = [
    name for name in model_types() if FAMILIES[name].refused is None and "cannot" not in rows().get(name, {})
]
EXACT = [name for name in GROWN if FAMILIES[name].no_scale is None]
# A layer run twice by hand shows what a copy does, except where the model looks up its layers' own tables.
BY_INDEX = ("gemma3n_text", "gemma4", "gemma4_text", "granite_swa", "granitemoe_swa", "mllama", "zamba2")
SET_BY_FORWARD = ("transformers_version", "dtype", "architectures", "num_buckets")
TOKENS = torch.randint(1, 256, (1, 12), generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    # transformers compiles some dozens of patterns for every model that it saves or loads; Python keeps 512.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(re, "_MAXCACHE", 100_000)
        yield


def base_of(model_type: str) -> PreTrainedModel:
    return tiny(model_type, **rows().get(model_type, {}).get("to_grow", {}))


def planned(model: PreTrainedModel, model_type: str, init: str, **settings: Any) -> Plan:
    """One new layer after every 2, or as the row of the type in registry.json asks."""
    depth = len(model.get_submodule(FAMILIES[model_type].layers))
    return plan_for(
        Injection(**{"k": 2, **rows().get(model_type, {}).get("plan", {}), "init": init, **settings}), depth
    )


def logits(model: PreTrainedModel) -> Tensor:
    with torch.no_grad():
        return model(TOKENS, use_cache=False).logits


def generated(model: PreTrainedModel, **settings: Any) -> Tensor:
    told = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False, "pad_token_id": 0, **settings}
    return model.generate(TOKENS, **told)


def reloaded(folder: Path, like: PreTrainedModel) -> PreTrainedModel:
    """By plain AutoModelForCausalLM; by its own class where the auto class does not know what it saves."""
    known = "no_reload" not in rows().get(like.config.model_type.removesuffix("_text_model"), {})
    model = (AutoModelForCausalLM if known else type(like)).from_pretrained(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.data = (
                parameter.data.clone()
            )  # mapped files are aligned otherwise, and sums round otherwise
    return model.eval()


def same_folders(one: Path, other: Path) -> None:
    mine, theirs = Checkpoint.open(one).tensors, Checkpoint.open(other).tensors
    assert set(mine) == set(theirs)
    for name, tensor in mine.items():
        assert (tensor.dtype, tensor.shape) == (theirs[name].dtype, theirs[name].shape), name
        assert tensor.read() == theirs[name].read(), name
    settings = [json.loads((folder / "config.json").read_text()) for folder in (one, other)]
    kept = [{key: value for key, value in each.items() if key not in SET_BY_FORWARD} for each in settings]
    assert kept[0] == kept[1]


def learned(model: PreTrainedModel, length: int = 12) -> set[str]:
    """Names of parameters that two steps of plain gradient descent reach."""
    tokens = torch.randint(1, 256, (1, length), generator=torch.Generator().manual_seed(2))
    torch.manual_seed(0)
    model.train().requires_grad_()
    reached = set()
    for _ in range(2):
        model.zero_grad()
        output = model(tokens, use_cache=False).logits
        nn.functional.cross_entropy(output[0, :-1].float(), tokens[0, 1:]).backward()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.grad is not None and parameter.grad.any():
                    assert parameter.grad.isfinite().all(), name
                    reached.add(name)
                    parameter.sub_(0.05 * parameter.grad)
    return reached


@pytest.mark.parametrize("model_type", EXACT)
def test_identity(model_type: str, tmp_path: Path) -> None:
    base = base_of(model_type)
    base.save_pretrained(tmp_path / "base")
    decided = planned(base, model_type, "identity")
    expected = logits(base)
    grown = grow(base, decided)
    assert len(grown.get_submodule(FAMILIES[model_type].layers)) == decided.new_depth
    grown.save_pretrained(tmp_path / "grown")
    assert torch.equal(logits(grown), expected)
    if "no_cache" not in rows().get(model_type, {}):
        assert torch.equal(generated(grown), generated(base))
    assert needed(grown, base, decided, expected)
    find(str(tmp_path / "base"))  # its headers and configuration pass the checks
    upscale_folder(Base("base", tmp_path / "base"), tmp_path / "folder", decided)
    same_folders(tmp_path / "folder", tmp_path / "grown")
    if FAMILIES[model_type].post_norms:
        by_gain = grow(base, planned(base, model_type, "identity", identity="zero-gain"))
        assert torch.equal(logits(by_gain), expected)
    if "no_bfloat16" not in rows().get(model_type, {}):
        half = copy.deepcopy(base).to(torch.bfloat16)
        assert torch.equal(logits(grow(half, decided)), logits(half))


def needed(grown: PreTrainedModel, base: PreTrainedModel, decided: Plan, expected: Tensor) -> bool:
    """Whether every tensor that identity zeroed has to be zero: with its old values, the logits are others."""
    family = FAMILIES[base.config.model_type]
    originals, parameters = dict(base.named_parameters()), dict(grown.named_parameters())
    seen = set()
    for position in decided.injected:
        prefix = f"{family.layers}.{position}."
        names = {name.removeprefix(prefix) for name in parameters if name.startswith(prefix)}
        if any(name.startswith("cross_attn.") for name in names):
            continue  # a layer that is passed over without an image
        for rest in sorted(name for name in names if family.writes_residual(name) and name not in seen):
            seen.add(rest)
            with torch.no_grad():
                zeros = parameters[prefix + rest].clone()
                parameters[prefix + rest].copy_(
                    originals[f"{family.layers}.{decided.sources[position]}.{rest}"]
                )
                assert not torch.equal(logits(grown), expected), rest
                parameters[prefix + rest].copy_(zeros)
    return bool(seen)


@pytest.mark.parametrize("model_type", GROWN)
def test_copy(model_type: str, tmp_path: Path) -> None:
    base = base_of(model_type)
    decided = planned(base, model_type, "copy")
    grown = grow(base, decided)
    grown.save_pretrained(tmp_path / "grown")
    layers = FAMILIES[model_type].layers
    parameters, originals = (
        dict(grown.named_parameters()),
        dict(base.named_parameters(remove_duplicate=False)),
    )
    for name in injected_parameters(grown, decided):
        position, _, rest = name.removeprefix(f"{layers}.").partition(".")
        source = f"{layers}.{decided.sources[int(position)]}.{rest}"
        assert torch.equal(parameters[name], originals[source]), name
    found = logits(grown)
    if model_type not in BY_INDEX:
        assert torch.equal(found, logits(run_twice(base, grown, decided, layers)))
    if "no_cache" not in rows().get(model_type, {}):
        assert torch.equal(generated(grown), generated(grown, use_cache=False))
    # Of identity this would show less: its new layers may be loaded wrongly and still add nothing.
    assert torch.equal(logits(reloaded(tmp_path / "grown", grown)), found)
    if model_type not in EXACT:  # of those, identity shows it
        base.save_pretrained(tmp_path / "base")
        upscale_folder(Base("base", tmp_path / "base"), tmp_path / "folder", decided)
        same_folders(tmp_path / "folder", tmp_path / "grown")


def run_twice(base: PreTrainedModel, grown: PreTrainedModel, decided: Plan, layers: str) -> PreTrainedModel:
    """The base with references to its own layers in the order of the plan: no weight is copied."""
    twice = copy.deepcopy(base)
    old = twice.get_submodule(layers)
    path, _, leaf = layers.rpartition(".")
    setattr(twice.get_submodule(path), leaf, nn.ModuleList([old[source] for source in decided.sources]))
    deeper = {type(part): part for part in (grown.config, getattr(grown.config, "text_config", grown.config))}
    twice.config = grown.config
    for module in twice.modules():
        if type(getattr(module, "config", None)) in deeper:
            module.config = deeper[type(module.config)]
    return twice


@pytest.mark.parametrize("model_type", EXACT)
def test_new_parameters_learn(model_type: str) -> None:
    """Zeros let the first step reach only themselves; after it, all that learns in the source layer does."""
    base = base_of(model_type)
    decided = planned(base, model_type, "identity")
    grown = grow(base, decided)
    layers, names = FAMILIES[model_type].layers, injected_parameters(grown, decided)
    length = rows().get(model_type, {}).get("train_length", 12)
    before, after = learned(base, length), learned(grown, length)
    for name in names:
        position, _, rest = name.removeprefix(f"{layers}.").partition(".")
        if f"{layers}.{decided.sources[int(position)]}.{rest}" in before:
            assert name in after, name


@pytest.mark.parametrize("model_type", GROWN)
def test_gains_start_as_in_a_new_model(model_type: str) -> None:
    """`random` draws gains as one, or as zero where one is added to them: what a new model of the type has."""
    fresh = AutoModelForCausalLM.from_config(tiny_config(model_type))
    family = FAMILIES[model_type]
    for name, parameter in fresh.get_submodule(family.layers).named_parameters():
        rest = name.partition(".")[2]
        if parameter.dim() < 2 and family.is_norm(rest):
            assert parameter.eq(1 - family.offset(rest)).all(), rest


@pytest.mark.parametrize("model_type", [name for name in model_types() if FAMILIES[name].refused])
def test_refused_with_the_reason(model_type: str) -> None:
    with pytest.raises(FamilyError) as caught:
        family_of(model_type)
    assert str(FAMILIES[model_type].refused) in str(caught.value)


@pytest.mark.parametrize("model_type", [name for name in GROWN if FAMILIES[name].no_scale])
def test_identity_refused_with_the_reason(model_type: str) -> None:
    base = base_of(model_type)
    for init in ("identity", "damped"):
        with pytest.raises(
            FamilyError, match=r"injection\.init: .*; expected a residual scale of 1; try copy"
        ):
            grow(base, planned(base, model_type, init))


def test_the_table_has_every_type_and_most_of_them_grow(capsys: pytest.CaptureFixture[str]) -> None:
    """Every registered type has a row; at least 95 % of those that can be built small grow."""
    types = model_types()
    assert set(types) <= set(FAMILIES)
    small = [name for name in types if "cannot" not in rows().get(name, {})]
    grown = [name for name in small if FAMILIES[name].refused is None]
    exact = [name for name in grown if FAMILIES[name].no_scale is None]
    with capsys.disabled():
        print(f"\n{len(types)} types; {len(small)} can be built small; of these {len(grown)} grow", end=" ")
        print(f"({len(grown) / len(small):.1%}), {len(exact)} of them also by identity", end=" ")
    assert len(grown) >= 0.95 * len(small)
