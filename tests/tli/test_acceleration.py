"""Layers that keep less, or are compiled; micro batches that are found; nothing of it changes what is learned."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tli.training.loop
from tli.data.batches import Batches
from tli.errors import FamilyError, InputError
from tli.models.loading import load_model
from tli.training import acceleration, micro_batches
from tli.training.loop import Training
from tli.training.losses import add_gradients, token_losses
from tli.training.recipe import Recipe

Tiny = Callable[[str], Path]
HELDOUT = np.random.default_rng(7).integers(0, 8, (4, 9))
IDS = torch.from_numpy(np.random.default_rng(0).integers(0, 257, (4, 33)))


def training(folder: Path, **recipe: Any) -> Training:
    how = replace(Recipe(tokens=4 * 32, batch_tokens=32, learning_rate=1e-2), **recipe)
    text = np.random.default_rng(3).integers(0, 8, 105).astype(np.uint16)
    return Training(load_model(folder), how, Batches(text, 8, 4, 0), HELDOUT)


def run(made: Training) -> tuple[float, list[float]]:
    (progress,) = made.run([4])
    return progress.eval_loss, [loss for _, loss in progress.train_loss]


def kept(model: torch.nn.Module) -> int:
    """Bytes that the forward pass keeps for the backward one, outside what is calculated again."""
    parameters = {parameter.data_ptr() for parameter in model.parameters()}
    found: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in parameters:
            found[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = token_losses(model, IDS).mean()  # type: ignore[arg-type]
    loss.backward()
    return sum(found.values())


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gpt_neox"])
def test_layers_that_are_calculated_again_have_the_same_gradients(tiny_model: Tiny, model_type: str) -> None:
    sizes, gradients = [], []
    for every in (0, 2, 1):
        model = load_model(tiny_model(model_type)).train()
        acceleration.checkpoint_activations(model, every)
        torch.manual_seed(0)  # of dropout
        sizes.append(kept(model))
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert sizes[0] > 1.3 * sizes[1] > 1.3 * 1.3 * sizes[2]
    for others in gradients[1:]:
        assert all(torch.equal(one, other) for one, other in zip(gradients[0], others, strict=True))


def test_a_training_that_keeps_less_is_the_same_training(tiny_model: Tiny) -> None:
    folder = tiny_model("gpt2")  # with dropout
    assert run(training(folder, activation_checkpointing=2)) == run(training(folder))


def test_what_is_kept_can_be_chosen_anew_for_the_same_model(tiny_model: Tiny) -> None:
    model = load_model(tiny_model("llama")).train()
    whole = kept(model)
    acceleration.checkpoint_activations(model, 1)
    assert kept(model) < whole
    acceleration.checkpoint_activations(model, 0)
    assert kept(model) == whole


def test_an_architecture_whose_layers_cannot_be_calculated_again(tiny_model: Tiny) -> None:
    model = load_model(tiny_model("llama"))
    model.model.layers[1] = torch.nn.Identity()
    with pytest.raises(InputError, match=r"recipe.activation_checkpointing: got 2 .*; try 0"):
        acceleration.checkpoint_activations(model, 2)


def test_compile_without_a_compiler(tiny_model: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> Callable[[object], object]:
        def fail(_value: object) -> object:
            raise RuntimeError("\nNo working C++ compiler found in (None,)\nand more")

        return fail

    monkeypatch.setattr(torch, "compile", refused)
    acceleration._without_compiler.cache_clear()
    with pytest.raises(
        InputError, match=r"recipe.compile: got true, .*No working C\+\+ compiler.*; try false"
    ):
        training(tiny_model("llama"), compile=True)
    acceleration._without_compiler.cache_clear()


def test_layers_that_are_no_single_graph(tiny_model: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    unsupported = type("Unsupported", (RuntimeError,), {"__module__": "torch._dynamo.exc"})

    def breaking(*_: object, **__: object) -> torch.Tensor:
        raise unsupported("Data-dependent branching\n  Explanation: ...")

    monkeypatch.setattr(tli.training.loop, "add_gradients", breaking)
    with pytest.raises(
        FamilyError, match=r"recipe.compile: got true with layers of 'llama' \(Data-dependent"
    ):
        run(training(tiny_model("llama")))


_COMPILED = """
import sys, torch
from pathlib import Path
from tests.tli.test_acceleration import run, training
from torch._dynamo.utils import counters
torch.set_num_threads(1)
folder = Path(sys.argv[1])
wanted, got = run(training(folder)), run(training(folder, compile=True))
assert all(abs(a - b) < 1e-5 for a, b in zip([wanted[0], *wanted[1]], [got[0], *got[1]])), (wanted, got)
print("graphs", counters["stats"]["unique_graphs"])
"""


def _in_process(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command, root = [sys.executable, "-c", script, *arguments], Path(__file__).parents[2]
    return subprocess.run(
        command, cwd=root, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.timeout(1200)  # a compiler on a busy machine
def test_compiled_layers_are_one_graph_and_learn_the_same(tiny_model: Tiny) -> None:
    done = _in_process(_COMPILED, str(tiny_model("llama")))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "graphs 2", "the trial of the compiler, and one for every layer"


@pytest.mark.slow
def test_a_machine_without_a_compiler(tiny_model: Tiny, tmp_path: Path) -> None:
    script = "from tli.training.acceleration import _without_compiler; print(_without_compiler('cpu'))"
    done = _in_process(script, CXX=str(tmp_path / "none"), TORCHINDUCTOR_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "a trial of it ended in" in done.stdout


def test_half_a_kernel_is_removed_so_that_it_is_compiled_again(
    tiny_model: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a process that was killed has left in torch's cache; nothing outside of that."""
    model, cache = load_model(tiny_model("llama")), tmp_path / "cache" / "ce"
    cache.mkdir(parents=True)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    for place in (cache / "half.main.so", tmp_path / "other.so"):
        place.write_bytes(b"\x7fELF half")
        with pytest.raises(OSError, match=r"half|other") as loaded:
            ctypes.CDLL(str(place))
        acceleration.handle_compiler_error(RuntimeError(f"ImportError: {loaded.value}"), model)
    assert not (cache / "half.main.so").exists()
    assert (tmp_path / "other.so").exists()


