"""Over Ray Tune: when Ray has lost the driver's own node, the sweep ends instead of waiting for ever."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from sweeps.clock import Awake
from sweeps.driver.on_ray import callbacks
from sweeps.driver.on_ray.callbacks import OwnNode
from sweeps.driver.on_ray.searcher import AgendaSearcher
from sweeps.driver.on_ray.stall_monitor import StallMonitor
from sweeps.driver.on_ray.tuner import start_cluster, stop_cluster
from sweeps.errors import SweepError
from sweeps.records import Assignment, Cause, Outcome, Role
from sweeps.spec import load_spec
from tests.bench.processes import descendants


class Context:
    """What Ray says of this process."""

    def get_node_id(self) -> str:
        return "ours"


@pytest.mark.parametrize(("ours", "theirs"), [(True, True), (True, False), (False, True)])
def test_only_our_own_node_ends_it(*, ours: bool, theirs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"NodeID": "ours", "Alive": ours}, {"NodeID": "theirs", "Alive": theirs}]
    monkeypatch.setattr(ray, "get_runtime_context", Context)
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(callbacks, "_LOOKED_EVERY", 0.0)
    looking = OwnNode()
    if ours:
        looking.on_step_begin(0, [])
    else:
        with pytest.raises(SweepError, match="the same command again goes on"):
            looking.on_step_begin(0, [])


class Endings:
    """An agenda that keeps how executions ended."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def next(self) -> Assignment:
        return Assignment("s", 0, 1, Role.SEARCH, {}, 4, (0, 4))

    def finish(self, number: int, attempt: int, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


@pytest.mark.parametrize(("stopped", "cause"), [(0.0, Cause.HUNG), (3600.0, Cause.LOST)])
def test_a_worker_that_ended_itself_after_a_stop_did_not_hang(
    stopped: float, cause: Cause, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    clock = Awake(clock=lambda: now[0])
    monkeypatch.setattr("sweeps.driver.on_ray.searcher.awake", lambda: clock)
    agenda = Endings()
    watch = StallMonitor(60.0, lambda *_: None)
    searcher = AgendaSearcher(agenda, {}, watch, hung=lambda _: Path("hung-1.txt"))  # type: ignore[arg-type]
    searcher.suggest("a")
    now[0] += stopped
    searcher.on_trial_complete("a")
    assert [outcome.cause for outcome in agenda.outcomes] == [cause]


@pytest.mark.ray
@pytest.mark.slow
def test_a_raylet_that_is_killed_is_noticed(write_spec: Callable[..., Path]) -> None:
    start_cluster(load_spec(str(write_spec())), None)
    try:
        looking = OwnNode()
        (raylet,) = [
            pid
            for pid in descendants(os.getpid())
            if b"raylet/raylet\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        os.kill(raylet, signal.SIGKILL)
        with pytest.raises(SweepError, match="raylet on this machine died"):
            _look(looking, seconds=60)
    finally:
        stop_cluster()


def _look(looking: OwnNode, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        looking.on_step_begin(0, [])
        time.sleep(0.5)
