"""Packed windows: documents in one row are what they are alone, in any family that keeps them apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from tests.tli.registry import tiny
from tli.data.batches import Batches, Tokens, open_tokens
from tli.data.packing import predicted_tokens, windows_at
from tli.data.settings import DataSettings
from tli.errors import InputError
from tli.growth.in_memory import grow, injected_parameters
from tli.models.base import Base, find
from tli.models.loading import load_model
from tli.planning.plan import plan
from tli.training import losses
from tli.training.evaluate import evaluate
from tli.training.loop import Training
from tli.training.losses import add_gradients, token_losses
from tli.training.packed import base_problems, packing_problems, share_of
from tli.training.recipe import Recipe
from tli.training.state import load_latest, save_state

Tiny = Callable[[str], Path]
END = 256
STARTS = np.array([0, 5, 6, 20, 33], dtype=np.uint64)


def packed(rows: int = 4, length: int = 9, vocabulary: int = 256) -> np.ndarray:
    ids = np.random.default_rng(0).integers(0, vocabulary, rows * length)
    return windows_at(ids, [row * length for row in range(rows)], length, STARTS)


# -- windows ----------------------------------------------------------------------------------------------------


def test_places_begin_anew_with_each_document_and_each_window() -> None:
    found = packed()
    assert found.shape == (4, 9, 2)
    assert found[..., 1].tolist() == [
        [0, 1, 2, 3, 4, 0, 0, 1, 2],
        [0, 1, 2, 3, 4, 5, 6, 7, 8],
        [0, 1, 0, 1, 2, 3, 4, 5, 6],
        [0, 1, 2, 3, 4, 5, 0, 1, 2],
    ]
    assert predicted_tokens(found) == 6 + 8 + 7 + 7
    assert predicted_tokens(found[..., 0]) == 4 * 8


def opened(tmp_path: Path, base: Base, packing: str, **values: Any) -> Tokens:
    texts = [f"{number}: " + "x" * (number % 7) for number in range(60)]
    source = tmp_path / "text.jsonl"
    if not source.exists():
        source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    given = {"source": str(source), "heldout_fraction": 0.3, "packing": packing, **values}
    return open_tokens(DataSettings(**given), base, tmp_path / "cache")


def test_documents_start_behind_each_end_of_text(tiny_model: Tiny, tmp_path: Path) -> None:
    base = find(str(tiny_model("llama")))
    tokens, stream = (opened(tmp_path, base, packing) for packing in ("documents", "stream"))
    assert (stream.starts["train"], tokens.digest) == (None, stream.digest)
    for side in ("train", "heldout", "test"):
        ids, starts = getattr(tokens, side), tokens.starts[side]  # type: ignore[index]
        np.testing.assert_array_equal(ids, getattr(stream, side))
        assert starts is not None
        np.testing.assert_array_equal(starts, [0, *np.flatnonzero(ids == END)[:-1] + 1])
    for made in ("heldout_windows", "test_windows"):
        count = {made.replace("windows", "tokens").replace("heldout", "eval"): 32}
        rows, plain = (getattr(each, made)(sequence_length=8, **count) for each in (tokens, stream))
        np.testing.assert_array_equal(rows[..., 0], plain)
        np.testing.assert_array_equal(rows[:, 1:, 1] == 0, plain[:, :-1] == END)
    batches, others = (each.batches(sequence_length=8, batch_tokens=32, seed=1) for each in (tokens, stream))
    np.testing.assert_array_equal(batches[3][..., 0], others[3])
    assert batches.packed
    assert others[3].ndim == 2


def test_a_limit_of_tokens_cuts_the_documents_too(tiny_model: Tiny, tmp_path: Path) -> None:
    base = find(str(tiny_model("llama")))
    tokens = opened(tmp_path, base, "documents", max_tokens=40)
    assert len(tokens.train) == 40
    ends = np.flatnonzero(tokens.train == END) + 1
    np.testing.assert_array_equal(tokens.starts["train"], [0, *ends[ends < 40]])


def test_token_files_whose_starts_were_cut_are_made_again(tiny_model: Tiny, tmp_path: Path) -> None:
    base = find(str(tiny_model("llama")))
    first = opened(tmp_path, base, "documents")
    path = first.folder / "train.starts"
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    opened(tmp_path, base, "documents")
    assert path.read_bytes() == whole


def test_token_files_of_before_there_was_packing_are_found(tmp_path: Path) -> None:
    """Their folder has the name that this very text and tokenizer had then."""
    from tli.data.batches import _cache_key

    (tmp_path / "config.json").write_text('{"model_type": "llama", "vocab_size": 100}')
    (tmp_path / "tokenizer.json").write_text("{}")
    settings = DataSettings(source="owner/name", revision="0" * 40, max_tokens=1000)
    assert _cache_key(settings, Base("base", tmp_path)) == "dfe6893e84d5a089"
    assert _cache_key(replace(settings, packing="documents"), Base("base", tmp_path)) != "dfe6893e84d5a089"


# -- in a model -------------------------------------------------------------------------------------------------

FAMILIES = ["llama", "qwen3", "gemma3_text", "gpt2", "gpt_neox"]


def alone(model: Any, windows: torch.Tensor) -> torch.Tensor:
    """Losses of the documents of packed windows, each given to the model by itself."""
    found = []
    for row in windows:
        starts = [*torch.nonzero(row[:, 1] == 0)[:, 0].tolist(), len(row)]
        for start, stop in pairwise(starts):
            ids = row[start:stop, 0]
            if len(ids) > 1:
                found.append(token_losses(model, ids[None]))
    return torch.cat(found)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_packed_documents_are_what_they_are_alone(
    model_type: str, attention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny(model_type).eval()
    model.set_attn_implementation(attention)
    windows = torch.from_numpy(packed())
    with torch.no_grad():
        wanted, found = alone(model, windows), token_losses(model, windows)
        assert not torch.allclose(
            found[found != 0], token_losses(model, windows[..., 0])[found != 0], atol=1e-3
        )
    counted = windows[:, 1:, 1].flatten() != 0
    assert bool((found[~counted] == 0).all())
    torch.testing.assert_close(found[counted], wanted, rtol=0, atol=2e-6)
    assert evaluate(model, packed()).loss == pytest.approx(float(wanted.mean()), abs=1e-6)
    assert evaluate(model, packed(), at_once=8).tokens == len(wanted)
    gradients = []
    for small in (losses.SMALL, 0):  # all logits at once, and in pieces
        monkeypatch.setattr(losses, "SMALL", small)
        model.zero_grad()
        total = sum(add_gradients(model, part, "fp32", share_of(part, windows)) for part in windows.split(3))
        assert float(total) == pytest.approx(float(wanted.mean()), abs=1e-6)
        gradients.append([weight.grad.clone() for weight in model.parameters() if weight.grad is not None])
    model.zero_grad()
    alone(model, windows).mean().backward()
    for name, weight in model.named_parameters():
        for each in gradients:
            if weight.grad is not None:
                found_there = each.pop(0)
                torch.testing.assert_close(found_there, weight.grad, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_families_that_keep_documents_apart(model_type: str) -> None:
    assert packing_problems(tiny(model_type), 48) == []


@pytest.mark.parametrize("model_type", ["bloom", "opt", "mamba", "gpt_oss", "qwen3_next"])
def test_a_family_that_mixes_documents_is_refused(model_type: str, tmp_path: Path) -> None:
    """Absolute positions that do not start anew, distances, states, and a mask made without positions."""
    model = tiny(model_type)
    (problem,) = packing_problems(model, 48)
    assert problem.where == "data.packing"
    assert repr(model_type) in problem.got
    assert problem.remedy == "stream"
    with pytest.raises(InputError, match="windows: got 'documents'"):
        evaluate(model, packed())
    model.config.save_pretrained(tmp_path)
    (same,) = base_problems(cast("Base", SimpleNamespace(folder=tmp_path)), 48)  # before weights are read
    assert same.got == problem.got


@pytest.mark.parametrize("name", ["attention_mask", "use_cache"])
def test_packing_with_a_mask_is_refused(name: str) -> None:
    model, windows = tiny("llama"), torch.from_numpy(packed())
    for take in (token_losses, add_gradients):
        with pytest.raises(InputError, match=f"^{name}: got given with packed windows"):
            take(model, windows, **{name: torch.ones(4, 8)})


# -- in training ------------------------------------------------------------------------------------------------


def training(folder: Path, **values: Any) -> Training:
    injection = plan(4, 2)
    model = grow(load_model(folder), injection)
    text = np.random.default_rng(3).integers(0, 8, 105).astype(np.uint16)
    recipe = Recipe(tokens=6 * 32, batch_tokens=32, learning_rate=1e-2, **values)
    batches = Batches(text, 8, 4, 0, STARTS)
    injected = injected_parameters(model, injection)
    return Training(model, recipe, batches, packed(vocabulary=8), injected=injected)


def test_training_on_documents_resumes_and_is_the_same_in_micro_batches(
    tiny_model: Tiny, tmp_path: Path
) -> None:
    folder = tiny_model("llama")
    straight = training(folder)
    whole = [progress.eval_loss for progress in straight.run([0, 3, 6])]
    first = training(folder)
    list(first.run([0, 3]))
    save_state(first, tmp_path)
    second = training(folder)
    assert load_latest(second, tmp_path)
    assert [progress.eval_loss for progress in second.run([6])] == whole[2:]
    halves = [progress.eval_loss for progress in training(folder, micro_batch_tokens=8).run([0, 3, 6])]
    assert halves == pytest.approx(whole, rel=1e-5)


def test_training_refuses_what_does_not_fit_documents(tiny_model: Tiny) -> None:
    text, recipe = np.arange(105) % 8, Recipe(tokens=64, batch_tokens=32)
    with pytest.raises(InputError) as caught:
        Training(tiny("bloom"), recipe, Batches(text, 8, 4, 0, STARTS), packed()[..., 0])
    assert [problem.where for problem in caught.value.problems] == ["heldout", "data.packing"]
