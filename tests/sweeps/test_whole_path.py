"""The whole path at a size between the packaged base and real models: from a spec to the exported winner, in bf16."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.bench import llama_60m
from tli.models.base import find

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(1800)]

_SPEC = """
name: middle
base: {{model: {model}}}
data: {{source: "builtin:stdlib", sequence_length: 32, eval_tokens: 64, test_tokens: 64}}
trial:
  injection: {{method: tli, k: 6, init: identity}}
  recipe: {{learning_rate: 3e-4, tokens: 128, batch_tokens: 64, micro_batch_tokens: 32, precision: bf16}}
search:
  injection.k: {{choice: [6, 12]}}
budget: {{trials: 3}}
control: {{rates: 1, matched: false}}
stopping: {{rule: none}}
finalists: {{top: 1, seeds: 1}}
resources: {{cpus: 1, gpus: 0, parallel: 1{ranks}}}
tracking: null
"""


def sweeps(*arguments: object, cwd: Path) -> str:
    command = [sys.executable, "-m", "sweeps", *map(str, arguments)]
    started = time.monotonic()
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=1700, check=False)
    print(f"sweeps {' '.join(map(str, arguments[:2]))}: {time.monotonic() - started:.0f} s", flush=True)
    # 1: nothing grown is shown to be better, or it ended in an error, as where Ray does not start
    assert done.returncode in (0, 1), done.stderr
    assert "error: " not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.parametrize("ranks", [1, 2])
def test_from_a_spec_to_the_exported_winner(ranks: int, tmp_path: Path) -> None:
    model = llama_60m.write(tmp_path / "base")
    assert find(str(model)).facts.parameters == pytest.approx(60e6, rel=0.02)
    workers = f", workers: {ranks}" if ranks > 1 else ""
    (tmp_path / "middle.yaml").write_text(_SPEC.format(model=model, ranks=workers))
    planned = json.loads(sweeps("plan", "middle.yaml", "--json", cwd=tmp_path))
    assert planned["ranks"] == ranks
    answer = sweeps("run", "middle.yaml", cwd=tmp_path)
    assert "middle" in answer
    listed = json.loads(sweeps("results", "middle", "--json", cwd=tmp_path))
    assert {trial["state"] for trial in listed["trials"]} == {"COMPLETE"}
    for trial in listed["trials"]:
        print(f"{ranks} ranks, trial {trial['trial']}, {trial['role']}: loss {trial['loss']:.4f}", flush=True)
    sweeps("export", "middle", "--grown", "--out", tmp_path / "best", cwd=tmp_path)
    best = find(str(tmp_path / "best"))
    assert best.facts.depth in (13, 14)
    assert best.facts.dtype == "F32"
