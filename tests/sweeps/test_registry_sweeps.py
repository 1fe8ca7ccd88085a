"""A sweep of every causal-LM type that transformers registers, small: it runs to its end, or validate refuses it.

A type that a plain model can be built of, and that cannot train here, has to be refused by `validate` with the
reason, before anything is written. What is left runs a control and a baseline, and its winner loads by plain
transformers with the loss that the ledger holds.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from sweeps.__main__ import main
from sweeps.records import State
from sweeps.service import run
from sweeps.spec import load_spec
from tests.tli.registry import model_types, rows, tiny
from tli.base import find
from tli.data import DataSettings, open_tokens
from tli.evaluate import evaluate
from tli.families import FAMILIES
from tli.loading import load_model

BUILT = [name for name in model_types() if "cannot" not in rows().get(name, {})]
GROWN = [name for name in BUILT if FAMILIES[name].refused is None]
# By default: flat and sectioned, tied and not, a mixture, and layers of several kinds.
SELECTED = ("llama", "gemma3", "fuyu", "gemma4", "granitemoe", "whisper")
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
    [pytest.param(name, marks=() if name in SELECTED else pytest.mark.slow) for name in GROWN],
)
def test_two_trials(
    model_type: str, tiny_model: Any, tmp_path: Path, silent: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, model_type, tiny_model("llama"))
    assert main(["validate", str(path)]) == 0, capsys.readouterr()
    spec = load_spec(str(path))
    sweep = run(spec, silent, runner="inline")
    assert [record.state for record in sweep.records] == [State.COMPLETE] * 2, [
        r.reason for r in sweep.records
    ]
    base = find(str(tmp_path / "base"))
    tokens = open_tokens(DataSettings(**spec.data.to_json()), base, sweep.folders.tokens)
    windows = tokens.heldout_windows(sequence_length=spec.data.sequence_length, eval_tokens=64)
    for record, depth in zip(sweep.records, (base.facts.depth, None), strict=True):
        folder = sweep.folders.final(record.number, record.attempt)
        assert find(str(folder)).facts.depth == (depth or base.facts.depth + 2)
        assert record.value is not None
        assert math.isfinite(record.value)
        assert evaluate(load_model(folder), windows).loss == pytest.approx(record.value, rel=1e-5)
