"""Training injected layers alone: what is frozen costs no gradient, no moment, no graph, and half the bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tli.data.batches import Batches
from tli.growth.activations import Setting
from tli.growth.cost import cost
from tli.growth.in_memory import grow, injected_parameters
from tli.growth.memory import memory
from tli.models.base import find
from tli.models.halved import halved_weights
from tli.models.lineage import lineage
from tli.models.loading import load_model
from tli.planning.experts import Experts
from tli.planning.plan import plan
from tli.training.evaluate import evaluate
from tli.training.export import write_model
from tli.training.frozen import FrozenConv1D, FrozenLinear, halve_frozen
from tli.training.loop import Training
from tli.training.losses import token_losses
from tli.training.recipe import Recipe
from tli.training.state import copy_state, load_latest, save_state

Save = Callable[..., Path]
Tiny = Callable[[str], Path]
PLAN = plan(4, 2)  # new layers at 2 and 5 of 6
HELDOUT = np.random.default_rng(7).integers(0, 8, (4, 9))


def training(folder: Path, **values: Any) -> Training:
    model = grow(load_model(folder), PLAN)
    text = np.random.default_rng(3).integers(0, 8, 105).astype(np.uint16)
    recipe = Recipe(**{"tokens": 6 * 32, "batch_tokens": 32, "learning_rate": 1e-2, **values})
    injected = injected_parameters(model, PLAN)
    return Training(model, recipe, Batches(text, 8, 4, 0), HELDOUT, injected=injected)


def losses(made: Training, *steps: int) -> list[float]:
    return [progress.eval_loss for progress in made.run(steps)]


@pytest.fixture(scope="module")
def half(save_model: Save, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a model whose weights are bfloat16 numbers, as published ones are."""
    root = tmp_path_factory.mktemp("half")

    def folder(model_type: str) -> Path:
        path = root / model_type
        return path if path.exists() else save_model(path, model_type, dtype="bfloat16")

    return folder


def moments(made: Training) -> int:
    return sum(each.nbytes for kept in made.optimizer.state.values() for each in kept.values() if each.ndim)


def test_bytes_of_what_is_trained(tiny_model: Tiny) -> None:
    """Of gradients and moments there are as many as of what moves; a state on disk holds no more."""
    found: dict[str, tuple[int, int, int]] = {}
    for train in ("all", "injected", "injected+norms"):
        made = training(tiny_model("llama"), train=train)
        gradients = 0

        def seen(_work: str, made: Training = made) -> None:
            nonlocal gradients
            there = [each.grad for each in made.model.parameters() if each.grad is not None]
            gradients = max(gradients, sum(each.nbytes for each in there))

        made.optimizer.register_step_pre_hook(lambda *_: seen("step"))
        losses(made, 2)
        found[train] = gradients, moments(made), copy_state(made).size
    model = made.model
    sizes = {name: each.nbytes for name, each in model.named_parameters()}
    new = injected_parameters(model, PLAN)
    injected = sum(size for name, size in sizes.items() if name in new)
    norms = sum(size for name, size in sizes.items() if "norm" in name and name not in new)
    assert found["all"][:2] == (sum(sizes.values()), 2 * sum(sizes.values()))
    assert found["injected"][:2] == (injected, 2 * injected)
    assert found["injected+norms"][:2] == (injected + norms, 2 * (injected + norms))
    assert found["injected"][2] < 3 * injected + 10_000 < found["all"][2] / 2


def watched(made: Training, layers: str) -> tuple[dict[int, bool], set[int]]:
    """Of a pass: whether each layer's output asks for a gradient, and the layers that autograd keeps tensors of.

    What is kept before the first layer counts as -1's, behind the last as its.
    """
    model: Any = made.model
    asked: dict[int, bool] = {}
    kept: set[int] = set()
    now = -1

    def before(index: int) -> None:
        nonlocal now
        now = index

    def after(index: int, output: Any) -> None:
        asked[index] = (output[0] if isinstance(output, tuple) else output).requires_grad

    def save(tensor: torch.Tensor) -> torch.Tensor:
        kept.add(now)
        return tensor

    for index, layer in enumerate(model.get_submodule(layers)):
        layer.register_forward_pre_hook(lambda *_, index=index: before(index))
        layer.register_forward_hook(lambda *given, index=index: after(index, given[-1]))
    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        token_losses(model, torch.from_numpy(HELDOUT)).mean().backward()
    return asked, kept


