from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tli.errors import InputError
from tli.models.loading import load_model
from tli.training.evaluate import Evaluation, evaluate
from tli.training.losses import token_losses

Tiny = Callable[[str], Path]


def windows(count: int = 7, length: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 257, (count, length + 1))


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_the_loss_is_that_of_plain_transformers(tiny_model: Tiny, model_type: str) -> None:
    model = load_model(tiny_model(model_type))
    rows = torch.from_numpy(windows())
    with torch.no_grad():
        logits = model(input_ids=rows[:, :-1]).logits.double()
    picked = logits.log_softmax(-1).gather(-1, rows[:, 1:, None])
    found = evaluate(model, windows())
    assert found.loss == pytest.approx(-float(picked.mean()), rel=1e-6)
    assert found.tokens == 7 * 16
    with torch.no_grad():
        # transformers shifts the labels itself.
        assert found.loss == pytest.approx(float(model(input_ids=rows, labels=rows).loss), rel=1e-6)


def test_the_loss_does_not_depend_on_how_many_windows_go_at_once(tiny_model: Tiny) -> None:
    model = load_model(tiny_model("llama"))
    whole = evaluate(model, windows()).loss
    for at_once in (1, 48):
        assert evaluate(model, windows(), at_once=at_once).loss == pytest.approx(whole, rel=1e-6)


def test_evaluation_leaves_no_trace(tiny_model: Tiny) -> None:
    """No dropout in it, no gradients after it, the mode as before, and no number drawn."""
    model = load_model(tiny_model("gpt2"))
    quiet = evaluate(model, windows()).loss
    model.train()
    before = torch.get_rng_state()
    assert evaluate(model, windows()).loss == quiet
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in model.parameters())
    model.eval()
    evaluate(model, windows())
    assert not model.training


def test_an_evaluation_is_fp32_whatever_goes_on_around_it(tiny_model: Tiny) -> None:
    model = load_model(tiny_model("llama"))
    full = evaluate(model, windows()).loss
    with torch.autocast("cpu", torch.bfloat16):
        assert evaluate(model, windows()).loss == full
    rows = torch.from_numpy(windows())
    with torch.no_grad():
        half = token_losses(model, rows, "bf16")
    assert half.dtype == torch.float32
    assert 0 < abs(float(half.mean()) - full) < 0.05


def test_readings_of_a_loss() -> None:
    found = Evaluation(loss=2 * math.log(2), tokens=10)
    assert found.perplexity == pytest.approx(4)
    assert found.bits_per_byte is None  # without the bytes of its tokens; see test_mixture.py


@pytest.mark.parametrize(
    "given",
    [
        np.zeros((4,), int),
        np.zeros((0, 9), int),
        np.zeros((2, 1), int),
        np.zeros((2, 9)),
        np.full((2, 9), 10_000),
        np.full((2, 9), -1),
    ],
)
def test_windows_that_are_none_of_this_model_are_refused(tiny_model: Tiny, given: np.ndarray) -> None:
    with pytest.raises(InputError) as caught:
        evaluate(load_model(tiny_model("llama")), given)
    assert [problem.where for problem in caught.value.problems] == ["windows"]


def test_windows_may_be_a_tensor(tiny_model: Tiny) -> None:
    ids, model = np.arange(34).reshape(2, 17), load_model(tiny_model("llama"))
    assert evaluate(model, torch.from_numpy(ids)) == evaluate(model, ids)
