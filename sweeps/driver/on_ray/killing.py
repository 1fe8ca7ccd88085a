"""Ends the processes of workers, on whichever node they are."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_KILL_SECONDS = 60.0  # for a process to start on the worker's node and do it


def kill_worker(node: str, pid: int) -> None:
    """End a worker that may be frozen, which Ray could only ask to end itself."""
    strategy = NodeAffinitySchedulingStrategy(node, soft=False)
    kill = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=strategy)(_kill)
    with suppress(RayError):  # its node is gone, and the worker with it
        ray.get(kill.remote(pid), timeout=_KILL_SECONDS)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
