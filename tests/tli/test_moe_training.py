"""Mixtures under the training loop: stopped and resumed, written, and proven to be what training keeps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tli.architectures.mixtures import MIXTURES
from tli.data.batches import Batches
from tli.growth.in_memory import grow, injected_parameters
from tli.growth.verify import verify_folder
from tli.models.base import find
from tli.models.lineage import lineage
from tli.models.loading import load_model
from tli.planning.experts import Experts
from tli.planning.plan import plan
from tli.training.evaluate import evaluate
from tli.training.export import write_model
from tli.training.loop import Training
from tli.training.recipe import Recipe
from tli.training.state import load_latest, save_state

Save = Callable[..., Path]
PLAN = plan(4, 2, experts=Experts(4, 2, granularity=2))
HELDOUT = np.random.default_rng(7).integers(0, 8, (4, 9))


def training(folder: Path, **values: Any) -> Training:
    model = grow(load_model(folder), PLAN)
    text = np.random.default_rng(3).integers(0, 8, 105).astype(np.uint16)
    recipe = Recipe(
        **{"tokens": 192, "batch_tokens": 32, "learning_rate": 1e-2, "weight_decay": 0.1, **values}
    )
    injected = injected_parameters(model, PLAN)
    return Training(model, recipe, Batches(text, 8, 4, 0), HELDOUT, injected=injected)


@pytest.fixture(scope="module")
def folder(save_model: Save, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the architecture whose mixture has a shared expert without neurons."""
    return save_model(tmp_path_factory.mktemp("dense") / "qwen2", "qwen2", tie_word_embeddings=True)


@pytest.mark.parametrize(
    "values", [{}, {"injected_learning_rate": 1e-3}, {"precision": "bf16", "micro_batch_tokens": 16}]
)
def test_resumed_training_is_the_same_to_the_bit(
    folder: Path, tmp_path: Path, values: dict[str, Any]
) -> None:
    straight = training(folder, **values)
    expected = [(point.step, point.eval_loss) for point in straight.run([0, 3, 6])]
    first = training(folder, **values)
    list(first.run([3]))
    save_state(first, tmp_path)
    second = training(folder, **values)
    assert load_latest(second, tmp_path)
    assert [(point.step, point.eval_loss) for point in second.run([6])] == expected[2:]
    weights = dict(straight.model.named_parameters())
    for name, parameter in second.model.named_parameters():
        assert torch.equal(parameter, weights[name]), name
    assert expected[2][1] < expected[0][1]


def test_what_is_injected_alone_can_be_trained(folder: Path) -> None:
    made = training(folder, train="injected")
    before = {name: parameter.detach().clone() for name, parameter in made.model.named_parameters()}
    points = list(made.run([0, 6]))
    changed = {
        name for name, parameter in made.model.named_parameters() if not torch.equal(parameter, before[name])
    }
    injected = injected_parameters(made.model, PLAN)
    assert changed <= injected
    # Of the shared expert nothing can move: it has no neurons, so its gate has no gradient.
    assert injected - changed == {name for name in injected if "shared_expert" in name}
    assert points[1].eval_loss < points[0].eval_loss


@pytest.mark.parametrize("model_type", MIXTURES)
def test_a_trained_mixture_is_written_and_proven(save_model: Save, tmp_path: Path, model_type: str) -> None:
    """Also where its base leaves to the class what transformers writes out."""
    plain = {"attention_bias": False, "mlp_bias": False} if model_type == "llama" else {}
    base = find(str(save_model(tmp_path / "base", model_type, **plain)))
    config = {key: value for key, value in base.config.items() if key not in ("rope_parameters", "head_dim")}
    kept = {"head_dim": 8} if model_type == "qwen3" else {}
    (base.folder / "config.json").write_text(json.dumps(config | kept))
    made = training(base.folder)
    (point,) = made.run([6])
    base = find(str(base.folder))
    facts = lineage(base, PLAN, seed=0, extra={"training": {"steps": 6}})
    write_model(made.model, tmp_path / "out", beside=base.folder, lineage=facts)
    assert evaluate(load_model(tmp_path / "out"), HELDOUT).loss == point.eval_loss
    report = verify_folder(tmp_path / "out", base)
    assert [check.detail for check in report.checks if not check.ok] == []
    assert {"experts", "tensors", "generation"} <= {check.name for check in report.checks}
