"""A sweep of every causal-LM type that transformers registers, small: it runs to its end, or validate refuses it.

A type that a plain model can be built of, and that cannot train here, has to be refused by `validate` with the
reason, before anything is written. What is left runs a control and a baseline, and its winner loads by plain
transformers with the loss that the ledger holds.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from sweeps.__main__ import main
from sweeps.checks.preflight import check
from sweeps.checks.shapes import plan_of
from sweeps.driver.service import run
from sweeps.records import State
from sweeps.spec import load_spec
from tests.tli.registry import model_types, rows, tiny
from tli.architectures.table import FAMILIES
from tli.data.batches import open_tokens
from tli.data.tokenise import vocabulary
from tli.growth.cost import cost
from tli.models.base import find
from tli.models.loading import load_model
from tli.training.evaluate import evaluate

BUILT = [name for name in model_types() if "cannot" not in rows().get(name, {})]
GROWN = [name for name in BUILT if FAMILIES[name].refused is None]
RUN = [name for name in GROWN if FAMILIES[name].not_loaded is None]
# By default: flat and sectioned, tied and not, a mixture, and layers of several kinds.
SELECTED = ("llama", "gemma3", "fuyu", "gemma4", "granitemoe")
SPEC = """
name: every
base: {{model: {model}}}
data: {{source: {text}, heldout_fraction: 0.2, sequence_length: {length}, eval_tokens: 64}}
trial:
  injection: {injection}
  recipe: {{learning_rate: 1e-3, tokens: {tokens}, batch_tokens: {batch}, warmup: 0.0}}
search:
  recipe.learning_rate: {{log: [1e-4, 1e-2]}}
budget: {{trials: 2}}
finalists: {{top: 1, seeds: 1}}
resources: {{cpus: 1, parallel: 1}}
storage: {{study: sqlite, artifacts: {runs}}}
tracking: null
"""


def written(folder: Path, model_type: str, tokenizer: Path) -> Path:
    """A spec of two trials of a tiny model of the type; the model and a byte tokenizer lie beside it."""
    row = rows().get(model_type, {})
    model = tiny(model_type, **row.get("to_grow", {}))
    model.save_pretrained(folder / "base")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tokenizer / name, folder / "base" / name)
    text = folder / "text.txt"
    text.write_text("".join(f"{n} bottles of beer on the wall, {n} bottles of beer.\n" for n in range(60)))
    length = row.get("train_length", 16)
    init = "copy" if FAMILIES[model_type].no_scale else "identity"
    injection = {"method": "tli", "k": 2, **row.get("plan", {}), "init": init}
    if "after" in injection:
        del injection["k"]
    path = folder / "every.yaml"
    path.write_text(
        SPEC.format(
            model=folder / "base",
            text=text,
            length=length,
            batch=2 * length,
            tokens=4 * length,
            runs=folder / "runs",
            injection=injection,
        )
    )
    return path


@pytest.mark.parametrize(
    "model_type",
    [pytest.param(name, marks=() if name in SELECTED else pytest.mark.slow) for name in RUN],
)
def test_two_trials(
    model_type: str, tiny_model: Any, tmp_path: Path, silent: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, model_type, tiny_model("llama"))
    assert main(["validate", str(path)]) == 0, capsys.readouterr()
    spec = load_spec(str(path))
    sweep = run(spec, silent, runner="inline")
    reasons = [record.reason for record in sweep.records]
    assert [record.state for record in sweep.records] == [State.COMPLETE] * len(sweep.records), reasons
    trials = [record for record in sweep.records if not record.role.fresh]
    base = find(str(tmp_path / "base"))
    tokens = open_tokens(spec.data.to_tli(), base, sweep.folders.tokens)
    windows = tokens.heldout_windows(sequence_length=spec.data.sequence_length, eval_tokens=64)
    injections = (None, spec.trial.to_injection())  # of the control and the baseline
    for record, injection in zip(trials, injections, strict=True):
        folder = sweep.folders.model_dir(record.number, record.attempt)
        decided = plan_of(injection, base.facts.depth)
        told = cost(base, decided, sequence_length=spec.data.sequence_length)
        assert find(str(folder)).facts.depth == decided.new_depth
        assert find(str(folder)).facts.parameters == told.parameters
        assert record.flops == record.tokens * told.flops_per_token
        assert record.value is not None
        assert math.isfinite(record.value)
        assert evaluate(load_model(folder), windows).loss == pytest.approx(record.value, rel=1e-5)


@pytest.mark.parametrize("model_type", [name for name in GROWN if FAMILIES[name].not_loaded])
def test_what_cannot_be_trained_is_refused(
    model_type: str, tiny_model: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, model_type, tiny_model("llama"))
    before = sorted(tmp_path.rglob("*"))
    for command in ("validate", "run"):
        assert main([command, str(path)]) == 2
        assert str(FAMILIES[model_type].not_loaded) in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("model_type", ["llama", "gemma3"])
def test_a_tokenizer_of_another_model_is_refused(
    model_type: str, tiny_model: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    path = written(tmp_path, model_type, tiny_model("llama"))
    config = tmp_path / "base" / "config.json"
    values = json.loads(config.read_text())
    section = values.get("text_config", values)
    section["vocab_size"] = 60
    config.write_text(json.dumps(values))
    weights = tmp_path / "base" / "model.safetensors"
    tensors = {name: t[:60].clone() if t.shape[0] == 257 else t for name, t in load_file(weights).items()}
    save_file(tensors, weights, metadata={"format": "pt"})
    assert vocabulary(find(str(tmp_path / "base"))) == 60
    before = sorted(tmp_path.rglob("*"))
    for command in ("validate", "run"):
        assert main([command, str(path)]) == 2
        told = capsys.readouterr().err
        assert "a tokenizer that gives the id " in told
        assert "expected ids below 60" in told
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("model_type", "told"), [("llama", False), ("mamba2", True)])
def test_what_flops_leave_out_is_noted(model_type: str, told: bool, tiny_model: Any, tmp_path: Path) -> None:
    checked = check(load_spec(str(written(tmp_path, model_type, tiny_model("llama")))))
    assert any("FLOPs" in note for note in checked.notes) == told
