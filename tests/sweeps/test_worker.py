"""What a worker's process does when it is told to go, when it hangs, and when it comes back too late."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tli.training.loop
from sweeps.curve import read_curve
from sweeps.driver.service import run
from sweeps.driver.single import assignment_of
from sweeps.folders import Folders
from sweeps.records import Assignment, Cause, Point, Role
from sweeps.results.export import export
from sweeps.spec import Spec, load_spec
from sweeps.tracking.batches import batches
from sweeps.tracking.outbox import Outbox, read_events
from sweeps.worker.execution import Execution, Worker
from sweeps.worker.gpu_metrics import GpuMetrics
from sweeps.worker.preemption import PreemptionFlag
from sweeps.worker.trial import WorkerContext, for_workers, run_trial
from sweeps.worker.watchdog import Bounds, Watchdog, hung
from tests.forked import Forked, forked
from tli.training.device import gpu_readings


def work(
    plain: dict[str, Any], given: dict[str, Any], pause: float, hang_at: int | None, least: float
) -> None:
    """A worker without Ray: it runs one attempt, slowed down or stopped where it is told to, and prints each reply."""
    role, steps = Role(given["role"]), tuple(given["report_steps"])
    assignment = Assignment(**{**given, "role": role, "report_steps": steps})
    inner = tli.training.loop.Training._advance

    def advance(self: Any) -> Any:
        time.sleep(pause)
        if self.step == hang_at:
            ctypes.PyDLL(None).pause()  # for ever, and it holds the interpreter
        print("step", self.step, flush=True)
        return inner(self)

    tli.training.loop.Training._advance = advance  # type: ignore[method-assign]
    bounds = Bounds(first=60.0, least=least)
    execution = Execution(Spec.from_json(plain), assignment, Worker(PreemptionFlag(), bounds))
    while True:
        reply = execution.advance()
        print("measured", [point.step for point in reply.points], flush=True)
        if reply.outcome is not None:
            print(reply.outcome.state, reply.outcome.cause, reply.outcome.reason, flush=True)
            break
    execution.close()
    print("waiting", flush=True)
    time.sleep(600)


@pytest.fixture
def spec(write_spec: Any) -> Spec:
    return for_workers(load_spec(str(write_spec())))


Started = Callable[..., Forked]


@pytest.fixture
def started(spec: Spec, tmp_path: Path) -> Iterator[Started]:
    """Starts workers; none outlives the test."""
    with contextlib.ExitStack() as stack:

        def start(*, pause: float = 0.0, hang_at: int | None = None, least: float = 60.0) -> Forked:
            given = {**vars(assignment_of(spec, 1)), "attempt": 1, "report_steps": (0, 4, 8)}
            plain = json.loads(json.dumps([spec.to_json(), given]))
            return stack.enter_context(forked(work, *plain, pause, hang_at, least, folder=tmp_path))

        yield start


def until(process: Forked, wanted: str) -> list[str]:
    lines = []
    for line in process.lines():
        lines.append(line.strip())
        if wanted in line:
            return lines
    pytest.fail(f"{wanted!r} never came, but {lines}: {process.err.read_text()}")


def losses_of(spec: Spec, folders: Folders) -> list[tuple[int, float, Any]]:
    """Of the whole trial in this process."""
    assignment = replace(assignment_of(spec, 1), attempt=2, report_steps=(0, 4, 8))
    points = [point for points in run_trial(WorkerContext(spec), assignment, folders) for point in points]
    return [(p.step, p.eval_loss, p.train_loss) for p in points]


def test_told_to_go_it_goes_after_a_checkpoint(spec: Spec, started: Started) -> None:
    process = started(pause=0.1)
    until(process, "step 5")
    told = time.monotonic()
    process.send_signal(signal.SIGTERM)
    lines = until(process, "preempted")
    assert time.monotonic() - told < 3  # the grace that `ray job stop` gives
    assert lines[-1].startswith("FAIL preempted")
    until(process, "waiting")
    process.send_signal(signal.SIGTERM)  # with no trial under way it is what it was before
    assert process.wait(10) == -signal.SIGTERM
    folders = Folders(spec.root, spec.name)
    (state,) = folders.checkpoints(1).iterdir()
    assert state.name.startswith(("step-00000006", "step-00000007"))
    assert [point.step for point in read_curve(folders.trial(1) / "curve.jsonl")] == [0, 4]
    assert not list(folders.trial(1).glob("hung-*"))
    # It goes on between two measurements as if nothing had been: losses and weights to the last bit.
    alone = Folders(spec.root / "alone", spec.name)
    assert losses_of(spec, folders) == losses_of(spec, alone)
    weights = [place.model_dir(1, 2) / "model.safetensors" for place in (folders, alone)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_one_that_is_recalled_ends_before_its_next_measurement(spec: Spec, started: Started) -> None:
    process = started(pause=0.6)
    until(process, "step 4")
    folders = Folders(spec.root, spec.name)
    assignment = assignment_of(spec, 1)
    folders.request_stop(replace(assignment, attempt=2))
    folders.request_stop(replace(assignment, token="handed out by an earlier study"))
    assert not folders.stop_requested(assignment)
    folders.request_stop(assignment)
    lines = until(process, "PRUNED")
    assert lines[-1] == "PRUNED None None"
    assert "step 8" not in lines
    until(process, "waiting")  # the process stays, for the next trial
    assert process.poll() is None
    process.terminate()
    assert [point.step for point in read_curve(folders.trial(1) / "curve.jsonl")] == [0, 4]
    folders.drop_checkpoints(1)
    assert sorted(path.name for path in folders.trial(1).iterdir()) == ["curve.jsonl"]


def test_one_that_hangs_writes_its_stacks_and_ends(spec: Spec, started: Started) -> None:
    process = started(hang_at=5, least=0.5)
    until(process, "step 4")
    assert process.wait(20) == 1
    folders, assignment = Folders(spec.root, spec.name), assignment_of(spec, 1)
    stacks = hung(folders, assignment)
    assert stacks is not None
    assert "Timeout" in stacks.read_text()
    assert "in advance" in stacks.read_text()
    assert hung(folders, replace(assignment, attempt=2)) is None
    assert hung(folders, replace(assignment, token="of a later study")) is None


def test_a_late_attempt_harms_nothing_of_the_accepted_one(spec: Spec, started: Started) -> None:
    """Stopped in the middle of a step while a second attempt runs to its end; then it goes on, to its own."""
    late = started(pause=0.05)
    until(late, "step 5")
    late.send_signal(signal.SIGSTOP)
    folders = Folders(spec.root, spec.name)
    accepted = losses_of(spec, folders)
    curve = read_curve(folders.trial(1) / "curve.jsonl")
    kept = {path.name: path.read_bytes() for path in folders.model_dir(1, 2).iterdir()}
    late.send_signal(signal.SIGCONT)
    assert until(late, "waiting")[-2].startswith("COMPLETE")
    assert {path.name: path.read_bytes() for path in folders.model_dir(1, 2).iterdir()} == kept
    assert read_curve(folders.trial(1) / "curve.jsonl") == curve
    assert [(p.step, p.eval_loss, p.train_loss) for p in curve] == accepted
    folders.drop_finals(1, but=2)
    assert not folders.model_dir(1, 1).exists()
    assert folders.model_dir(1, 2).exists()


def test_what_is_exported_is_of_the_accepted_attempt(write_spec: Any, silent: Any, tmp_path: Path) -> None:
    sweep = run(load_spec(str(write_spec(trials=2))), silent, runner="inline")
    stray = sweep.folders.model_dir(1, 7)
    stray.mkdir()
    (stray / "lineage.json").write_text("{}")
    torn = stray.with_name(".final-3.tmp-1")  # of an attempt that was killed while it wrote
    torn.mkdir()
    export(sweep, tmp_path / "out", trial=1)
    assert json.loads((tmp_path / "out" / "lineage.json").read_text())["attempt"] == 1
    run(load_spec(str(write_spec(trials=2))), silent, runner="inline")
    assert not stray.exists()
    assert not torn.exists()


def test_how_long_work_may_take_is_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("sweeps.worker.watchdog.time.monotonic", lambda: now[0])
    (tmp_path / "trial").mkdir()
    watchdog = Watchdog(tmp_path / "trial" / "hung-1.txt", Bounds(first=1800.0, least=60.0, times=20.0))

    def work(kind: str, seconds: float) -> float:
        watchdog.begin(kind)
        now[0] += seconds
        watchdog.rest()
        return watchdog.bound(kind)

    assert watchdog.bound("step") == 1800
    assert work("step", 300.0) == 1800  # it was compiled: nothing is known of those after it
    assert work("step", 1.0) == 60
    assert work("step", 5.0) == 100
    assert work("step", 1.0) == 100
    assert watchdog.bound("evaluation") == 1800
    work("writing", 0.1)
    assert work("writing", 0.1) == 600, "a state was copied fast; the model may meet a slow disk"
    assert work("writing", 50.0) == 1000
    watchdog.close()
    assert list((tmp_path / "trial").iterdir()) == []


@pytest.mark.ray
@pytest.mark.slow
def test_a_preempted_worker_of_ray_hands_its_trial_on(
    write_spec: Any, silent: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    changes = {
        "tokens: 512": "tokens: 12800",
        "parallel: 2": "parallel: 1",
        "rule: asha": "rule: none",
    }
    told: list[int] = []

    def update(records: Any, phase: str) -> None:
        running = [record for record in records if not record.state.finished]
        if running and running[0].number >= len(told) and running[0].step > 0:
            (pid,) = workers()
            os.kill(pid, signal.SIGTERM)
            told.append(pid)

    alone = run(load_spec(str(write_spec("alone", trials=2, replace=changes))), silent, runner="inline")
    monkeypatch.setattr(silent, "update", update)
    sweep = run(load_spec(str(write_spec(trials=2, replace=changes))), silent)
    assert len(told) == len(set(told)) == 2
    assert [record.retries.get(Cause.PREEMPTED) for record in sweep.records] == [1, 1]
    assert [record.losses for record in sweep.records] == [record.losses for record in alone.records]


@pytest.mark.slow
def test_a_hundred_trials_leave_nothing_in_memory(spec: Spec) -> None:
    """Of every kind in turn, some of them stopped early and some that diverge, in one slot."""
    kinds = list(itertools.product((1, 2, 4), ("copy", "identity", "random")))
    base = assignment_of(spec, 1)

    def trial(number: int) -> None:
        k, init = kinds[number % len(kinds)]
        injection = {**base.settings["injection"], "k": k, "init": init}
        rate = 1e30 if number % 10 == 9 else 1e-3
        settings = {"injection": injection, "recipe": {**base.settings["recipe"], "learning_rate": rate}}
        given = replace(base, number=number, settings={**base.settings, **settings})
        execution = Execution(spec, given)
        while (reply := execution.advance()).outcome is None and (
            number % 10 != 7 or reply.points[-1].step < 2
        ):
            pass
        execution.close()

    def memory() -> tuple[int, int]:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE"), len(gc.get_objects())

    for number in range(20):
        trial(number)
    resident, objects = memory()
    for number in range(20, 120):
        trial(number)
    resident_after, objects_after = memory()
    assert objects_after - objects < 100  # less than one for each trial
    assert resident_after - resident < 4 * 2**20


@pytest.mark.ray
@pytest.mark.slow
def test_the_workers_that_searched_train_the_replicates(
    write_spec: Any, silent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two all of them wait for the last trial of the search; none is let go meanwhile."""
    from sweeps.driver.on_ray.searcher import AgendaSearcher

    report, seen = AgendaSearcher.report, dict[str, set[int]]()

    def note(self: Any, trial_id: str, result: dict[str, Any]) -> bool:
        seen.setdefault(self.agenda.phase, set()).add(result["worker"][1])
        return report(self, trial_id, result)

    monkeypatch.setattr(AgendaSearcher, "report", note)
    run(load_spec(str(write_spec(trials=5, replace={"top: 1, seeds: 1": "top: 2, seeds: 2"}))), silent)
    assert len(seen["search"]) == 2
    assert seen["finalists"] == seen["search"]


