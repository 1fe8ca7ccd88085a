"""Packaged specs of real models: checked and planned without weights, refused to run without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sweeps.__main__ import main
from sweeps.checks import machine
from sweeps.checks.estimate import estimate
from sweeps.checks.memory import fitting_settings, room_problems
from sweeps.checks.preflight import check
from sweeps.errors import SpecError
from sweeps.spec import load_spec
from tli.models.descriptions import described

MODELS = ("gemma-3-4b", "llama-3.1-8b", "llama-3.2-1b", "llama-3.2-3b", "olmo-2-7b", "qwen3-4b")
CARD = 80 * 10**9


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", MODELS)
def test_they_pass_and_are_planned_without_weights(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", name]) == 0
    shown = capsys.readouterr()
    assert "no weight of" in shown.out + shown.err
    assert main(["plan", name, "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    spec = load_spec(name)
    base = described(spec.base.model)
    assert base is not None
    assert planned["shapes"][0]["cost"]["parameters"] == base.facts.parameters
    assert spec.base.revision == base.revision
    assert spec.data.sequence_length == 4096
    assert list(tmp_path.iterdir()) == []


def test_to_run_weights_are_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "llama-3.2-1b"]) == 2
    error = capsys.readouterr().err
    assert "base.model: got 'meta-llama/Llama-3.2-1B'" in error
    assert "hf download meta-llama/Llama-3.2-1B" in error
    assert list(tmp_path.iterdir()) == []


def test_what_a_step_is_made_of_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "llama-3.2-1b", "--set", "trial.recipe.activation_checkpointing=0"]) == 0
    shown = capsys.readouterr().out
    for part in ("weights", "moments", "activations", "loss"):
        assert f"{part} " in shown


def test_a_base_with_weights_is_needed_for_what_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "llama-3.2-1b", "--calibrate"]) == 2
    assert "hf download" in capsys.readouterr().err
    with pytest.raises(SpecError):
        check(load_spec("llama-3.2-1b"))


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("llama-3.2-1b", ""),
        ("llama-3.2-3b", "activation_checkpointing: 1"),
        ("llama-3.1-8b", "activation_checkpointing: 1, resources.workers: 4"),
    ],
)
def test_what_does_not_fit_on_a_card_is_told_what_would(
    name: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "gpus", lambda: 1)
    monkeypatch.setattr(machine, "gpu_memory", lambda: CARD)
    monkeypatch.setattr(machine, "free_space", lambda _path: 10**15)
    alone = ["trial.recipe.micro_batch_tokens=4096", "resources.workers=1"]
    spec = load_spec(name, overrides=alone)
    base = described(spec.base.model)
    assert base is not None
    problems = list(room_problems(spec, base, local=True, at_once=1))
    assert [problem.remedy for problem in problems] == ([remedy] if remedy else [])
    if remedy:
        assert next(fitting_settings(spec, base, CARD)) == remedy
        assert "micro_batch_tokens" in problems[0].where


def test_memory_is_that_of_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = load_spec("llama-3.2-1b")
    base = described(spec.base.model)
    assert base is not None
    whole = estimate(spec, base, parallel=1)
    assert whole.ranks == 1
    control, *grown = whole.shapes
    assert control.memory.weights == 4 * base.facts.parameters
    assert all(shape.memory.weights == 4 * shape.cost.parameters for shape in grown)


def test_to_plan_them_takes_no_torch() -> None:
    """Its import alone takes longer than the whole plan."""
    program = (
        "import sys; from sweeps.__main__ import main;"
        f"codes = [main(['plan', name]) for name in {MODELS!r}];"
        "assert not any(codes); assert 'torch' not in sys.modules; assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=120)


class _Gated(BaseHTTPRequestHandler):
    """Answers as the hub does of a gated model: what is in it, and nothing of that without a token."""

    def do_GET(self) -> None:
        gated = "/resolve/" in self.path
        files = [{"rfilename": "config.json"}, {"rfilename": "model.safetensors"}]
        body = json.dumps({"id": "meta-llama/Llama-3.2-1B", "sha": "4" * 40, "siblings": files}).encode()
        self.send_response(401 if gated else 200)
        if gated:
            self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_gated_model_is_answered_by_what_to_do(tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Gated)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        there = f"http://127.0.0.1:{server.server_address[1]}"
        own = {"HF_ENDPOINT": there, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0"}
        command = [sys.executable, "-m", "sweeps", "run", "llama-3.2-1b"]
        ended = subprocess.run(
            command, env={**os.environ, **own}, capture_output=True, text=True, timeout=120, check=False
        )
    finally:
        server.shutdown()
        server.server_close()
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    said = next(line for line in ended.stderr.splitlines() if "base.model" in line)
    assert "'meta-llama/Llama-3.2-1B', gated on the hub" in said
    assert "accepting its terms there and `hf auth login`" in said
    assert not (tmp_path / "runs").exists()
