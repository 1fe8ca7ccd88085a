"""Tracking into real MLflow stores: a SQLite file, and a server that is killed in the middle."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sweeps.records import Point, State
from sweeps.tracking import NullTracker, Tracker, open_tracker
from sweeps.tracking.events import parse
from sweeps.tracking.outbox import EVENTS, SENT, Outbox, read_sent
from sweeps.tracking.registry import registered_in
from sweeps.tracking.tracker import flat
from tests.servers import MlflowServer, alive

pytest.importorskip("mlflow")
STEPS = (0, 1, 2, 4, 8)
SETTINGS = {
    "injection": {"method": "tli", "k": 4, "init": "identity"},
    "recipe": {"learning_rate": 1.2e-3, "clip": None},
    "seed": 0,
}


def curve(offset: float = 0.0) -> list[Point]:
    """Five held-out losses and eight train losses, with times of their own."""
    points, last = [], 0
    for step in STEPS:
        train = tuple((at, 4.0 + offset - at / 10) for at in range(last + 1, step + 1))
        points.append(
            Point(step, step * 64, step * 2e9, step * 0.25, 4.0 + offset - step / 8, train, 5_000.0 + step)
        )
        last = step
    return points


def tell(tracker: Tracker, numbers: range = range(3)) -> None:
    tracker.open_sweep({"name": "quick", "budget": {"trials": 3}}, {"sweeps.version": "0.1"})
    for number in numbers:
        role = ("control", "baseline", "search")[min(number, 2)]
        name = None if number == 2 else f"run {number}"
        tracker.declare(number, SETTINGS, {"sweeps.role": role, "sweeps.note": None}, name=name)
        for point in curve(number):
            tracker.points(number, 1, [point])
    tracker.end(0, State.COMPLETE, {}, {"objective": 3.0, "initial_loss": 4.0})
    tracker.end(1, State.PRUNED, {"sweeps.reason": "rung 2"}, {"objective": None, "initial_loss": 5.0})
    tracker.end(2, State.FAIL, {"sweeps.reason": "diverged"}, {})
    tracker.rank([0])
    tracker.end_sweep({}, [(3, 3.0, 5_100.0)], 5_100.0)


class Store:
    """What is in an MLflow store, read with MLflow's own client."""

    def __init__(self, uri: str) -> None:
        from mlflow.tracking import MlflowClient

        self.uri, self.client = uri, MlflowClient(uri)

    def runs(self, experiment: str) -> dict[str, Any]:
        """Active runs by trial ("" for the sweep itself); a trial with two runs fails the test."""
        found = self.client.get_experiment_by_name(experiment)
        assert found is not None
        runs = self.client.search_runs([found.experiment_id], max_results=1000)
        names = Counter(run.data.tags.get("sweeps.trial", "").rpartition("/")[2] for run in runs)
        assert max(names.values(), default=0) <= 1, names
        return {run.data.tags.get("sweeps.trial", "").rpartition("/")[2]: run for run in runs}

    def history(self, run: Any, key: str) -> list[tuple[int, float]]:
        return [(m.step, m.value) for m in self.client.get_metric_history(run.info.run_id, key)]

    def everything(self, experiment: str) -> dict[str, Any]:
        """All metrics, parameters and tags of all runs, to be compared."""
        content = {}
        for name, run in self.runs(experiment).items():
            metrics = {key: sorted(self.history(run, key)) for key in run.data.metrics}
            tags = {key: value for key, value in run.data.tags.items() if key.startswith("sweeps.")}
            content[name] = (metrics, dict(run.data.params), tags, run.info.status)
        return content


@pytest.fixture(scope="module")
def quiet() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, quiet: None, empty_mlflow: Path) -> Store:
    """A SQLite store that is there already: to make one takes seconds."""
    database = tmp_path_factory.mktemp("store") / "mlflow.db"
    shutil.copy(empty_mlflow, database)
    return Store(f"sqlite:///{database}")


