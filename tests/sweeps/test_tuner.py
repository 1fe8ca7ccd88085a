"""Over Ray Tune: when Ray has lost the driver's own node, the sweep ends instead of waiting for ever."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from sweeps import tuner
from sweeps.errors import SweepError
from sweeps.spec import load_spec
from sweeps.tuner import OwnNode, start_cluster, stop_cluster
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
    monkeypatch.setattr(tuner, "_LOOKED_EVERY", 0.0)
    looking = OwnNode()
    if ours:
        looking.on_step_begin(0, [])
    else:
        with pytest.raises(SweepError, match="the same command again goes on"):
            looking.on_step_begin(0, [])


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
