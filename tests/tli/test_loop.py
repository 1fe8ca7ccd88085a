from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tli.data.batches import Batches
from tli.errors import DivergedError, InputError
from tli.growth.in_memory import grow, injected_parameters
from tli.models.loading import load_model
from tli.planning.plan import plan
from tli.training.evaluate import evaluate
from tli.training.loop import Progress, Training
from tli.training.recipe import Recipe

Tiny = Callable[[str], Path]
PLAN = plan(4, 2, init="copy")  # every gradient is there from the first step on
HELDOUT = np.random.default_rng(7).integers(0, 8, (4, 9))


def recipe(steps: int = 6, **values: object) -> Recipe:
    made = Recipe(tokens=steps * 32, batch_tokens=32, learning_rate=1e-2)
    return replace(made, **values)  # type: ignore[arg-type]


def training(folder: Path, how: Recipe, *, grown: bool = True, seed: int = 0, **changes: Any) -> Training:
    """A small model over text of 13 windows of 8 tokens, so that 4 batches of 4 rows cross an epoch's end."""
    model = load_model(folder)
    if grown:
        model = grow(model, PLAN, seed=seed)
    text = np.random.default_rng(3).integers(0, 8, 105).astype(np.uint16)
    settings: dict[str, Any] = {
        "injected": injected_parameters(model, PLAN) if grown else frozenset(),
        "seed": seed,
        **changes,
    }
    return Training(model, how, Batches(text, 8, how.batch_tokens // 8, seed), HELDOUT, **settings)


def weights(made: Training) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in made.model.named_parameters()}


def run(made: Training, *reports: int) -> list[Progress]:
    return list(made.run(reports))


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_a_model_learns(tiny_model: Tiny, model_type: str) -> None:
    made = training(tiny_model(model_type), recipe(20))
    progress = run(made, 0, 10, 20)
    assert progress[0].eval_loss > 3
    assert progress[0].train_loss == ()
    assert progress[-1].eval_loss < progress[0].eval_loss - 1
    assert [(p.step, p.tokens) for p in progress] == [(0, 0), (10, 320), (20, 640)]
    assert [step for p in progress for step, _ in p.train_loss] == list(range(1, 21))
    assert 0 == progress[0].seconds < progress[1].seconds < progress[2].seconds
    assert progress[-1].eval_loss == evaluate(made.model, HELDOUT).loss


def test_same_seed_same_bytes_and_reports_change_nothing(tiny_model: Tiny) -> None:
    """gpt2 has dropout, so this is about the random numbers as well."""
    often = training(tiny_model("gpt2"), recipe(), grown=False)
    losses = [loss for p in run(often, *range(7)) for _, loss in p.train_loss]
    once = training(tiny_model("gpt2"), recipe(), grown=False)
    assert [loss for _, loss in run(once, 6)[0].train_loss] == losses
    for name, value in weights(often).items():
        assert torch.equal(value, weights(once)[name]), name
    other = training(tiny_model("gpt2"), recipe(), grown=False, seed=1)
    assert [loss for _, loss in run(other, 6)[0].train_loss] != losses


@pytest.mark.parametrize(("micro", "most"), [(None, 32), (16, 16), (8, 8)])
def test_measuring_takes_no_more_at_once_than_a_training_pass(
    tiny_model: Tiny, micro: int | None, most: int
) -> None:
    """Else a device whose memory is too small for that would be no better off with a halved micro batch."""
    made = training(tiny_model("llama"), recipe(1, micro_batch_tokens=micro))
    whole = training(tiny_model("llama"), recipe(1))
    passed: list[int] = []
    made.model.register_forward_pre_hook(
        lambda _module, _given, named: passed.append(named["input_ids"].numel()), with_kwargs=True
    )
    (at_first,) = run(made, 0)
    assert max(passed) == most
    assert sum(passed) == HELDOUT.shape[0] * 8
    assert at_first.eval_loss == pytest.approx(run(whole, 0)[0].eval_loss, rel=1e-6)


def test_to_stop_is_to_ask_no_more(tiny_model: Tiny) -> None:
    made = training(tiny_model("llama"), recipe())
    progress = made.run([2, 4, 6])
    next(progress)
    progress.close()
    assert made.step == 2
    assert [p.step for p in made.run([2, 4, 4])] == [4]


def test_the_first_steps_are_those_of_adamw_by_hand(tiny_model: Tiny) -> None:
    """Rate by the schedule, decay of matrices alone, clipping by the global norm."""
    how = recipe(4, warmup=0.5, weight_decay=0.5, clip=0.25, learning_rate=3e-3)
    made = training(tiny_model("llama"), how, grown=False)
    first = weights(made)
    model = load_model(tiny_model("llama")).train()
    moments: dict[str, list[torch.Tensor]] = {n: [torch.zeros_like(w)] * 2 for n, w in first.items()}
    expected = dict(first)
    for step, rate in enumerate((1.5e-3, 3e-3)):
        batch = torch.from_numpy(made.batches[step])
        model.load_state_dict(expected, strict=False)
        model.zero_grad()
        logits = model(input_ids=batch[:, :-1]).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()).backward()
        grads = {name: parameter.grad for name, parameter in model.named_parameters()}
        norm = math.sqrt(sum(float(grad.double().pow(2).sum()) for grad in grads.values()))  # type: ignore[union-attr]
        assert norm > 0.25, "otherwise nothing is clipped"
        for name, weight in expected.items():
            grad = grads[name] * (0.25 / norm)
            mean = 0.9 * moments[name][0] + 0.1 * grad
            square = 0.95 * moments[name][1] + 0.05 * grad**2
            moments[name] = [mean, square]
            count = step + 1
            move = (mean / (1 - 0.9**count)) / ((square / (1 - 0.95**count)).sqrt() + 1e-8)
            decay = 0.5 if weight.ndim > 1 else 0.0
            expected[name] = weight * (1 - rate * decay) - rate * move
    run(made, 2)
    for name, value in weights(made).items():
        torch.testing.assert_close(
            value, expected[name], rtol=1e-3, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}"
        )
        assert not torch.equal(value, first[name])


