"""The ranks of a trial beside rank 0: actors in the bundles of its placement group, kept between trials."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError
from ray.util import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from sweeps.records import Assignment, Cause, Outcome, Role, State
from sweeps.spec import Spec
from sweeps.wording import masked
from sweeps.worker.preemption import PreemptionFlag
from sweeps.worker.ranks import Ending, run_peer

if TYPE_CHECKING:
    from tli.sharded.processes import Group

_STARTED_SECONDS = 600.0  # for the processes of all ranks to load their libraries and meet
_SAID_SECONDS = 15.0  # for the end of a rank to be known that another one saw go; less than rank 0 waits
_NOTICED_SECONDS = 30.0  # for rank 0 to notice by itself that another one is gone; NCCL does not tell it
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
    """The other ranks, for rank 0: started in its placement group, and watched from then on.

    A collective does not always say that another rank is gone: NCCL waits for it, for ever. So a thread
    watches their tasks, and where one fails alone it ends this process at once, under the fault's own cause.
    The group is not aborted first: a collective that is aborted gives numbers that were never summed, and the
    training would go on with them to its next measurement. With this process goes its placement group, and
    with that every rank.
    """

    def __init__(self, spec: Spec, leave: Callable[[Outcome], bool]) -> None:
        """Start them and meet them; called in the actor of rank 0, in its placement group.

        Args:
            spec: of the sweep.
            leave: says on disk how the attempt ends, and whether that could be said; called in a thread.

        Raises:
            RayError: one of them could not be started.
        """
        from tli.sharded.processes import join, meeting
        from tli.training.ranks import Ranks

        wanted, bundles = spec.resources, get_current_placement_group()
        actor = ray.remote(Peer)
        self._leave = leave
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
        self._watch(joining)  # one that dies before it comes would be waited for
        self.group: Group = join(store, Ranks(0, wanted.workers), device, timeout=_COLLECTIVE_SECONDS)
        self.processes: list[int] = ray.get(joining, timeout=_STARTED_SECONDS)

    def begin(self, spec: str, assignment: Assignment) -> None:
        """Have them begin a trial, and watch them."""
        self._watch([peer.run.remote(spec, asdict(assignment)) for peer in self._actors])

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

    def _watch(self, tasks: list[Any]) -> None:
        """Watch a task of each of them, in place of the ones before."""
        self.rest()
        self._fault, self._found, self._stopped = None, threading.Event(), threading.Event()
        watched = (tasks, self._found, self._stopped)
        self._watching = threading.Thread(target=self._look_on, args=watched, name="peers", daemon=True)
        self._watching.start()

    def _look_on(self, tasks: list[Any], found: threading.Event, stopped: threading.Event) -> None:
        left, until = list(tasks), math.inf
        while left and not stopped.is_set() and time.monotonic() < until:
            done, left = ray.wait(left, num_returns=1, timeout=_LOOKED_EVERY)
            for task in done:
                ending = _ending(task, tasks.index(task) + 1, len(tasks) + 1)
                if ending.together or (self._fault is not None and ending.broken):
                    continue
                self._fault = ending
                # One that saw only that another has gone: that other one's own end is about to be known.
                until = min(until, time.monotonic() + _SAID_SECONDS) if ending.broken else 0.0
        found.set()
        if self._fault is None or stopped.is_set():
            return
        self._kill()
        # What the disk does not take, the thread that trains may yet say, if it learns of it.
        if self._leave(self._fault.outcome) or not stopped.wait(_NOTICED_SECONDS):
            os.kill(os.getpid(), signal.SIGKILL)


def _ending(task: Any, rank: int, size: int) -> Ending:
    named = f"rank {rank} of {size}"
    try:
        said = ray.get(task)
    except RayError as error:
        return Ending(_death(error, named))
    if not isinstance(said, dict):  # it has met the others
        return Ending(Outcome(State.COMPLETE))
    broken = said.pop("broken")
    cause = Cause(said["cause"]) if said["cause"] else None
    reason = said["reason"] and f"{named}: {said['reason']}"
    return Ending(Outcome(State(said["state"]), reason, cause, fatal=said["fatal"]), broken)


def _death(error: RayError, named: str) -> Outcome:
    """What a rank's process ended by that could not say so itself."""
    if isinstance(error, RayActorError) and error.preempted:
        return Outcome(State.FAIL, f"{named} lost its node, which was told to go", Cause.PREEMPTED)
    if isinstance(error, OutOfMemoryError):
        return Outcome(
            State.FAIL, f"{named} was ended by Ray, as its node ran out of memory", Cause.OUT_OF_MEMORY
        )
    if isinstance(error, RayTaskError):
        return Outcome(State.FAIL, f"{named}: {masked(str(error.cause).partition(chr(10))[0])}", Cause.ERROR)
    return Outcome(State.FAIL, f"{named} died", Cause.LOST)
