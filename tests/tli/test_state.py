from __future__ import annotations

import json
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
from safetensors.torch import load_file

from tli.data.batches import Batches
from tli.growth.in_memory import grow, injected_parameters
from tli.models.loading import load_model
from tli.planning.plan import plan
from tli.training.loop import Training
from tli.training.recipe import Recipe
from tli.training.state import copy_state, load_latest, save_state, write_state

Tiny = Callable[[str], Path]
PLAN = plan(4, 2)


def training(folder: Path, device: str = "cpu", **values: Any) -> Training:
    model = grow(load_model(folder, device), PLAN)
    text = np.random.default_rng(3).integers(0, 8, 105).astype(np.uint16)
    heldout = np.random.default_rng(7).integers(0, 8, (4, 9))
    how = replace(Recipe(tokens=6 * 32, batch_tokens=32, learning_rate=1e-2, weight_decay=0.1), **values)
    return Training(model, how, Batches(text, 8, 4, 0), heldout, injected=injected_parameters(model, PLAN))


def run(made: Training, *reports: int) -> list[tuple[int, float, tuple[tuple[int, float], ...]]]:
    return [(p.step, p.eval_loss, p.train_loss) for p in made.run(reports)]


def content(made: Training) -> dict[str, torch.Tensor]:
    """All that must be the same: weights, and the optimizer's moments and counts."""
    found = {}
    for name, parameter in made.model.named_parameters():
        found[name] = parameter.detach()
        for key, value in made.optimizer.state.get(parameter, {}).items():
            found[f"{name}: {key}"] = value
    return found


