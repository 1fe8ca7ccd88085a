"""The ranks of a trial beside rank 0: actors in the bundles of its placement group, kept between trials."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError
from ray.util import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from sweeps.records import Assignment, Cause, Outcome, Role, State
from sweeps.spec import Spec
from sweeps.worker.preemption import PreemptionFlag
from sweeps.worker.ranks import Ending, run_peer

if TYPE_CHECKING:
    from tli.sharded.processes import Group

_STARTED_SECONDS = 600.0  # for the processes of all ranks to load their libraries and meet
_NOTICED_SECONDS = 30.0  # for rank 0 to notice that another one is gone; NCCL does not tell it
_COLLECTIVE_SECONDS = 7 * 24 * 3600.0  # the watchdog and the driver know better how long a step may take
_LOOKED_EVERY = 1.0  # seconds


class Peer:
    """A rank beside rank 0, as an actor. The process is there for trials alone."""

    def __init__(self) -> None:
        """Take SIGTERM over: the step ends, and all ranks write their states."""
        self._preemption = PreemptionFlag()

    def join(self, address: str, rank: int, size: int, device: str) -> int:
        """Meet the other ranks; returns this process's id."""
        from tli.sharded.processes import join
        from tli.training.ranks import Ranks

        self._group = join(address, Ranks(rank, size), device, timeout=_COLLECTIVE_SECONDS)
        return os.getpid()

    def run(self, spec: str, given: dict[str, Any]) -> dict[str, Any]:
        """Run this rank's part of a trial; how it ended, as plain values."""
        ending = run_peer(spec, assignment_from(given), self._group, self._preemption)
        return {**asdict(ending.outcome), "broken": ending.broken}


def assignment_from(given: dict[str, Any]) -> Assignment:
    """An assignment that went from process to process as plain values."""
    begins = tuple(given["begins"]) if given["begins"] else None
    plain = {
        **given,
        "role": Role(given["role"]),
        "report_steps": tuple(given["report_steps"]),
        "begins": begins,
    }
    return Assignment(**plain)


class Peers:
    """The other ranks, for rank 0: started in its placement group, watched while a trial runs.

    A collective does not always say that another rank is gone: NCCL waits for it. So a thread watches their
    tasks, and ends this process where it does not notice; its placement group, and with it every rank, goes
    with it.
    """

    def __init__(self, spec: Spec) -> None:
        """Start them and meet them; called in the actor of rank 0, in its placement group.

        Raises:
            RayError: one of them could not be started.
        """
        from tli.sharded.processes import join, meeting
        from tli.training.ranks import Ranks

        wanted, bundles = spec.resources, get_current_placement_group()
        actor = ray.remote(Peer)
        self._actors = [
            actor.options(
                num_cpus=wanted.cpus,
                num_gpus=wanted.gpus,
                max_restarts=0,
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    bundles, placement_group_bundle_index=rank
                ),
            ).remote()
            for rank in range(1, wanted.workers)
        ]
        self._runs: list[Any] = []
        self._fault: Ending | None = None
        self._found, self._stopped = threading.Event(), threading.Event()
        self._watching: threading.Thread | None = None
        device = "cuda" if wanted.gpus else "cpu"
        store = meeting(ray.util.get_node_ip_address())
        address = f"{store.host}:{store.port}"
        joining = [
            peer.join.remote(address, rank, wanted.workers, device)
            for rank, peer in enumerate(self._actors, 1)
        ]
        self.group: Group = join(store, Ranks(0, wanted.workers), device, timeout=_COLLECTIVE_SECONDS)
        self.processes: list[int] = ray.get(joining, timeout=_STARTED_SECONDS)

    def begin(self, spec: str, assignment: Assignment) -> None:
        """Have them begin a trial, and watch them."""
        self.rest()
        self._runs = [peer.run.remote(spec, asdict(assignment)) for peer in self._actors]
        self._fault, self._found, self._stopped = None, threading.Event(), threading.Event()
        watched = (list(self._runs), self._found, self._stopped)
        self._watching = threading.Thread(target=self._watch, args=watched, name="peers", daemon=True)
        self._watching.start()

    def rest(self) -> None:
        """Rank 0 has ended its part: nothing is watched any more."""
        self._stopped.set()
        if self._watching is not None:
            self._watching.join()
            self._watching = None

    def fault(self, seconds: float) -> Ending | None:
        """How the first of them ended that did not end with the others; waits for it a while."""
        self._found.wait(seconds)
        return self._fault

    def end(self) -> None:
        """End their processes, in whatever state they are."""
        self.rest()
        self._kill()

    def _kill(self) -> None:
        for peer in self._actors:
            with suppress(RayError):
                ray.kill(peer)

    def _watch(self, runs: list[Any], found: threading.Event, stopped: threading.Event) -> None:
        left = list(runs)
        while left and not stopped.is_set():
            done, left = ray.wait(left, num_returns=1, timeout=_LOOKED_EVERY)
            for run in done:
                ending = _ending(run, runs.index(run) + 1, len(runs) + 1)
                if ending.together or (self._fault is not None and ending.broken):
                    continue
                if self._fault is None or self._fault.broken:
                    self._fault = ending
                if not ending.broken:
                    found.set()
            if found.is_set():
                break
        found.set()
        if self._fault is None or stopped.is_set():
            return
        # What waits for the rank that failed, here and in the others, ends with that one's connections.
        self._kill()
        if not stopped.wait(_NOTICED_SECONDS):
            os.kill(os.getpid(), signal.SIGKILL)  # its driver finds the worker lost, and the trial goes on


def _ending(run: Any, rank: int, size: int) -> Ending:
    try:
        said = ray.get(run)
    except RayError:
        return Ending(Outcome(State.FAIL, f"rank {rank} of {size} died", Cause.LOST))
    broken = said.pop("broken")
    cause = Cause(said["cause"]) if said["cause"] else None
    reason = said["reason"] and f"rank {rank} of {size}: {said['reason']}"
    return Ending(Outcome(State(said["state"]), reason, cause, fatal=said["fatal"]), broken)