@pytest.fixture
def told(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a tracker whose delivery the test does itself, so that it decides when; `drain` does all of it."""
    from sweeps.tracking.delivery import Delivery

    monkeypatch.setattr(Tracker, "_deliver", lambda _: None)

    def make(study: str, *, folder: str = "sweep", study_uuid: str | None = None) -> SimpleNamespace:
        tracker = Tracker(
            store.uri, study=study, folder=tmp_path / folder, artifacts=tmp_path, study_uuid=study_uuid
        )

        def drain() -> None:
            delivery = Delivery(tracker._target)
            delivery.prepare()
            while delivery.round():
                pass

        return SimpleNamespace(tracker=tracker, drain=drain, folder=tmp_path / folder)

    return make


# --- what arrives ---------------------------------------------------------------------------------------------


def test_a_sweep_arrives_as_one_experiment_with_a_parent_and_a_run_for_each_trial(
    tmp_path: Path, quiet: None
) -> None:
    tracker = Tracker("sqlite", study="quick", folder=tmp_path / "quick", artifacts=tmp_path)
    tell(tracker)
    assert tracker.close(60.0), (tmp_path / "quick" / "outbox.log").read_text()
    assert tracker.problem is None
    assert tracker.pending() == 0

    store = Store(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = store.client.get_experiment_by_name("quick")
    assert experiment is not None
    assert experiment.artifact_location == (tmp_path / "mlartifacts" / "quick").as_uri()
    runs = store.runs("quick")
    assert sorted(runs) == ["", "0", "1", "2"]
    parent = runs.pop("")
    assert (parent.info.run_name, parent.info.status) == ("quick", "FINISHED")
    assert parent.data.tags["sweeps.study"] == "quick"
    assert parent.data.params == {"name": "quick", "budget.trials": "3"}
    assert parent.data.metrics == {"objective": 3.0}
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert [runs[n].info.run_name for n in "012"] == ["run 0", "run 1", "2"]
    assert [runs[n].info.status for n in "012"] == ["FINISHED", "FINISHED", "FAILED"]
    assert [runs[n].data.tags["sweeps.state"] for n in "012"] == ["COMPLETE", "PRUNED", "FAIL"]
    assert [runs[n].data.tags.get("sweeps.rank") for n in "012"] == ["1", None, None]
    assert "sweeps.note" not in runs["0"].data.tags
    assert runs["1"].data.params == {
        "injection.method": "tli",
        "injection.k": "4",
        "injection.init": "identity",
        "recipe.learning_rate": "0.0012",
        "recipe.clip": "null",
        "seed": "0",
    }
    assert (runs["0"].data.metrics["objective"], runs["0"].data.metrics["initial_loss"]) == (3.0, 4.0)
    assert "objective" not in runs["1"].data.metrics
    assert store.history(runs["1"], "eval_loss") == [(s, 5.0 - s / 8) for s in STEPS]
    assert store.history(runs["1"], "train_loss") == [(s, 5.0 - s / 10) for s in range(1, 9)]
    assert store.history(runs["2"], "tokens") == [(s, s * 64.0) for s in STEPS]
    assert store.history(runs["2"], "flops") == [(s, s * 2e9) for s in STEPS]
    assert store.history(runs["2"], "seconds") == [(s, s * 0.25) for s in STEPS]
    assert store.history(runs["2"], "tokens_per_second") == [(s, 256.0) for s in STEPS if s]
    times = store.client.get_metric_history(runs["2"].info.run_id, "eval_loss")
    assert [metric.timestamp for metric in times] == [5_000_000 + 1000 * s for s in STEPS]
    assert (tmp_path / "quick" / "outbox.log").read_text() == ""
    assert {path.name for path in tmp_path.iterdir()} == {"quick", "mlflow.db"}


def test_delivering_everything_again_changes_nothing(told: Any, store: Store) -> None:
    sweep = told("again")
    tell(sweep.tracker)
    sweep.drain()
    once = store.everything("again")
    assert once["1"][0]["train_loss"] == [(s, 5.0 - s / 10) for s in range(1, 9)]
    (sweep.folder / SENT).unlink()
    sweep.drain()
    assert store.everything("again") == once


def test_gaps_to_a_control_arrive_once_and_never_beside_those_to_another(told: Any, store: Store) -> None:
    sweep = told("gaps")
    tell(sweep.tracker)
    assert sweep.tracker.gaps_against() is None
    for gaps, final in (({0: 0.5, 1: 0.25}, None), ({0: 0.5, 1: 0.25, 2: -0.125}, -0.25)):
        sweep.tracker.gaps(1, 0, gaps, final)
    sweep.tracker.gaps(2, 0, {}, None)
    sweep.drain()
    run = store.runs("gaps")["1"]
    assert store.history(run, "control_gap") == [(0, 0.5), (1, 0.25), (2, -0.125)]
    assert (run.data.metrics["objective_gap"], run.data.tags["sweeps.gap_to"]) == (-0.25, "0")
    assert run.info.status == "FINISHED", "a gap that comes later opens nothing"
    assert sweep.tracker.gaps_against() == 0
    once = store.everything("gaps")
    (sweep.folder / SENT).unlink()
    sweep.drain()
    assert store.everything("gaps") == once
    (sweep.folder / EVENTS).unlink()  # and what is told now, of an extended sweep, is to another control
    again = told("gaps")
    again.tracker.open_sweep({}, {})
    again.tracker.gaps(1, 2, {0: 9.0, 4: 9.0}, 9.0)
    again.drain()
    assert store.everything("gaps")["1"] == once["1"]


def test_marks_and_descriptions_are_tags_that_leave_a_run_as_it_stands(told: Any, store: Store) -> None:
    sweep = told("marks")
    tell(sweep.tracker)
    sweep.tracker.mark(2, {"colour": "grey"}, again=True)  # no mark of it was told
    sweep.tracker.mark(1, {"colour": "blue"})
    sweep.tracker.mark(None, {"colour": "black"})
    sweep.tracker.describe({"mlflow.note.content": "the answer"})
    sweep.tracker.mark(1, {"colour": "grey"}, again=True)
    sweep.drain()
    runs = store.runs("marks")
    assert [runs[n].data.tags.get("colour") for n in ("", "1", "2")] == ["black", "grey", None]
    assert [runs[n].info.status for n in ("", "1", "2")] == ["FINISHED", "FINISHED", "FAILED"]
    experiment = store.client.get_experiment_by_name("marks")
    assert experiment is not None
    assert experiment.tags["mlflow.note.content"] == "the answer"


def test_the_page_is_an_artifact_of_the_sweeps_run_and_a_link_is_not_followed(
    told: Any, store: Store
) -> None:
    sweep = told("paged")
    tell(sweep.tracker)
    page = sweep.folder / "report.html"
    for text in ("<!doctype html>one", "<!doctype html>two", "<!doctype html>two"):
        page.write_text(text)
        sweep.tracker.report()
    before = sweep.tracker.pending()
    sweep.tracker.report()
    assert sweep.tracker.pending() == before, "the same page once"
    sweep.drain()
    parent = store.runs("paged")[""].info
    assert [each.path for each in store.client.list_artifacts(parent.run_id)] == ["report.html"]
    kept = Path(parent.artifact_uri.removeprefix("file://"), "report.html")
    assert kept.is_relative_to(sweep.folder.parent / "mlartifacts"), "not in the working folder"
    assert kept.read_text() == "<!doctype html>two"
    secret = sweep.folder.parent / "secret"
    secret.write_text("mine")
    sweep.tracker._append(lambda box: box.put("report", sha256="other"))
    page.unlink()
    page.symlink_to(secret)
    sweep.drain()
    assert kept.read_text() == "<!doctype html>two"
    assert sweep.tracker.pending() == 0


def test_an_outbox_that_a_power_cut_shortened_is_told_and_delivered_again(told: Any, store: Store) -> None:
    sweep = told("cut")
    tell(sweep.tracker)
    sweep.drain()
    once = store.everything("cut")
    outbox = sweep.folder / EVENTS
    os.truncate(outbox, outbox.stat().st_size // 2)
    again = told("cut")
    again.tracker.open_sweep({}, {})
    again.tracker.points(4, 1, curve(4.0))  # where others stood
    tell(again.tracker)
    again.drain()
    assert store.history(store.runs("cut")["4"], "eval_loss") == [(s, 8.0 - s / 8) for s in STEPS]
    store.client.delete_run(store.runs("cut")["4"].info.run_id)
    assert store.everything("cut") == once
    sent = read_sent(sweep.folder)
    assert sent is not None
    assert sent.offset == outbox.stat().st_size


def test_a_trial_of_many_steps_arrives_in_batches_below_the_limits(told: Any, store: Store) -> None:
    sweep = told("long")
    sweep.tracker.open_sweep({f"p{i}": "x" * 7000 for i in range(130)}, {f"t{i}": "y" for i in range(130)})
    losses = tuple((step, 1.0 / step) for step in range(1, 3001))
    sweep.tracker.declare(0, SETTINGS, {})
    sweep.tracker.points(0, 1, [Point(3000, 1, 1.0, 1.0, 2.0, losses, 9.0)])
    sweep.drain()
    runs = store.runs("long")
    assert len(store.history(runs["0"], "train_loss")) == 3000
    assert {len(value) for value in runs[""].data.params.values()} == {6000}
    assert len(runs[""].data.params) == 130
    assert sum(key.startswith("t") for key in runs[""].data.tags) == 130


def test_a_restarted_sweep_goes_on_in_the_same_runs(told: Any, store: Store) -> None:
    first = told("resumed")
    first.tracker.open_sweep({"budget": {"trials": 1}}, {})
    first.tracker.declare(0, SETTINGS, {"sweeps.role": "search"})
    first.tracker.points(0, 1, curve()[:3])
    first.drain()
    before = store.runs("resumed")
    first.tracker.end_sweep({}, [], 5_100.0)
    first.drain()
    assert store.runs("resumed")[""].info.status == "FINISHED"

    second = told("resumed")
    second.tracker.open_sweep({"budget": {"trials": 40}}, {})
    second.tracker.declare(0, SETTINGS, {"sweeps.role": "search", "sweeps.attempt": 2})
    second.tracker.points(0, 2, curve())
    second.drain()
    after = store.runs("resumed")
    assert {name: run.info.run_id for name, run in after.items()} == {
        name: run.info.run_id for name, run in before.items()
    }
    assert store.history(after["0"], "eval_loss") == [(s, 4.0 - s / 8) for s in STEPS]
    assert store.history(after["0"], "train_loss") == [(s, 4.0 - s / 10) for s in range(1, 9)]
    assert after["0"].data.tags["sweeps.attempt"] == "2"
    assert after[""].info.status == "RUNNING"
    assert after[""].data.params["budget.trials"] == "1"  # MLflow lets no parameter change
    assert after[""].data.tags["now.budget.trials"] == "40"


# --- what other people do to the store ------------------------------------------------------------------------


def test_a_deleted_experiment_stays_deleted_and_the_next_name_gets_the_whole_sweep(
    told: Any, store: Store
) -> None:
    sweep = told("gone")
    tell(sweep.tracker)
    sweep.drain()
    complete = store.everything("gone")
    store.client.delete_experiment(store.client.get_experiment_by_name("gone").experiment_id)
    resumed = told("gone")
    resumed.tracker.open_sweep({"name": "quick", "budget": {"trials": 3}}, {"sweeps.version": "0.1"})
    resumed.drain()
    assert store.client.get_experiment_by_name("gone").lifecycle_stage == "deleted"
    again = store.everything("gone-2")
    assert {n: run[:3] for n, run in again.items()} == {n: run[:3] for n, run in complete.items()}
    sent = read_sent(resumed.folder)
    assert sent is not None
    assert sent.experiment == "gone-2"


def test_a_sweep_leaves_experiments_of_others_with_its_name_alone(told: Any, store: Store) -> None:
    store.client.create_experiment("shared")  # a person's own
    for identity in ("one", "two", "one"):
        sweep = told("shared", folder=identity, study_uuid=identity)
        sweep.tracker.open_sweep({"who": identity}, {})
        sweep.drain()
    assert store.runs("shared") == {}
    assert store.runs("shared-2")[""].data.params == {"who": "one"}
    assert store.runs("shared-3")[""].data.params == {"who": "two"}
    assert store.client.get_experiment_by_name("shared-4") is None


def test_a_deleted_run_stays_deleted_and_the_others_go_on(told: Any, store: Store) -> None:
    sweep = told("pruned")
    tell(sweep.tracker, range(2))
    sweep.drain()
    store.client.delete_run(store.runs("pruned")["1"].info.run_id)
    sweep.tracker.points(1, 1, [Point(16, 1, 1.0, 1.0, 1.5)])
    sweep.tracker.points(0, 1, [Point(16, 1, 1.0, 1.0, 1.5)])
    sweep.drain()
    runs = store.runs("pruned")
    assert sorted(runs) == ["", "0", "2"]
    assert store.history(runs["0"], "eval_loss")[-1] == (16, 1.5)


def test_an_empty_double_of_a_run_is_removed(told: Any, store: Store) -> None:
    sweep = told("ghosts")
    tell(sweep.tracker)
    sweep.drain()
    before = store.runs("ghosts")
    experiment = before["1"].info.experiment_id
    # The reply to a request was lost and the request repeated: as MLflow's own client does.
    store.client.create_run(experiment, tags={"sweeps.study": "ghosts", "sweeps.trial": "ghosts/1"})
    store.client.create_run(experiment, tags={"sweeps.study": "ghosts"})
    sweep.tracker.points(1, 1, [Point(16, 1, 1.0, 1.0, 1.5)])
    sweep.drain()
    after = store.runs("ghosts")
    assert {name: run.info.run_id for name, run in after.items()} == {
        name: run.info.run_id for name, run in before.items()
    }
    assert store.history(after["1"], "eval_loss")[-1] == (16, 1.5)


# --- the process ----------------------------------------------------------------------------------------------


def test_what_the_server_refuses_is_skipped_and_the_rest_arrives(tmp_path: Path, store: Store) -> None:
    tracker = Tracker(store.uri, study="refused", folder=tmp_path / "refused", artifacts=tmp_path)
    tracker.open_sweep({}, {})
    tracker.end(0, State.COMPLETE, {}, {"no such * name \x00?": 1.0})
    tracker.declare(1, SETTINGS, {})
    tracker.points(1, 1, curve())
    assert tracker.close(60.0)
    assert store.history(store.runs("refused")["1"], "eval_loss") == [(s, 4.0 - s / 8) for s in STEPS]
    assert "not delivered" in (tmp_path / "refused" / "outbox.log").read_text()


def test_a_killed_delivery_is_started_again_and_nothing_is_doubled(tmp_path: Path, store: Store) -> None:
    tracker = Tracker(store.uri, study="killed", folder=tmp_path / "killed", artifacts=tmp_path)
    tracker._patience = 0.1
    tell(tracker)
    deadline = time.monotonic() + 60
    while tracker.pending() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert tracker._process is not None
    first = tracker._process.pid
    for _ in range(2):
        tracker._process.kill()
        tracker._process.wait()
        time.sleep(0.3)
        tracker.points(2, 1, [*curve(2.0), Point(16, 1, 1.0, 1.0, 1.5)])
        tracker.declare(3, SETTINGS, {"again": str(tracker._process.pid)})
    assert tracker._process.pid != first
    assert tracker.close(60.0)
    runs = store.runs("killed")
    assert store.history(runs["2"], "eval_loss") == [*((s, 6.0 - s / 8) for s in STEPS), (16, 1.5)]
    assert sorted(runs) == ["", "0", "1", "2", "3"]


DRIVER = """
import sys, time
from pathlib import Path
from sweeps.records import Point
from sweeps.tracking import Tracker
folder = Path(sys.argv[2])
tracker = Tracker(sys.argv[1], study="orphan", folder=folder, artifacts=folder)
tracker.open_sweep({}, {})
tracker.declare(0, {}, {})
tracker.points(0, 1, [Point(step, step, 1.0, 1.0, 2.0, (), 9.0) for step in range(5)])
print(tracker._process.pid, flush=True)
time.sleep(600)
"""


def test_a_killed_driver_leaves_no_process_behind_and_loses_nothing(tmp_path: Path, store: Store) -> None:
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, store.uri, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert driver.stdout is not None
    process = int(driver.stdout.readline())
    driver.kill()
    driver.wait()
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline and alive(process):
        time.sleep(0.1)
    assert not alive(process)
    assert store.history(store.runs("orphan")["0"], "eval_loss") == [(s, 2.0) for s in range(5)]


# --- a server -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, quiet: None, empty_mlflow: Path
) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path_factory.mktemp("server"))
    shutil.copy(empty_mlflow, server.database)
    server.start()
    yield server
    server.close()


def test_a_server_that_is_killed_and_comes_back_has_everything_exactly_once(
    server: MlflowServer, tmp_path: Path
) -> None:
    tracker = Tracker(server.uri, study="outage", folder=tmp_path / "outage", artifacts=tmp_path)
    slowest = 0.0
    trials, killed_at, back_at = 12, 4, 9

    def timed(method: Any, *arguments: Any) -> None:
        nonlocal slowest
        began = time.perf_counter()
        method(*arguments)
        slowest = max(slowest, time.perf_counter() - began)

    tracker.open_sweep({"name": "outage"}, {})
    deadline = time.monotonic() + 60
    while tracker.pending() and time.monotonic() < deadline:
        time.sleep(0.1)  # delivery is under way before the server goes
    assert not tracker.pending()
    for number in range(trials):
        if number == killed_at:
            server.close()
        if number == back_at:
            server.start()
        timed(tracker.declare, number, SETTINGS, {"sweeps.role": "search"})
        for point in curve(number):
            timed(tracker.points, number, 1, [point])
            time.sleep(0.01)
        timed(tracker.end, number, State.COMPLETE, {}, {"objective": float(number)})
    timed(tracker.rank, list(range(trials)))
    assert slowest < 0.05
    assert tracker.close(120.0), (tmp_path / "outage" / "outbox.log").read_text()[-2000:]
    assert "next try" in (tmp_path / "outage" / "outbox.log").read_text()

    store = Store(server.uri)
    content = store.everything("outage")
    assert sorted(content, key=lambda name: int(name or -1)) == ["", *(str(n) for n in range(trials))]
    for number in range(trials):
        metrics, params, tags, status = content[str(number)]
        assert metrics["eval_loss"] == [(s, 4.0 + number - s / 8) for s in STEPS]
        assert metrics["train_loss"] == [(s, 4.0 + number - s / 10) for s in range(1, 9)]
        assert metrics["objective"] == [(0, float(number))]
        assert (params["injection.k"], tags["sweeps.rank"], status) == ("4", f"{number + 1:02d}", "FINISHED")


@pytest.mark.parametrize("silent", [True, False], ids=["accepts and says nothing", "refuses"])
def test_a_server_that_is_not_there_costs_no_time_and_what_was_told_waits(
    tmp_path: Path, silent: bool
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if silent:
            listener.listen(8)
        uri = f"http://127.0.0.1:{listener.getsockname()[1]}"
        tracker = Tracker(uri, study="away", folder=tmp_path / "away", artifacts=tmp_path)
        began = time.perf_counter()
        tell(tracker)
        assert time.perf_counter() - began < 1.0
        began = time.perf_counter()
        assert not tracker.close(3.0)
        assert time.perf_counter() - began < 5.0
    assert tracker._process is not None
    assert tracker._process.poll() is not None
    assert not Outbox(tmp_path / "away").points(1, 1, curve(1.0))  # all of it is still known
    assert read_sent(tmp_path / "away") is None


# --- this side ------------------------------------------------------------------------------------------------


def test_importing_the_tracker_loads_no_mlflow_and_opening_one_says_nothing(
    tmp_path: Path, empty_mlflow: Path
) -> None:
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    script = """
import sys
from pathlib import Path
from sweeps.tracking import Tracker, tracking_problems
folder = Path(sys.argv[1])
tracker = Tracker("sqlite", study="s", folder=folder / "s", artifacts=folder)
assert not folder.joinpath("s").exists()
tracker.open_sweep({}, {})
assert tracker.close(60.0)
assert not {"mlflow", "sqlalchemy", "requests"} & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_folder_that_cannot_be_written_is_a_problem_and_not_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    tracker = Tracker("sqlite", study="s", folder=tmp_path / "file" / "s", artifacts=tmp_path)
    tell(tracker)
    assert not tracker.close(1.0)
    assert tracker.problem is not None
    assert "NotADirectoryError" in tracker.problem or "FileExistsError" in tracker.problem


def test_no_tracking_takes_everything_and_writes_nothing(tmp_path: Path) -> None:
    tracker = open_tracker(None, study="s", folder=tmp_path / "s", artifacts=tmp_path)
    assert isinstance(tracker, NullTracker)
    tracker.open_sweep({}, {})
    tracker.declare(1, {}, {})
    tracker.points(1, 1, curve())
    tracker.end(1, State.COMPLETE, {}, {})
    tracker.end_sweep({}, [], 0.0)
    tracker.rank([1])
    assert tracker.close(0.0)
    assert list(tmp_path.iterdir()) == []


def test_the_test_loss_is_a_metric_at_the_last_step() -> None:
    from sweeps.tracking.batches import batches

    points = [Point(4, 256, 1.0, 1.0, 3.5), Point(8, 512, 2.0, 2.0, 3.4, test_losses=(3.0, 3.5))]
    evals = [{**point.to_json(), "time": 7.0} for point in points]
    (batch,) = batches(
        [{"kind": "points", "number": 0, "attempt": 1, "evals": evals, "train": [], "time": 7.0}]
    )
    assert [(m.step, m.value) for m in batch.metrics if m.key == "test_loss"] == [(8, 3.25)]


def test_names_and_parameters() -> None:
    params = flat({"recipe": {"learning_rate": 0.00025, "train": "all", "clip": None}, "on": True})
    assert params == {
        "recipe.learning_rate": "0.00025",
        "recipe.train": "all",
        "recipe.clip": "null",
        "on": "true",
    }
    assert flat({"storage": {"study": "postgresql://me:secret@db/x"}}) == {
        "storage.study": "postgresql://me:***@db/x"
    }
    assert json.loads(json.dumps(params)) == params


# --- the registry ---------------------------------------------------------------------------------------------


def test_a_model_is_registered_once_under_every_name_and_what_leads_elsewhere_is_not(
    told: Any, store: Store
) -> None:
    made = told("registered")
    tracker, model = made.tracker, made.folder / "trials/0000/final-2"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    tell(tracker)
    tags = {"sweeps.model": "study/0/2", "sweeps.trial": 0, "mlflow.note.content": "what it is"}
    tracker.register(0, 2, ["mine"], tags)
    tracker.register(0, 2, ["mine"], tags)
    made.drain()
    tracker.register(0, 2, ["mine", "theirs"], tags)
    (made.folder / "trials/0001/final-1").mkdir(parents=True)
    (made.folder / "trials/0001/final-1/config.json").symlink_to(model / "config.json")
    tracker.register(1, 1, ["linked"], {"sweeps.model": "study/1/1"})
    tracker.register(2, 1, ["absent"], {"sweeps.model": "study/2/1"})
    tracker.declare(3, SETTINGS, {"sweeps.role": "search"})
    made.drain()
    (made.folder / SENT).unlink()
    made.drain()  # all of it again
    run = store.runs("registered")["0"]
    for name in ("mine", "theirs"):
        (version,) = store.client.search_model_versions(f"name='{name}'")
        assert (version.source, version.run_id) == (model.as_uri(), run.info.run_id)
        assert (version.tags["sweeps.trial"], version.description) == ("0", "what it is")
    found = {each.name for each in store.client.search_registered_models()}
    assert found & {"mine", "theirs", "linked", "absent"} == {"mine", "theirs"}
    assert "3" in store.runs("registered"), "what came after is delivered"
    assert registered_in(made.folder, read_sent(made.folder).target) == {  # type: ignore[union-attr]
        "mine/study/0/2": "1",
        "theirs/study/0/2": "1",
    }


@pytest.mark.parametrize(
    "event",
    [
        {"names": ["a/b"]},
        {"names": []},
        {"names": "mine"},
        {"attempt": "1"},
        {"attempt": True},
        {"tags": {}},
        {"tags": {"sweeps.model": 1}},
        {"number": "../.."},
    ],
    ids=str,
)
def test_an_event_of_the_registry_that_is_none_is_passed_over(event: dict[str, Any]) -> None:
    whole = {
        "kind": "register",
        "number": 1,
        "time": 1.0,
        "attempt": 1,
        "names": ["mine"],
        "tags": {"sweeps.model": "k"},
    }
    assert parse(json.dumps(whole).encode()) == whole
    assert parse(json.dumps(whole | event).encode()) is None