def same(one: Training, other: Training) -> None:
    first, second = content(one), content(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.mark.parametrize(
    ("model_type", "values"),
    [
        ("llama", {}),  # tied weights
        ("mistral", {}),  # untied
        ("gpt2", {}),  # dropout
        ("gpt2", {"train": "injected"}),  # frozen weights
        ("gpt2", {"precision": "bf16", "micro_batch_tokens": 16}),
        ("llama", {"schedule": "cosine", "injected_learning_rate": 1e-3, "clip": None}),
        ("llama", {"schedule": "wsd", "rates": {"embeddings": 0.0, "norms": 2.0}, "warmup_tokens": 64}),
    ],
)
def test_resumed_training_is_the_same_to_the_bit(
    tiny_model: Tiny, tmp_path: Path, model_type: str, values: dict[str, Any]
) -> None:
    straight = training(tiny_model(model_type), **values)
    whole = run(straight, 0, 3, 6)
    first = training(tiny_model(model_type), **values)
    assert run(first, 0, 3) == whole[:2]
    save_state(first, tmp_path)
    torch.manual_seed(99)  # a new process has drawn other numbers
    second = training(tiny_model(model_type), **values)
    assert load_latest(second, tmp_path)
    assert (second.step, second.seconds) == (3, first.seconds)
    assert run(second, 0, 3, 6) == whole[2:]
    same(straight, second)


def test_eight_bit_moments_are_taken_up_to_the_bit(save_model: Callable[..., Path], tmp_path: Path) -> None:
    """In codes and scales; small tensors keep theirs in float32."""
    pytest.importorskip("torchao.optim")
    folder = save_model(tmp_path / "wide", "llama", hidden_size=64, intermediate_size=128)
    values = {"optimizer": "adamw8bit", "train": "injected"}
    straight = training(folder, **values)
    whole = run(straight, 0, 3, 6)
    assert whole[-1][1] < whole[0][1]
    first = training(folder, **values)
    run(first, 0, 3)
    path = save_state(first, tmp_path)
    names = set(load_file(path))
    matrix = "model.layers.2.mlp.up_proj.weight"
    assert {f"optimizer.exp_avg.codes.{matrix}", f"optimizer.exp_avg_sq.scale.{matrix}"} <= names
    assert "optimizer.exp_avg.model.layers.2.input_layernorm.weight" in names
    second = training(folder, **values)
    assert load_latest(second, tmp_path)
    assert run(second, 6) == whole[2:]
    assert not load_latest(training(folder), tmp_path), "a state of other moments"


def test_a_state_with_frozen_weights_in_it_is_taken_up(tiny_model: Tiny, tmp_path: Path) -> None:
    """As an earlier version wrote them."""
    first = training(tiny_model("llama"), train="injected")
    run(first, 0, 3)
    state = copy_state(first)
    frozen = {
        f"model.{name}": each.detach().clone()
        for name, each in first.model.named_parameters()
        if not each.requires_grad
    }
    write_state(replace(state, tensors={**state.tensors, **frozen}), tmp_path)
    second = training(tiny_model("llama"), train="injected")
    assert load_latest(second, tmp_path)
    assert run(second, 6) == run(first, 6)


@pytest.mark.gpu
def test_resumed_training_on_a_gpu_draws_the_same_dropout(tiny_model: Tiny, tmp_path: Path) -> None:
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    straight = training(tiny_model("gpt2"), "cuda")
    whole = run(straight, 3, 6)
    first = training(tiny_model("gpt2"), "cuda")
    run(first, 3)
    save_state(first, tmp_path)
    torch.cuda.manual_seed(99)
    second = training(tiny_model("gpt2"), "cuda")
    torch.cuda.manual_seed(98)
    assert load_latest(second, tmp_path)
    resumed = run(second, 6)
    assert [loss for _, loss in resumed[0][2]] == pytest.approx([loss for _, loss in whole[1][2]], rel=1e-6)


def test_a_state_from_before_the_first_step(tiny_model: Tiny, tmp_path: Path) -> None:
    first = training(tiny_model("llama"))
    save_state(first, tmp_path)
    second = training(tiny_model("llama"))
    run(second, 2)
    assert load_latest(second, tmp_path)  # over a training that has moments already
    assert second.step == 0
    assert run(second, 0, 3) == run(first, 0, 3)
    same(first, second)


def test_no_state(tiny_model: Tiny, tmp_path: Path) -> None:
    made = training(tiny_model("llama"))
    (tmp_path / "step-1.safetensors").write_text("not ours")
    assert not load_latest(made, tmp_path)
    assert not load_latest(made, tmp_path / "not" / "there")


def test_two_states_are_kept(tiny_model: Tiny, tmp_path: Path) -> None:
    made = training(tiny_model("llama"))
    paths = []
    for step in (1, 2, 3):
        run(made, step)
        paths.append(save_state(made, tmp_path))
    assert sorted(tmp_path.iterdir()) == paths[1:]
    assert {save_state(made, tmp_path) for _ in range(8)} == {paths[2]}  # the same content has the same name


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    """One bit of a weight: safetensors would load it."""
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [cut, empty, flip])
def test_a_harmed_state_is_passed_over_for_the_one_before(
    tiny_model: Tiny, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    straight = training(tiny_model("gpt2"))
    whole = run(straight, 2, 4, 6)
    first = training(tiny_model("gpt2"))
    paths = []
    for step in (2, 4):
        run(first, step)
        paths.append(save_state(first, tmp_path))
    harm(paths[1])
    second = training(tiny_model("gpt2"))
    assert load_latest(second, tmp_path)
    assert second.step == 2
    assert run(second, 2, 4, 6) == whole[1:]
    same(straight, second)
    harm(paths[0])
    untouched = training(tiny_model("gpt2"))
    assert not load_latest(untouched, tmp_path)
    same(untouched, training(tiny_model("gpt2")))


def test_a_state_that_is_cut_or_changed_in_any_kilobyte_is_seen(tiny_model: Tiny, tmp_path: Path) -> None:
    first = training(tiny_model("llama"))
    run(first, 2)
    path = save_state(first, tmp_path)
    whole = path.read_bytes()
    untouched = training(tiny_model("llama"))
    for place in range(0, len(whole), 1024):
        if place % 8192 == 0:  # a state that is cut is of another size, wherever it is cut
            path.write_bytes(whole[:place])
            assert not load_latest(untouched, tmp_path), f"cut at {place}"
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place // 1024 % 8]) + whole[place + 1 :])
        assert not load_latest(untouched, tmp_path), f"a bit of byte {place}"
    same(untouched, training(tiny_model("llama")))
    path.write_bytes(whole)
    assert load_latest(untouched, tmp_path)
    same(untouched, first)


def test_the_state_of_another_model_overwrites_nothing(tiny_model: Tiny, tmp_path: Path) -> None:
    save_state(training(tiny_model("gpt2")), tmp_path)
    made = training(tiny_model("llama"))
    assert not load_latest(made, tmp_path)
    same(made, training(tiny_model("llama")))


def test_what_a_killed_process_left_is_removed(tiny_model: Tiny, tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = tmp_path / f".step-00000001-0123456789abcdef.safetensors.tmp-{dead.pid}"
    alive = tmp_path / f".step-00000001-0123456789abcdef.safetensors.tmp-{os.getppid()}"
    for path in (left, alive):
        path.write_bytes(b"half")
    save_state(training(tiny_model("llama")), tmp_path)
    assert not left.exists()
    assert alive.exists()


def test_a_state_is_its_owners_alone(tiny_model: Tiny, tmp_path: Path) -> None:
    dead = training(tiny_model("llama"))
    run(dead, 4)
    theirs = save_state(dead, tmp_path, "dead/0/a")
    ours = training(tiny_model("llama"))
    assert not load_latest(ours, tmp_path, "new/0/a")
    assert not load_latest(ours, tmp_path)
    same(ours, training(tiny_model("llama")))
    # Renamed to look like ours: it says itself whose it is.
    run(ours, 2)
    kept = [save_state(ours, tmp_path, "new/0/a") for _ in range(3)][-1]
    disguised = kept.with_name(theirs.name.replace(theirs.name[14:22], kept.name[14:22]))
    theirs.rename(disguised)
    again = training(tiny_model("llama"))
    assert load_latest(again, tmp_path, "new/0/a")
    assert again.step == 2
    disguised.rename(theirs)
    assert save_state(ours, tmp_path, "new/0/a").exists()
    assert theirs.exists(), "what is dropped is the owner's own"
    assert load_latest(again, tmp_path, "dead/0/a")
    assert again.step == 4


def test_a_state_that_does_not_fit_overwrites_nothing(tiny_model: Tiny, tmp_path: Path) -> None:
    """By its digest it is whole; what is in it is another model's, or no training's."""
    folder = tiny_model("llama")
    made = training(folder)
    run(made, 2)
    state = copy_state(made)
    name = next(name for name in state.tensors if name.startswith("model."))
    last = list(state.tensors)[-1]
    progress = json.loads(state.progress)
    odd: list[dict[str, Any]] = [
        {"tensors": {**state.tensors, last: state.tensors[last][:1].clone()}},
        {"tensors": {**state.tensors, name: state.tensors[name].to(torch.float64)}},
        {"tensors": {**state.tensors, "more": torch.zeros(1)}},
        {"tensors": {key: value for key, value in state.tensors.items() if key != name}},
        {"tensors": {**state.tensors, "rng": torch.full_like(state.tensors["rng"], 255)}},
        *({"progress": json.dumps({**progress, **more})} for more in (
            {"step": "2"}, {"step": 3}, {"seconds": None}, {"measured": -1}, {"unreported": [[1]]}, {"more": 1}
        )),
        {"progress": "[" * 5000},
    ]  # fmt: skip
    for number, change in enumerate(odd):
        place = tmp_path / str(number)
        place.mkdir()
        write_state(replace(state, **change), place)
        fresh = training(folder)
        assert not load_latest(fresh, place), change.keys()
        same(fresh, training(folder))
        assert fresh.step == 0
