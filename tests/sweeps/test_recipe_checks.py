"""How trials are trained, against the base and what is installed; and studies of before there were these settings."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sweeps.checks.preflight import check
from sweeps.checks.recipe import recipe_problems
from sweeps.driver.schedule.controls import control_settings
from sweeps.driver.service import run
from sweeps.errors import Problem, SpecError
from sweeps.folders import Folders
from sweeps.records import Role, State
from sweeps.results.export import export
from sweeps.spec import Spec, load_spec
from sweeps.spec.differences import difference
from tests.sweeps.conftest import WriteSpec
from tli.data.batches import open_tokens
from tli.models.base import find
from tli.models.loading import load_model
from tli.training.evaluate import evaluate

Tiny = Callable[[str], Path]
LATER = ("rates", "optimizer", "warmup_tokens", "decay", "activation_checkpointing", "compile")


def problems(path: Path, *overrides: str) -> list[Problem]:
    spec = load_spec(path, overrides=overrides)
    return list(recipe_problems(spec, find(spec.base.model)))


def test_a_study_of_before_these_settings_is_the_same_sweep(write_spec: WriteSpec) -> None:
    spec = load_spec(write_spec())
    kept: dict[str, Any] = spec.to_json()
    for name in LATER:
        del kept["trial"]["recipe"][name]
    del kept["data"]["packing"]
    kept["trial"]["recipe"]["injected_learning_rate"] = 2e-3
    before = Spec.from_json(kept)
    now = load_spec(write_spec(), overrides=["trial.recipe.injected_learning_rate=2e-3"])
    assert before.hash == now.hash
    assert difference(before, now) == []
    other = load_spec(write_spec(), overrides=["trial.recipe.rates.injected=2.0", "data.packing=documents"])
    assert len(difference(spec, other)) == 2


def test_rates_can_be_searched(write_spec: WriteSpec) -> None:
    spec = load_spec(write_spec(), overrides={"search.recipe.rates.injected": {"log": [0.5, 8.0]}})
    assert spec.settings_for({"recipe.rates.injected": 4.0}).to_recipe().rates.injected == 4.0
    assert list(recipe_problems(spec, find(spec.base.model))) == []


def test_routers_are_there_where_experts_are_grown(write_spec: WriteSpec) -> None:
    path = write_spec()
    (problem,) = problems(path, "trial.recipe.rates.router=0.5")
    assert problem.where == "--set trial.recipe.rates.router=0.5"
    assert problems(path, "trial.recipe.rates.router=0.5", "trial.injection.experts.count=4") == []
    methods = "search.injection.method={choice: [tli, moe]}"
    assert problems(path, "trial.recipe.rates.router=0.5", methods) == []


def test_eight_bit_moments_are_refused_where_they_are_not_installed(
    write_spec: WriteSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, searched = write_spec(), "search.recipe.optimizer={choice: [adamw, adamw8bit]}"
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    (problem,) = problems(path, "trial.recipe.optimizer=adamw8bit")
    assert "trial.recipe.optimizer" in problem.where
    assert "tli-sweeps[adamw8bit]" in problem.remedy
    (problem,) = problems(path, searched)
    assert problem.where.endswith("search.recipe.optimizer.choice[1]")
    assert problems(path) == []


def test_packing_is_refused_before_anything_starts_where_the_model_mixes_documents(
    write_spec: WriteSpec, tiny_model: Tiny
) -> None:
    path = write_spec()
    assert problems(path, "data.packing=documents") == []
    overrides = [f"base.model={tiny_model('bloom')}", "data.packing=documents", "trial.recipe.rates.router=2"]
    spec = load_spec(path, overrides=overrides)
    with pytest.raises(SpecError) as caught:
        check(spec)
    found = {each.where.split()[-1].removesuffix("=documents"): each for each in caught.value.problems}
    assert "'bloom' mixes" in found["data.packing"].got
    assert len(found) == 2
    assert not spec.root.exists()


def test_the_control_trains_what_was_frozen_for_the_injected_layers() -> None:
    baseline = {
        "injection": {"method": "tli"},
        "recipe": {"train": "injected", "rates": {"original": 0.0, "norms": 0.5}},
    }
    recipe = control_settings(baseline)["recipe"]
    assert (recipe["train"], recipe["rates"]) == ("all", {"original": 1.0, "norms": 0.5})
    assert control_settings({"injection": {}, "recipe": {}})["recipe"] == {"train": "all"}


@pytest.mark.slow
def test_a_whole_sweep_of_documents_at_rates_of_groups(
    write_spec: WriteSpec, silent: Any, tmp_path: Path
) -> None:
    """The control beside them, though it has no injected layers; the winner has the loss that was measured."""
    texts = (json.dumps({"text": f"{n} bottles of beer on the wall."}) + "\n" for n in range(300))
    (tmp_path / "rows.jsonl").write_text("".join(texts))
    overrides = {
        "data.source": str(tmp_path / "rows.jsonl"),
        "data.packing": "documents",
        "trial.recipe.train": "injected+norms",
        "trial.recipe.precision": "bf16",
        "trial.recipe.schedule": "wsd",
        "trial.recipe.warmup_tokens": 128,
        "search.recipe.rates.injected": {"log": [0.5, 8.0]},
    }
    spec = load_spec(write_spec(), overrides=overrides)
    records = run(spec, silent, runner="inline").records
    assert {record.state for record in records} <= {State.COMPLETE, State.PRUNED}
    assert any(record.role is Role.CONTROL for record in records)
    number = export(spec.name, tmp_path / "out", grown=True, runs=spec.root)
    data = spec.data.to_tli()
    base = find(spec.base.model)
    tokens = open_tokens(data, base, Folders(spec.root, spec.name).tokens)
    heldout = tokens.heldout_windows(sequence_length=16, eval_tokens=64)
    written = load_model(tmp_path / "out")
    assert evaluate(written, heldout).loss == pytest.approx(records[number].loss, rel=1e-6)
    assert heldout.ndim == 3
    before, after = (dict(model.named_parameters()) for model in (load_model(base.folder), written))
    name = "model.embed_tokens.weight"
    assert torch.equal(before[name], after[name]), "frozen weights are the base's"