def test_micro_batches_are_the_batch(tiny_model: Tiny) -> None:
    whole, parts = (training(tiny_model("llama"), recipe(3, micro_batch_tokens=micro)) for micro in (None, 8))
    calls = []
    parts.model.register_forward_hook(lambda *given: calls.append(len(given[2].logits)))
    losses = [[loss for _, loss in run(made, 3)[0].train_loss] for made in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert calls[:12] == [1] * 12  # 3 steps of 4 parts of one row
    for name, value in weights(whole).items():
        torch.testing.assert_close(value, weights(parts)[name], rtol=1e-3, atol=1e-4)


def test_only_injected_layers_move_where_asked(tiny_model: Tiny) -> None:
    made = training(tiny_model("llama"), recipe(3, train="injected"))
    before = weights(made)
    progress = run(made, 0, 3)
    moved = {name for name, value in weights(made).items() if not torch.equal(value, before[name])}
    assert moved == injected_parameters(made.model, PLAN)
    assert progress[1].eval_loss < progress[0].eval_loss
    assert all(made.model.get_parameter(name).grad is None for name in before)


def test_injected_layers_have_their_own_rate(tiny_model: Tiny) -> None:
    """AdamW's first step moves every weight by about its rate, whatever the gradient."""
    how = recipe(1, warmup=0.0, learning_rate=1e-4, injected_learning_rate=1e-2, clip=None)
    made = training(tiny_model("llama"), how)
    before, injected = weights(made), injected_parameters(made.model, PLAN)
    run(made, 1)
    for name, value in weights(made).items():
        largest = float((value - before[name]).abs().max())
        assert largest == pytest.approx(1e-2 if name in injected else 1e-4, rel=0.05), name


def test_injected_layers_are_asked_for_where_only_they_are_trained(tiny_model: Tiny) -> None:
    with pytest.raises(InputError, match=r"recipe.train: got 'injected'; expected a model with injected"):
        training(tiny_model("llama"), recipe(train="injected"), grown=False)


def test_held_out_loss_is_measured_in_fp32_however_a_model_is_trained(tiny_model: Tiny) -> None:
    made = training(tiny_model("llama"), recipe(3, precision="bf16"))
    full = training(tiny_model("llama"), recipe(3))
    start, end = run(made, 0, 3)
    start_of_full, end_of_full = run(full, 0, 3)
    assert start.eval_loss == start_of_full.eval_loss
    assert end.eval_loss == evaluate(made.model, HELDOUT).loss
    assert end.eval_loss != end_of_full.eval_loss, "it was not trained in bf16 at all"
    assert end.eval_loss == pytest.approx(end_of_full.eval_loss, abs=0.1)
    assert {parameter.dtype for parameter in made.model.parameters()} == {torch.float32}


def test_what_diverges_is_told_of_and_weights_stay_finite(tiny_model: Tiny) -> None:
    made = training(tiny_model("llama"), recipe(4))
    run(made, 1)
    with torch.no_grad():
        made.model.get_parameter("model.norm.weight").fill_(1e38)
    before = weights(made)
    with pytest.raises(DivergedError, match="at step 2"):
        run(made, 4)
    assert made.step == 1
    for name, value in weights(made).items():
        assert torch.equal(value, before[name]), name
    with torch.no_grad():
        made.model.get_parameter("model.norm.weight").fill_(math.nan)
    fresh = training(tiny_model("llama"), recipe())
    fresh.model.load_state_dict(made.model.state_dict())
    with pytest.raises(DivergedError, match="held-out loss is nan at step 0"):
        run(fresh, 0)


def test_a_recipe_that_does_not_fit_is_refused_at_once(tiny_model: Tiny) -> None:
    model, batches = load_model(tiny_model("llama")), Batches(np.arange(105) % 8, 8, 4, 0)
    with pytest.raises(InputError) as caught:
        Training(model, recipe(learning_rate=-1.0, batch_tokens=12, train="injected"), batches, HELDOUT)
    assert [problem.where for problem in caught.value.problems] == [
        "recipe.learning_rate",
        "recipe.batch_tokens",
        "recipe.train",
    ]
    with pytest.raises(InputError) as caught:
        Training(model, recipe(batch_tokens=16), batches, HELDOUT)
    assert caught.value.problems[0].remedy == "32"
