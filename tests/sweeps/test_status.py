"""`sweeps status` and `sweeps list`: interrupted trials are called so, and what is piped is not cut."""

from __future__ import annotations

import io
import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from sweeps.__main__ import main
from sweeps.cli import following
from sweeps.driver.schedule.agenda import Agenda
from sweeps.folders import Folders
from sweeps.ledger import Ledger
from sweeps.records import Outcome, Point, Role, State
from sweeps.report.status import Line, list_text, status_text
from sweeps.spec import Spec, load_spec
from sweeps.tracking import NullTracker
from tests.sweeps.conftest import agenda_of, taken
from tests.sweeps.test_summary import record

LONG = {f"recipe.some_long_setting_{place}": 1 / 3 for place in range(4)}
RECORDS = [
    record(0, Role.CONTROL, State.COMPLETE, 0, {0: 3.8, 50: 3.72}),
    record(1, Role.SEARCH, State.RUNNING, 2, {0: 3.8}),
    record(2, Role.SEARCH, State.WAITING, 2, {}, params=LONG),
    record(3, Role.SEARCH, State.FAIL, 2, {0: 3.8}, reason="a long story\n" * 20),
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_running_trial_without_a_driver_is_interrupted() -> None:
    driven, left = (status_text(RECORDS, driven=driven).splitlines() for driven in (True, False))
    assert driven[0] == "1 waiting, 1 running, 1 complete, 1 failed"
    assert left[0] == "1 waiting, 1 interrupted, 1 complete, 1 failed"
    assert [line.split()[2] for line in driven[3:]] == ["complete", "running", "waiting", "failed"]
    assert [line.split()[2] for line in left[3:]] == ["complete", "interrupted", "waiting", "failed"]


def test_lines_are_cut_at_a_terminal_alone() -> None:
    whole = status_text(RECORDS, driven=True).splitlines()
    assert whole[5].endswith("some_long_setting_3=0.3333")
    assert whole[6].endswith("a long story " * 19 + "a long story")
    cut = status_text(RECORDS, driven=True, width=60).splitlines()
    assert max(map(len, cut)) == 60
    assert [line for line in cut if len(line) < 60] == [line for line in whole if len(line) < 60]


def test_the_list_has_a_column_for_interrupted_ones_where_there_are_any() -> None:
    complete = [each for each in RECORDS if each.state is State.COMPLETE]
    lines = list_text({"a": Line(RECORDS, driven=False), "b": Line(RECORDS, driven=True)}).splitlines()
    columns = lines[0].split()[:7]
    assert columns == ["sweep", "trials", "complete", "stopped", "failed", "running", "interrupted"]
    assert [line.split()[5:7] for line in lines[1:]] == [["0", "1"], ["1", "0"]]
    for line in (Line(RECORDS, driven=True), Line(complete, driven=False)):
        assert "interrupted" not in list_text({"a": line})


def test_the_commands_ask_the_lease(
    spec: Spec, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken(agenda_of(spec))
    Folders(spec.root, spec.name).write_spec(spec.to_json())
    runs = ["--runs", str(spec.root)]
    status = ["status", spec.name, "--study", spec.study_url]
    listed = ["list"] if spec.storage.study == "sqlite" else status  # no list asks a server

    def shown(*words: str) -> str:
        assert main([*words, *runs]) == 0
        return capsys.readouterr().out

    assert "1 interrupted" in shown(*status)
    assert "interrupted" in shown(*listed)
    with Ledger.driven(spec.study_url, spec):
        assert "1 running" in shown(*status)
        assert "interrupted" not in shown(*listed)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    assert main([*status, *runs]) == 0
    (line,) = (line for line in terminal.getvalue().splitlines() if line.split()[:1] == ["0"])
    assert len(line) <= 40


class Driven(threading.Thread):
    """Drives a sweep: two trials begin, then one ends, then it lets go; each when the test says so."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self._spec = spec
        self.begun, self.ends, self.ended, self.leaves = (threading.Event() for _ in range(4))

    def run(self) -> None:
        self._spec.root.mkdir(exist_ok=True)
        with Ledger.driven(self._spec.study_url, self._spec) as ledger:
            agenda = Agenda(ledger, NullTracker(), parallel=2)
            control, _ = taken(agenda), taken(agenda)
            self.begun.set()
            self.ends.wait(60)
            points = [Point(step, step * 64, 1e6 * step, 0.1 * step, 3.5) for step in control.report_steps]
            agenda.report(control.number, 1, points)
            agenda.finish(control.number, 1, Outcome(State.COMPLETE))
            self.ended.set()
            self.leaves.wait(60)


@pytest.mark.parametrize("as_json", [False, True])
def test_following_shows_a_sweep_of_another_process_until_it_is_driven_no_more(
    spec: Spec, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    driver, looks = Driven(spec), itertools.count()

    def wait() -> None:
        match next(looks):
            case 0:
                driver.ends.set()
                assert driver.ended.wait(60)
            case 1:
                driver.leaves.set()
                driver.join(60)
            case _:
                time.sleep(0.05)

    monkeypatch.setattr(following, "wait", wait)
    monkeypatch.setattr(following, "DRIVERLESS", 0.2)
    driver.start()
    assert driver.begun.wait(60)
    Folders(spec.root, spec.name).write_spec(spec.to_json())
    words = ["status", spec.name, "--study", spec.study_url, "--runs", str(spec.root), "--follow"]
    assert main([*words, *(["--json"] if as_json else [])]) == 0
    lines = capsys.readouterr().out.splitlines()
    if as_json:
        found = [json.loads(line) for line in lines]
        assert [(each["phase"], each["counts"]) for each in found] == [
            ("search", {"RUNNING": 2}),
            ("search", {"RUNNING": 1, "COMPLETE": 1}),
            ("not running", {"RUNNING": 1, "COMPLETE": 1}),
        ]
        assert found[-1]["control"] == {"trial": 0, "loss": 3.5}
    else:
        text = [line.partition("Z  ")[2] for line in lines]
        assert text[0] == f"{spec.name}: search"
        assert sum("trial   0 complete, loss 3.5000" in line for line in text) == 1
        assert text[-1].startswith(f"no process drives {spec.name} now; `sweeps resume")


def test_ctrl_c_leaves_following_without_a_word(
    spec: Spec, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken(agenda_of(spec))
    Folders(spec.root, spec.name).write_spec(spec.to_json())

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(following, "wait", interrupted)
    words = ["status", spec.name, "--study", spec.study_url, "--runs", str(spec.root), "--follow"]
    assert main(words) == 130
    said = capsys.readouterr()
    assert said.err == ""
    assert len(said.out.splitlines()) == 1


def test_the_head_of_the_status_is_what_the_live_table_says(
    spec: Spec, capsys: pytest.CaptureFixture[str]
) -> None:
    agenda = agenda_of(spec)
    losses = {Role.CONTROL: 3.5, Role.BASELINE: 3.25}
    for _ in losses:
        one = taken(agenda)
        points = [
            Point(step, step * 64, 1e6 * step, 0.1 * step, losses[one.role]) for step in one.report_steps
        ]
        agenda.report(one.number, 1, points)
        agenda.finish(one.number, 1, Outcome(State.COMPLETE))
    Folders(spec.root, spec.name).write_spec(spec.to_json())
    assert main(["status", spec.name, "--study", spec.study_url, "--runs", str(spec.root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "No process drives it now.",
        "best 3.2500, 0.2500 below the control (3.5000): trial 1, K=2 identity lr 1.0e-03",
        "budget left: 4 of 6 trials",
    ]


def test_what_was_finished_before_and_what_is_done_now_is_said_before_anything_is_loaded(
    write_spec: Any, tmp_path: Path
) -> None:
    """torch and Optuna take seconds: the first lines come from a process that has neither."""
    path = write_spec(trials=2)
    spec = load_spec(str(path))
    agenda = agenda_of(spec)
    one = taken(agenda)
    agenda.finish(one.number, 1, Outcome(State.FAIL, "a reason"))
    words = [sys.executable, "-m", "sweeps", "run", str(path), "--runner", "inline"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        loaded = Path(f"/proc/{process.pid}/maps").read_text()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    said = [line.partition("Z  ")[2].strip() for line in lines]
    assert said == [
        "reading the study",
        "tiny: 1 of at most 5 trials were finished before",
        "checking the model, the text and the stores",
    ]
    assert not [name for name in ("torch", "optuna", "ray") if f"/{name}/" in loaded]