def workers() -> list[int]:
    """Ray's workers below this process, not those of another."""
    found = []
    for name in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if name.read_bytes().startswith(b"ray::SlotTrainable") and os.getpid() in above(name.parent):
                found.append(int(name.parent.name))
    return found


def above(process: Path) -> set[int]:
    parents = set[int]()
    while process.name != "0":
        process = process.with_name((process / "stat").read_text().rpartition(")")[2].split()[1])
        parents.add(int(process.name))
    return parents


def test_gpu_metrics_are_means_by_a_thread_of_their_own_and_outlive_a_reading_that_fails() -> None:
    """With made-up readings: no GPU is asked here."""
    readings = iter((10.0, -1.0, 30.0))
    done = threading.Event()

    def read() -> dict[str, float]:
        value = next(readings, None)
        if value is None:
            done.set()
        if value is None or value < 0:
            raise RuntimeError("the driver does not answer")
        return {"gpu_0_utilization_percentage": value}

    metrics = GpuMetrics(read, every=0.001)
    assert done.wait(10.0)
    assert metrics.take() == {"gpu_0_utilization_percentage": 20.0}
    assert metrics.take() == {}
    metrics.close()
    assert not any(thread.name == "gpu metrics" for thread in threading.enumerate())


def test_gpu_metrics_pass_through_the_outbox_as_mlflows_system_metrics(tmp_path: Path) -> None:
    point = Point(4, 256, 1.0, 1.0, 3.5, time=7.0, system={"gpu_0_utilization_percentage": 20.0})
    assert Point.from_json(json.loads(json.dumps(point.to_json()))) == point
    assert "system" not in replace(point, system={}).to_json()
    with pytest.raises(TypeError):
        Point.from_json({**point.to_json(), "system": {"gpu": "busy"}})
    box = Outbox(tmp_path)
    box.points(0, 1, [point])
    (batch,) = batches([event for event, _ in read_events(box.path) if event is not None])
    found = {metric.key: (metric.value, metric.step) for metric in batch.metrics}
    assert found["system/gpu_0_utilization_percentage"] == (20.0, 4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_there_is_nothing_to_read() -> None:
    assert gpu_readings() == {}
