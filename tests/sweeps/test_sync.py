"""MLflow rebuilt: what a sweep showed as it ran, from the ledger and the curves alone, whatever the store lost."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sweeps.__main__ import main
from sweeps.curve import CURVE, measurements
from sweeps.driver.service import Closing, run
from sweeps.folders import Folders
from sweeps.ledger import Ledger
from sweeps.records import Point, State
from sweeps.results.finding import find
from sweeps.results.sweep import Sweep
from sweeps.spec import load_spec
from sweeps.tracking import Tracker
from sweeps.tracking.outbox import EVENTS, SENT, Outbox
from sweeps.tracking.sync import open_sweep, show_untold, sync
from tests.sweeps.conftest import SPEC, Silent, copied, delivered_here

pytest.importorskip("mlflow")
BUDGET = ("budget.trials", "now.budget.trials")  # MLflow keeps the first; a rebuilt one has the last alone
# A learning rate of 1e30 diverges: a failure belongs to a whole sweep, too.
CHANGED = {"{log: [1e-4, 1e-2]}": "{choice: [1e-4, 1e-3, 1e30]}", "rule: asha": "rule: median"}


@pytest.fixture(scope="module", autouse=True)
def _delivered_here(empty_mlflow: Path) -> Iterator[None]:
    with delivered_here(empty_mlflow):
        yield


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory, save_model: Any) -> Path:
    """A folder with `tiny.yaml` and its sweep: tracked as it ran, finished, extended, finished. Shared: copy it."""
    root = tmp_path_factory.mktemp("tracked")
    text = root / "text.txt"
    text.write_text("".join(f"{n} bottles of beer on the wall, {n} bottles of beer.\n" for n in range(200)))
    given = {"model": save_model(root / "model"), "text": text, "trials": 5, "study": "sqlite"}
    spec = SPEC.format(name="tiny", runs="runs", tracking="{uri: sqlite}", **given)
    for old, new in CHANGED.items():
        spec = spec.replace(old, new)
    (root / "tiny.yaml").write_text(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for trials in (5, 9):
            more = load_spec("tiny.yaml", overrides=[f"budget.trials={trials}"])
            states = {record.state for record in run(more, Silent(), runner="inline", extend=True).records}
    assert states == {State.COMPLETE, State.FAIL, State.PRUNED}, "the sweep shows less than it should"
    return root


@pytest.fixture
def place(tracked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a copy of that sweep."""
    return copied(tracked, tmp_path, monkeypatch)


def tiny() -> Sweep:
    return find("tiny")