@pytest.mark.parametrize(
    ("model_type", "layers"),
    [("llama", "model.layers"), ("gpt2", "transformer.h"), ("gpt_neox", "gpt_neox.layers")],
)
def test_no_graph_below_the_first_trained_layer(tiny_model: Tiny, model_type: str, layers: str) -> None:
    folder = tiny_model(model_type)
    asked, kept = watched(training(folder, train="all"), layers)
    assert asked == dict.fromkeys(range(6), True)
    assert kept >= {0, 1, 2, 3, 4, 5}
    asked, kept = watched(training(folder, train="injected"), layers)
    assert asked == {0: False, 1: False, 2: True, 3: True, 4: True, 5: True}
    assert kept == {2, 3, 4, 5}


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_frozen_matrices_in_half_the_bytes_change_no_bit(
    half: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model_type: str
) -> None:
    made = training(half(model_type), train="injected", precision="bf16")
    kinds = {type(module) for module in made.model.modules()}
    assert kinds & {FrozenLinear, FrozenConv1D}
    names = set(halved_weights(made.model))
    weights = dict(made.model.named_parameters())
    assert names
    assert {weights[name].dtype for name in names} == {torch.bfloat16}
    assert not names & injected_parameters(made.model, PLAN)
    measured = losses(made, 0, 3)  # before another training is made, which seeds the dropout anew
    save_state(made, tmp_path)
    measured += losses(made, 6)
    with monkeypatch.context() as patch:
        patch.setattr("tli.training.frozen.halve_frozen", lambda _model: 0)
        whole = training(half(model_type), train="injected", precision="bf16")
    assert not set(halved_weights(whole.model))
    assert losses(whole, 0, 3, 6) == measured
    again = training(half(model_type), train="injected", precision="bf16")
    assert load_latest(again, tmp_path)
    assert losses(again, 6) == measured[2:]


@pytest.mark.parametrize("model_type", ["llama", "mistral"])  # whose embedding is kept in half
def test_what_is_written_has_the_bytes_of_the_base(
    half: Callable[[str], Path], tmp_path: Path, model_type: str
) -> None:
    folder = half(model_type)
    made = training(folder, train="injected", precision="bf16")
    measured = losses(made, 3)[-1]
    target = tmp_path / "written"
    write_model(made.model, target, beside=folder, lineage=lineage(find(str(folder)), PLAN, seed=0, extra={}))
    assert json.loads((target / "config.json").read_text())["dtype"] == "float32"
    written, base = load_file(target / "model.safetensors"), load_file(folder / "model.safetensors")
    assert {each.dtype for each in written.values()} == {torch.float32}
    for position, source in enumerate(PLAN.sources):
        for name, tensor in base.items():
            old = name.replace(f"layers.{source}.", f"layers.{position}.")
            if f"layers.{source}." in name and position not in PLAN.injected:
                assert torch.equal(written[old], tensor.float()), old
    assert evaluate(load_model(target), HELDOUT).loss == pytest.approx(measured, abs=1e-7)


def test_matrices_that_would_lose_bits_stay_whole(tiny_model: Tiny) -> None:
    made = training(tiny_model("llama"), train="injected", precision="bf16")
    assert not set(halved_weights(made.model))
    assert halve_frozen(made.model) == 0


def test_a_head_that_is_tied_to_the_embedding_stays_whole(half: Callable[[str], Path]) -> None:
    made = training(half("llama"), train="injected", precision="bf16")
    model: Any = made.model
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.lm_head.weight.dtype == torch.float32


def test_costs_of_the_ways_to_train(tiny_model: Tiny) -> None:
    base = find(str(tiny_model("llama")))
    costs = [
        cost(base, PLAN, sequence_length=8, train=train) for train in ("injected", "injected+norms", "all")
    ]
    assert costs[0].flops_per_token < costs[1].flops_per_token < costs[2].flops_per_token
    ways = ("injected", "injected+norms", "all")
    needed = [memory(base, PLAN, Setting(32, train=train)).total for train in ways]
    assert needed == sorted(needed)
    assert len(set(needed)) == 3


GROWN = [
    {"k": 2, "init": "identity"},
    {"k": 2, "init": "mean"},
    {"k": 1, "init": "slerp", "noise": 0.1},
    {"k": 2, "init": "random"},
    {"method": "none"},
    {"method": "moe", "experts": Experts(count=2, top_k=1)},
    {"k": 2, "experts": Experts(count=2, top_k=1)},
]


@pytest.mark.parametrize("how", GROWN, ids=str)
@pytest.mark.parametrize("model_type", ["mistral", "gpt2"])
def test_of_a_base_in_half_the_bytes_the_same_is_grown(
    half: Callable[[str], Path], model_type: str, how: dict[str, Any]
) -> None:
    """In float32 and bit for bit, but for what is shared."""
    if "experts" in how and model_type == "gpt2":
        pytest.skip("has no mixture")
    decided = plan(4, **how)
    whole, halved = (load_model(half(model_type)).requires_grad_(requires_grad=False) for _ in range(2))
    assert halve_frozen(halved) > 0
    expected, found = grow(whole, decided, seed=3), grow(halved, decided, seed=3)
    assert found.state_dict().keys() == expected.state_dict().keys()
    for name, tensor in expected.state_dict().items():
        assert found.state_dict()[name].dtype == tensor.dtype, name
        assert torch.equal(found.state_dict()[name], tensor), name
    assert {each.data_ptr() for each in found.parameters()}.isdisjoint(
        each.data_ptr() for each in halved.parameters()
    )
    assert all(each.requires_grad for each in found.parameters())
    if "experts" in how:
        return
    shared = frozenset(name for name, _ in halved.named_parameters())
    common = grow(halved, decided, seed=3, shared=shared)
    own = {each.data_ptr(): name for name, each in common.named_parameters()}
    kept = {each.data_ptr() for each in halved.parameters()}
    assert {name for at, name in own.items() if at not in kept} == injected_parameters(common, decided)
    ids = torch.from_numpy(HELDOUT)
    assert torch.equal(common(ids).logits, expected(ids).logits)
