"""What a sweep says of its text: refused, or worth a note, before it runs and behind its answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweeps.__main__ import main
from sweeps.driver.service import run
from sweeps.errors import SpecError
from sweeps.results.finding import find
from sweeps.spec import load_spec
from sweeps.worker.trial import WorkerContext, for_workers
from tests.bench.processes import descendants
from tests.servers import alive
from tli.cli.commands import main as tli_main

WriteSpec = Callable[..., Path]


@pytest.fixture
def five(tmp_path: Path) -> str:
    """Five small files, of which one is held out."""
    folder = tmp_path / "notes"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.md").write_text(f"note {number}: " + "some words " * (20 + number))
    return f"{folder}/*.md"


def short(write_spec: WriteSpec, source: str, name: str = "short") -> Path:
    text = f"source: {source}, heldout_fraction: 0.05, sequence_length: 16, eval_tokens: 8192"
    spec = write_spec(name, trials=2, replace={" tokens: 512": " tokens: 2560"})
    content = spec.read_text()
    first, rest = content.index("data: {"), content.index("trial:")
    spec.write_text(f"{content[:first]}data: {{{text}}}\n{content[rest:]}")
    return spec


def test_too_little_text_is_noted_before_and_after(
    write_spec: WriteSpec, five: str, silent: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = short(write_spec, five)
    for command in ("validate", "plan"):
        assert main([command, str(path)]) == 0
        notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
        held, train = (
            next(note for note in notes if kind in note) for kind in ("held-out text", "training text")
        )
        assert "data.eval_tokens asks for 8,192" in held
        assert "takes 2,560" in train
    assert main(["validate", str(path), "--json"]) == 0
    assert [f"note: {note}" for note in json.loads(capsys.readouterr().out)["notes"]] == notes
    assert not (tmp_path / "runs").exists()
    # In the summary the real ones; of so little text they are those of before.
    sweep = run(load_spec(str(path)), silent, runner="inline")
    assert {note.removeprefix("note: ") for note in notes} <= set(silent.notes)
    for note in (held, train):
        assert note.removeprefix("note: ") in sweep.verdict.warnings
    assert main(["best", "short", "--runs", str(tmp_path / "runs")]) == 0
    assert "8,192" in capsys.readouterr().out
    assert find("short", runs=str(tmp_path / "runs")).verdict.warnings == sweep.verdict.warnings


def test_enough_text_is_not_noted(write_spec: WriteSpec, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(write_spec())]) == 0
    assert " text: " not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("setting", "remedy"),
    [
        ("data.heldout", "null"),
        ("data.revision", "null"),
        ("base.revision", "null"),
        ("finalists.per", "null"),
        ("trial.injection.after", "null"),
        ("trial.injection.layers", "null"),
        ("trial.recipe.clip", "null"),
        ("budget.wall", "null"),
        ("tracking", "null"),
        ("data.source", "builtin:stdlib"),
        ("base.model", "builtin:tiny-llama"),
        ("storage.study", "sqlite"),
        ("storage.artifacts", "runs"),
        ("tracking.uri", "sqlite"),
    ],
)
@pytest.mark.parametrize("word", ["none", "'null'"])
def test_a_word_for_nothing_is_no_name(setting: str, remedy: str, word: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec("quickstart", overrides=[f"{setting}={word}"])
    (problem,) = caught.value.problems
    assert setting in problem.where
    assert word.strip("'") in problem.got
    assert problem.remedy == remedy


def test_names_that_are_words_stay_names() -> None:
    spec = load_spec("quickstart", overrides=["name=none", "stopping.rule=none"])
    assert (spec.name, spec.stopping.rule) == ("none", "none")


NOBODY = "~nobody-of-this-name/x"


@pytest.mark.parametrize(
    ("words", "place"),
    [
        (["validate", "SPEC", "--set", f"base.model={NOBODY}"], "base.model"),
        (["validate", "SPEC", "--set", f"storage.artifacts={NOBODY}"], "storage.artifacts"),
        (["validate", "SPEC", "--set", f"data.source={NOBODY}.txt"], "data.source"),
        (["validate", "SPEC", "--set", f"data.heldout={NOBODY}.txt"], "data.heldout"),
        (["run", "SPEC", "--runner", "inline", "--set", f"storage.artifacts={NOBODY}"], "storage.artifacts"),
        (["validate", "SPEC", "--runs", NOBODY], "--runs"),
        (["list", "--runs", NOBODY], "--runs"),
        (["doctor", "--runs", NOBODY], "--runs"),
    ],
)
def test_a_home_that_is_not_there(
    words: list[str], place: str, write_spec: WriteSpec, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = str(write_spec())
    before = sorted(tmp_path.rglob("*"))
    assert main([path if word == "SPEC" else word for word in words]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert place in errors[0]
    assert "~nobody-of-this-name" in errors[0]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("words", [["inspect", NOBODY], ["plan", NOBODY], ["upscale", NOBODY, "out"]])
def test_a_home_that_is_not_there_for_tli(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert tli_main(words) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "~nobody-of-this-name" in error


def test_all_of_a_sweep_is_below_the_same_home(
    write_spec: WriteSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    spec = load_spec(str(write_spec()), overrides=["storage.artifacts=~/runs"])
    assert spec.root == tmp_path / "home/runs"
    assert spec.study_url == f"sqlite:///{tmp_path}/home/runs/study.db"
    assert spec.to_json()["storage"]["artifacts"] == "~/runs", "as it was written"


def test_a_sweep_measures_layers_on_the_text_that_a_plan_does(
    write_spec: WriteSpec,
    tmp_path: Path,
    tiny_model: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number:02}.md").write_text("".join(chr(33 + (number * k) % 90) for k in range(300)))
    path = short(write_spec, f"{folder}/*.md")
    given = ["data.heldout_fraction=0.4", "data.sequence_length=32", "trial.injection.least_important_sets=2"]
    spec = load_spec(str(path), overrides=[*given, "trial.injection.k=1", "trial.recipe.batch_tokens=128"])
    slot = WorkerContext(for_workers(spec))
    words = [
        "plan",
        str(tiny_model("llama")),
        "--k",
        "1",
        "--least-important-sets",
        "2",
        "--text",
        f"{folder}/*.md",
        "--json",
    ]
    assert tli_main(words) == 0
    plan = json.loads(capsys.readouterr().out)
    assert tuple(plan.get("plan", plan)["block_influence"]) == pytest.approx(slot.block_influence, abs=1e-6)


@pytest.mark.parametrize("kind", ["source", "heldout"])
def test_text_without_an_end_is_refused(
    kind: str, write_spec: WriteSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    for place in ("/dev/zero", str(tmp_path / "pipe.txt")):
        assert main(["validate", str(write_spec()), "--set", f"data.{kind}={place}"]) == 2
        assert f"data.{kind}" in capsys.readouterr().err


def test_a_password_in_a_source_is_not_shown(
    write_spec: WriteSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_spec()
    content = path.read_text()
    source = content[content.index("source: ") + 8 : content.index(", heldout_fraction")]
    path.write_text(content.replace(source, "'https://user:CANARY@host/text.jsonl'"))
    assert main(["validate", str(path)]) == 2
    shown = capsys.readouterr()
    assert "CANARY" not in shown.out + shown.err
    assert "data.source" in shown.err


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_that_is_stopped_while_it_tokenises_stops_then(write_spec: WriteSpec, tmp_path: Path) -> None:
    big = tmp_path / "big.txt"
    with big.open("w") as out:
        for number in range(400_000):
            out.write(f"line {number} of a text that takes a while to be made into tokens\n")
    path = short(write_spec, str(big))
    words = [sys.executable, "-m", "sweeps", "run", str(path), "--runner", "inline"]
    running = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while len(below := descendants(running.pid)) < 2:  # the processes that tokenise
        assert running.poll() is None
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    assert running.wait(timeout=120) == 130  # what is under way is finished: a million characters a process
    assert "Traceback" not in running.stderr.read()  # type: ignore[union-attr]
    assert [path for path in (tmp_path / "runs/tokens").iterdir() if path.name != ".lock"] == []
    assert not [pid for pid in below if alive(pid)]