def test_a_micro_batch_that_fits_is_found_once(tiny_model: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch, and so what is learned, stays the same."""
    passed: list[int] = []

    def cramped(model: Any, windows: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        passed.append(len(windows))
        if len(windows) > 1:
            add_gradients(model, windows[:1], *rest, **more)  # what was begun is forgotten
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return add_gradients(model, windows, *rest, **more)

    folder = tiny_model("llama")
    wanted = run(training(folder))
    monkeypatch.setattr(micro_batches, "_found", {})
    monkeypatch.setattr(
        tli.training.loop, "release", lambda: None
    )  # seconds among all that the tests have loaded
    monkeypatch.setattr(tli.training.loop, "add_gradients", cramped)
    got = run(training(folder))
    assert passed[:3] == [4, 2, 1]
    assert set(passed[3:]) == {1}
    assert [got[0], *got[1]] == pytest.approx([wanted[0], *wanted[1]], rel=1e-5)
    passed.clear()
    again = training(folder)
    run(again)
    assert set(passed) == {1}, "found once"
    assert again.evaluated_at_once == 8
    passed.clear()
    as_it_is = training(folder, precision="bf16")
    as_it_is.halves_micro_batch = False
    with pytest.raises(torch.OutOfMemoryError):
        run(as_it_is)
    assert passed == [4]


def test_one_sequence_that_does_not_fit_ends_it(tiny_model: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object, **__: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(micro_batches, "_found", {})
    monkeypatch.setattr(
        tli.training.loop, "release", lambda: None
    )  # seconds among all that the tests have loaded
    monkeypatch.setattr(tli.training.loop, "add_gradients", none)
    with pytest.raises(torch.OutOfMemoryError):
        run(training(tiny_model("llama")))


def test_another_error_is_no_reason_to_halve(tiny_model: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def broken(_model: object, windows: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        calls.append(len(windows))
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(tli.training.loop, "add_gradients", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        run(training(tiny_model("llama")))
    assert calls == [4]