def rows(database: Path, table: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return sorted(connection.execute(f"SELECT * FROM {table}"), key=repr)


def dump(database: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Everything that MLflow holds, as it stands in its tables."""
    return {table: rows(database, table) for table in ("runs", "metrics", "latest_metrics", "params", "tags")}


def formatted(database: Path) -> dict[str, dict[str, Any]]:
    """What MLflow shows of each trial ("" is the sweep), whatever the runs' own ids are; a double fails."""
    found: dict[str, dict[str, Any]] = {}
    with contextlib.closing(sqlite3.connect(database)) as connection:
        runs = connection.execute(
            "SELECT run_uuid, name, status, start_time, end_time FROM runs WHERE lifecycle_stage = 'active'"
        ).fetchall()
        tags = {
            run: dict(connection.execute("SELECT key, value FROM tags WHERE run_uuid = ?", (run,)))
            for run, *_ in runs
        }
        trial_of = {run: told.get("sweeps.trial", "") for run, told in tags.items()}
        assert len(set(trial_of.values())) == len(runs)
        for run, name, status, started, ended in runs:
            told = tags[run] | {
                "mlflow.parentRunId": trial_of.get(tags[run].get("mlflow.parentRunId"), "none")
            }
            points = "SELECT key, step, value, timestamp, is_nan FROM metrics WHERE run_uuid = ?"
            metrics = sorted(connection.execute(points, (run,)))
            assert len({row[:2] for row in metrics}) == len(metrics), "a step twice"
            found[trial_of[run]] = {
                "metrics": metrics,
                "params": dict(
                    connection.execute("SELECT key, value FROM params WHERE run_uuid = ?", (run,))
                ),
                "tags": told,
                "run": (name, status, ended, started if trial_of[run] else None),
            }
    return found


def without_budget(runs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    for each in runs.values():
        for kind in ("params", "tags"):
            each[kind] = {key: value for key, value in each[kind].items() if key not in BUDGET}
    return runs


def test_the_page_is_an_artifact_of_the_sweeps_run(place: Path, tracked: Path) -> None:
    found = list((tracked / "runs" / "mlartifacts").rglob("report.html"))
    assert [path.read_bytes() for path in found] == [(place / "runs" / "tiny" / "report.html").read_bytes()]


def test_the_ledger_and_the_curves_are_enough(place: Path) -> None:
    database, folder = place / "runs/mlflow.db", place / "runs/tiny"
    live = formatted(database)
    assert {run["tags"]["mlflow.parentRunId"] for run in live.values()} == {"", "none"}
    objectives = [row[1] for row in live[""]["metrics"] if row[0] == "objective"]
    assert objectives == [5, 9], "the best loss of each budget, at the trials it was the best of"
    for lost in (database, folder / EVENTS, folder / SENT):
        lost.unlink()
    synced = sync(tiny())
    points = sum(row[0] == "eval_loss" for run in live.values() for row in run["metrics"])
    assert (synced.trials, synced.points, synced.lost) == (len(live) - 1, points, ())
    rebuilt = formatted(database)
    assert rebuilt[""]["params"]["budget.trials"] == "9"
    assert without_budget(rebuilt) == without_budget(live)
    told, once = (folder / EVENTS).read_bytes(), dump(database)
    sync(tiny())
    assert dump(database) == once
    assert (folder / EVENTS).read_bytes() == told


def test_what_a_store_lost_comes_back_and_nothing_else_changes(place: Path) -> None:
    from mlflow.tracking import MlflowClient

    database = place / "runs/mlflow.db"
    live, before = formatted(database), dump(database)
    sync(tiny())
    assert dump(database) == before
    with contextlib.closing(sqlite3.connect(database)) as connection:
        run_of = {
            trial: run
            for run, trial in connection.execute(
                "SELECT run_uuid, value FROM tags WHERE key = 'sweeps.trial'"
            )
        }
        (parent,) = {row[0] for row in connection.execute("SELECT run_uuid FROM runs")} - {*run_of.values()}
        for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
            connection.execute(f"DELETE FROM {table} WHERE run_uuid = ?", (parent,))
        for table in ("metrics", "latest_metrics", "params"):
            connection.execute(f"DELETE FROM {table} WHERE run_uuid = ?", (run_of["tiny/1"],))
        connection.execute(
            "DELETE FROM metrics WHERE run_uuid = ? AND key = 'train_loss' AND step % 2", (run_of["tiny/0"],)
        )
        connection.commit()
    client = MlflowClient(f"sqlite:///{database}")
    client.delete_run(run_of["tiny/2"])  # by hand
    assert formatted(database) != live
    sync(tiny())
    assert without_budget(formatted(database)) == without_budget(live)

    client.delete_experiment(client.get_experiment_by_name("tiny").experiment_id)
    assert formatted(database) == {}
    sync(tiny())
    assert without_budget(formatted(database)) == live
    assert client.get_experiment_by_name("tiny-2") is None


def test_an_emptied_store_is_filled_by_the_next_run_too(place: Path) -> None:
    """Its experiments get the same numbers again, so that it looks like the store that had everything."""
    database = place / "runs/mlflow.db"
    live = formatted(database)
    database.unlink()
    run(load_spec("tiny.yaml"), Silent(), runner="inline")
    assert without_budget(formatted(database)) == without_budget(live)


def test_a_sweep_that_was_stopped_shows_what_it_had(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of trials that run, too; and a curve that is gone is said to be."""
    from sweeps.driver.schedule.agenda import Agenda

    report = Agenda.report

    def stopped(agenda: Agenda, number: int, attempt: int, points: Any) -> bool:
        if number == 3 and points[-1].step >= 2:
            raise KeyboardInterrupt
        return report(agenda, number, attempt, points)

    monkeypatch.setattr(Agenda, "report", stopped)
    text = (place / "tiny.yaml").read_text().replace("name: tiny", "name: other")
    (place / "other.yaml").write_text(text)
    with pytest.raises(KeyboardInterrupt):
        run(load_spec("other.yaml"), Silent(), runner="inline")
    database = place / "runs/mlflow.db"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("DELETE FROM tags WHERE key = 'sweeps.trial' AND value LIKE 'tiny/%'")
        connection.execute("UPDATE runs SET lifecycle_stage = 'deleted' WHERE experiment_id = 1")
        connection.commit()
    live = formatted(database)
    assert (live[""]["run"][1], live["other/3"]["run"][1]) == ("RUNNING", "RUNNING")
    assert [row[1] for row in live["other/3"]["metrics"] if row[0] == "eval_loss"] == [0, 1]
    (place / "runs/other" / EVENTS).unlink()
    assert main(["sync", "other", "--tracking", f"sqlite:///{place}/elsewhere.db"]) == 0
    measured = sum(len(record.losses) for record in find("other").records)
    assert measured > 12
    assert (
        capsys.readouterr().out
        == f"sqlite:///{place}/elsewhere.db shows all of 4 trials, {measured} measurements\n"
    )
    assert formatted(place / "elsewhere.db") == live

    (place / "runs/other/trials/0001" / CURVE).unlink()
    assert main(["sync", "other", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lost"] == [1]
    assert formatted(database) == live, "what is there stays"


def test_who_goes_on_reads_no_curve_of_a_trial_that_was_told(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = tiny()
    outbox = sweep.folders.sweep / EVENTS
    events = outbox.read_bytes().splitlines(keepends=True)
    read: list[int] = []

    def measured(curve: Path, owner: str) -> Iterator[Point]:
        read.append(int(curve.parent.name))
        yield from measurements(curve, owner)

    def go_on() -> None:
        tracker = Tracker(
            "sqlite", study="tiny", folder=sweep.folders.sweep, artifacts=sweep.folders.artifacts
        )
        open_sweep(tracker, sweep, again=False)
        show_untold(tracker, sweep)
        assert tracker._outbox is not None
        tracker._outbox.close()

    monkeypatch.setattr("sweeps.tracking.sync.measurements", measured)
    go_on()
    assert read == []
    assert outbox.read_bytes() == b"".join(events)

    def lacks(line: bytes) -> bool:
        event = json.loads(line)
        return (event["kind"], event.get("number")) in {("trial", 2), ("end", 3), ("points", 4)}

    outbox.write_bytes(b"".join(line for line in events if not lacks(line)))
    go_on()
    assert read == [2, 3, 4]
    again = Outbox(sweep.folders.sweep)
    assert all(again.has(record.number, record.losses) for record in sweep.records)
    assert not again.has(3, [*sweep.records[3].losses, 10**6])
    again.close()


def test_of_several_measurements_of_a_step_the_one_that_the_ledger_has_is_shown(place: Path) -> None:
    """A GPU measures a step again with other last digits; what came before the kill may know more train losses."""
    folder, database = place / "runs/tiny", place / "runs/mlflow.db"
    live = formatted(database)
    curve = folder / "trials/0001" / CURVE
    lines = [json.loads(line) for line in curve.read_text().splitlines() if line]
    killed = {**lines[2], "eval_loss": lines[2]["eval_loss"] + 1e-7}  # measured, and never told
    lines[2]["train_loss"] = lines[2]["train_loss"][-1:]  # after it went on from a state in between
    again = [*lines[:2], killed, *lines[2:]]
    curve.write_text("".join(f"\n{json.dumps(line)}\n" for line in again))
    for lost in (database, folder / EVENTS):
        lost.unlink()
    sync(tiny())
    assert without_budget(formatted(database))["tiny/1"] == live["tiny/1"]


def test_nothing_is_rebuilt_while_somebody_drives(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = dump(place / "runs/mlflow.db")
    held = "import sys, time; from pathlib import Path; from sweeps.folders import Folders\n"
    held += "with Folders(Path('runs'), 'tiny').driver_lock(): print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", held], stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None
        driver.stdout.readline()
        assert main(["sync", "tiny"]) == 1
        driver.kill()
    said = capsys.readouterr().err
    assert said.startswith(f"error: tiny is being driven by process {driver.pid} on "), said
    assert dump(place / "runs/mlflow.db") == before
    spec = load_spec("tiny.yaml", overrides=["budget.trials=9"])
    with Ledger.driven(spec.study_url, spec):  # from a folder that is not this one
        assert main(["sync", "tiny"]) == 1
    assert f"is being driven by process {os.getpid()} on " in capsys.readouterr().err
    with Folders(place / "runs", "tiny").driver_lock():  # given back
        pass


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--tracking", "mlruns"], "--tracking: got 'mlruns'; expected"),
        (["--tracking", "sqlite:///runs/study.db"], "the study's own store; expected a store of its own"),
        (["--tracking", "http://127.0.0.1:1"], "Connection refused); expected an MLflow that answers"),
        (["--tracking", "http://me:***@host"], "without its password; expected the whole address"),
        ([], "got tracking: null; expected an MLflow to deliver to; try --tracking sqlite"),
    ],
)
def test_places_that_will_not_do(
    words: list[str], expected: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not words:
        kept = place / "runs/tiny/spec.json"
        kept.write_text(json.dumps({**json.loads(kept.read_text()), "tracking": None}))
    before = dump(place / "runs/mlflow.db")
    assert main(["sync", "tiny", *words]) == 2
    assert expected in capsys.readouterr().err
    assert dump(place / "runs/mlflow.db") == before


@pytest.mark.parametrize(("error", "most"), [(KeyboardInterrupt, 1.0), (None, 60.0), (ValueError, 60.0)])
def test_who_stops_a_sweep_does_not_wait_for_mlflow(
    error: type[BaseException] | None, most: float, silent: Silent
) -> None:
    given: list[float] = []
    tracker = SimpleNamespace(close=lambda timeout: given.append(timeout) or False)
    Closing(tracker, silent, "sweeps sync tiny")(error, None, None)  # type: ignore[arg-type]
    assert given == [pytest.approx(most, abs=most / 2 if error is KeyboardInterrupt else 0)]
    assert "`sweeps sync tiny`" in silent.notes[0]


@pytest.mark.slow
def test_sigterm_ends_a_sweep_in_the_grace_of_a_job_although_mlflow_hangs(place: Path) -> None:
    text = (
        (place / "tiny.yaml").read_text().replace("tokens: 512", "tokens: 512000").replace("tiny", "other", 1)
    )
    (place / "other.yaml").write_text(text)
    with socket.create_server(("127.0.0.1", 0)) as silent_server:
        uri = f"http://127.0.0.1:{silent_server.getsockname()[1]}"
        words = ["run", "other.yaml", "--runner", "inline", "--set", f"tracking.uri={uri}"]
        command = [sys.executable, "-m", "sweeps", *words]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as driver:
            assert driver.stderr is not None
            while not (place / "runs/other/trials/0000" / CURVE).exists():
                assert driver.poll() is None
                time.sleep(0.1)
            began = time.monotonic()
            driver.send_signal(signal.SIGTERM)
            said = next(line for line in driver.stderr if line.startswith("stopped"))
            assert time.monotonic() - began < 3.0, "what comes now is the interpreter's own end"
            assert "nothing is lost" in said
            assert driver.wait(60) == 143
    assert main(["sync", "other", "--tracking", f"sqlite:///{place}/synced.db"]) == 0
    assert "other/0" in formatted(place / "synced.db")
