"""The GPU checks, tried on the CPU with small shapes: they work the first time that a card is there."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.gpu import __main__ as command
from tests.gpu import contenders, trials
from tests.gpu.shapes import SIZES
from tests.gpu.table import FAILED, MEASURED, PASSED, SKIPPED, Table, judged, measured

ROOT = Path(__file__).parents[2]
CHECKS = {"correctness", "speed", "trials", "less kept", "loss", "settings"}
# What a bare GPU machine has, and what is skipped where it is missing.
ALLOWED = {"torch", "transformers", "numpy", "accelerate", "tli", "tests"}


def found(folder: Path) -> dict[str, Any]:
    return json.loads((folder / command.RESULTS).read_text())


def test_the_whole_run_with_small_shapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = command.main(["--device", "cpu", "--size", "tiny", "--out", str(tmp_path)])
    made = found(tmp_path)
    assert (status, made["whole"]) == (0, True), made
    assert {row["check"] for row in made["rows"]} == CHECKS
    states = [row["state"] for row in made["rows"]]
    assert FAILED not in states
    assert (PASSED in states, MEASURED in states) == (True, True)
    said = {row["what"]: row for row in made["rows"]}
    assert said["tiny: memory after 20 trials"]["values"]["after"] > 0
    assert said["tiny: our loop against bare loop"]["values"]["speed"] > 0
    assert said["loss without logits, fp32"]["values"]["gradients"] < 1e-5
    out = capsys.readouterr().out
    assert all(row["what"] in out for row in made["rows"])


def test_a_check_that_fails_keeps_no_other_from_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> Any:
        yield measured("one", "1")
        raise ValueError("a wrong address\nand more")

    def wrong() -> Any:
        yield judged("other", "2 (at most 1)", holds=False)

    checks = [command.Check("first", 0, broken), command.Check("second", 0, wrong)]
    monkeypatch.setattr(command, "_checks", lambda *_: checks)
    assert command.main(["--device", "cpu", "--out", str(tmp_path)]) == 1
    rows = [(row["check"], row["state"], row["said"]) for row in found(tmp_path)["rows"]]
    assert rows == [
        ("first", MEASURED, "1"),
        ("first", FAILED, "ValueError: a wrong address"),
        ("second", FAILED, "2 (at most 1)"),
    ]
    assert "2 FAILED" in capsys.readouterr().out


def test_when_the_time_is_up_there_is_what_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    table = Table({"device": "none"}, tmp_path / command.RESULTS)
    table.add("first", measured("one", "1"))
    command._time_is_up(table)
    assert ended == [0]
    assert (found(tmp_path)["whole"], len(found(tmp_path)["rows"])) == (False, 1)


def test_what_there_is_no_time_for_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table({}, None)
    command._run(command.Check("slow one", 60, lambda: iter([])), table, 30.0, on_gpu=True)
    ((_, _, row),) = table.rows
    assert (row.state, row.what) == (SKIPPED, "slow one")
    assert "it takes about 60" in row.said


def test_nothing_is_needed_but_torch_and_transformers() -> None:
    imported = set()
    for path in (ROOT / "tests" / "gpu").glob("*.py"):
        if path.name.startswith("test_"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.module is not None
                imported.add(node.module.partition(".")[0])
                assert not node.module.startswith("tests.") or node.module.startswith("tests.gpu"), path
    assert imported - sys.stdlib_module_names <= ALLOWED


def test_without_accelerate_trainer_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    assert contenders.without_trainer() == "accelerate is not installed"
    assert list(contenders.names()) == [contenders.OURS, contenders.BARE]


def test_our_loop_and_the_bare_one_train_the_same_model() -> None:
    """Else they could not be compared. Ours warms its rate up, so that first steps are nearly none."""
    shape = replace(SIZES["tiny"][0], recipe={"precision": "fp32"})
    ours = contenders.Ours(shape, torch.device("cpu"), warmup=0.0, schedule="constant")
    bare = contenders.Bare(shape, torch.device("cpu"))
    ours.run(2)
    bare.run(2)
    for name, parameter in ours.training.model.named_parameters():
        torch.testing.assert_close(
            parameter,
            bare._model.get_parameter(name),
            rtol=1e-4,
            atol=1e-6,
            msg=lambda said, n=name: f"{n}: {said}",
        )


@pytest.mark.slow
def test_a_hundred_trials_leave_nothing() -> None:
    memory, _ = trials.rows(SIZES["tiny"][0], torch.device("cpu"), count=100)
    assert memory.state == PASSED
    assert memory.values["after"] == memory.values["before"]


@pytest.mark.slow
def test_two_at_once() -> None:
    (row,) = trials.rows_at_once(SIZES["tiny"][0], torch.device("cpu"), 0.5)
    assert row.state == MEASURED, row.said
    assert len(row.values["shared"]) == 2


@pytest.mark.slow
def test_from_a_plain_checkout(tmp_path: Path) -> None:
    """With every library of the sweeps hidden, as on a bare machine."""
    hidden = (
        "pydantic",
        "ray",
        "optuna",
        "mlflow",
        "yaml",
        "argcomplete",
        "sqlalchemy",
        "rich",
        "threadpoolctl",
    )
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({hidden}))\n")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.gpu",
            "--device",
            "cpu",
            "--size",
            "tiny",
            "--only",
            "correctness",
            "speed",
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "OUT": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {row["check"] for row in found(tmp_path)["rows"]} == {"correctness", "speed"}
