"""One attempt at one trial as an iterator of points that ends in an outcome."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from dataclasses import dataclass, replace

from sweeps.errors import PreemptedError, StopRequestedError
from sweeps.folders import Folders
from sweeps.ownership import study_uuid_in
from sweeps.records import Assignment, Cause, Outcome, Point, State
from sweeps.spec import Spec
from sweeps.worker.causes import UnusableError, outcome_of
from sweeps.worker.gpu_metrics import GpuMetrics
from sweeps.worker.preemption import PreemptionFlag
from sweeps.worker.ranks import Ending, Team, cached_rank_context, is_broken, joint_ending
from sweeps.worker.saving import WRITING
from sweeps.worker.trial import WorkerContext, cached_context, run_trial
from sweeps.worker.watchdog import Bounds, Watchdog

_LOOKED_EVERY = 1.0  # seconds between two looks for whether the trial was recalled
_OTHERS_SECONDS = 20.0  # for what another rank ended by to be known, where this one saw only that it is gone


@dataclass(frozen=True)
class Reply:
    """What one stretch of a trial gave; with an outcome, the trial is over."""

    points: tuple[Point, ...]
    outcome: Outcome | None = None
    notes: tuple[str, ...] = ()  # what the user should know


@dataclass(frozen=True)
class Worker:
    """A process that is there for trials alone, and may end for one that hangs or for a SIGTERM; with `team`,
    rank 0 of those that train a trial together.
    """

    preemption: PreemptionFlag
    bounds: Bounds
    team: Team | None = None


class Execution:
    """One attempt at one trial. `advance` until it gives an outcome; `close` to stop early."""

    def __init__(self, spec: Spec, assignment: Assignment, worker: Worker | None = None) -> None:
        """Nothing happens before the first `advance`. Paths in the spec are absolute.

        Args:
            spec: of the sweep.
            assignment: what to train.
            worker: this process, where it is one; a driver that runs trials itself is not.
        """
        self._spec = spec
        self._assignment = assignment
        self._folders = Folders(spec.root, spec.name)
        self._points: Generator[tuple[Point, ...], None, None] | None = None
        self._worker = worker
        self._watchdog: Watchdog | None = None
        self._gpu: GpuMetrics | None = None  # of this process; other ranks' devices are not read
        self._looked = time.monotonic()
        self._notes: list[str] = []
        self.ruined = False  # whether this process can run no other trial

    def advance(self) -> Reply:
        """Train to the next measurement. Whatever goes wrong is an outcome, with its traceback in the log."""
        reply = self._advanced()
        notes, self._notes = tuple(self._notes), []
        return replace(reply, notes=notes)

    def _advanced(self) -> Reply:
        if self._points is None:
            self._points = self._run()
        try:
            points = next(self._points)
        except Exception as error:  # noqa: BLE001 - one trial's bug must not end the sweep
            outcome = outcome_of(error, self._assignment, self._folders)
            if self._team is not None:
                outcome = self._ended_together(Ending(outcome, is_broken(error)), self._team)
        else:
            points = self._with_gpu_metrics(points)
            if points[-1].step < self._assignment.steps:
                if self._watchdog is not None:
                    self._watchdog.rest()
                return Reply(points)
            self.close()
            return Reply(points, Outcome(State.COMPLETE))
        self.close()
        self.ruined |= outcome.cause in (Cause.ERROR, Cause.OUT_OF_MEMORY) and not _device_answers()
        if outcome.cause is Cause.OUT_OF_MEMORY and not self.ruined:
            _release()  # here and not above: while an error is handled, its frames hold the model
        return Reply((), outcome)

    @property
    def _team(self) -> Team | None:
        return self._worker.team if self._worker is not None else None

    def _ended_together(self, own: Ending, team: Team) -> Outcome:
        """Why all ranks ended; they go on to another trial where they agreed, and none is preempted."""
        if self._watchdog is not None:
            self._watchdog.rest()
        outcome = joint_ending(own, team.fault, _OTHERS_SECONDS)
        if not Ending(outcome).together or outcome.cause is Cause.PREEMPTED:
            self.ruined = True
            team.end()
        return outcome

    def close(self) -> None:
        """Let go of the model, once nothing is written any more."""
        points, self._points = self._points, None
        if points is not None:
            points.close()
        gpu, self._gpu = self._gpu, None
        if gpu is not None:
            gpu.close()
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None:
            watchdog.close()
        if self._worker is not None:
            self._worker.preemption.deferred = False

    def _with_gpu_metrics(self, points: tuple[Point, ...]) -> tuple[Point, ...]:
        """The last point with how busy the GPUs were since the one before; what is on disk has it not."""
        found = self._gpu.take() if self._gpu is not None else {}
        return (*points[:-1], replace(points[-1], system=found)) if found else points

    def _run(self) -> Generator[tuple[Point, ...], None, None]:
        if self._spec.resources.gpus and self._spec.tracking is not None:
            self._gpu = GpuMetrics(_gpu_readings)
        if self._worker is not None:
            self._worker.preemption.deferred = True
            number, attempt = self._assignment.number, self._assignment.attempt
            self._folders.make(self._folders.trial(number))
            stacks = self._folders.hung(number, attempt)
            self._watchdog = Watchdog(stacks, self._worker.bounds, self._assignment.token)
            self._watchdog.begin("beginning")
        spec = json.dumps(self._spec.to_json())
        try:
            if (team := self._team) is not None:
                team.begin(spec, self._assignment)
                context: WorkerContext = cached_rank_context(spec, team.group)
            else:
                context = cached_context(spec)
        except Exception as error:
            raise UnusableError(str(error)) from error
        given = self._assignment, self._folders, self._on_work, self._notes.append
        yield from run_trial(context, *given)

    def _on_work(self, work: str) -> None:
        if self._watchdog is not None:
            self._watchdog.begin(work)
        if self._worker is not None and self._worker.preemption.raised and work != WRITING:
            raise PreemptedError("its worker was told to go")
        if (now := time.monotonic()) - self._looked > _LOOKED_EVERY:
            self._looked = now
            if self._folders.stop_requested(self._assignment):
                raise StopRequestedError("its driver wants no more of it")
            if study_uuid_in(self._folders.sweep) not in (None, self._assignment.study_uuid):
                raise StopRequestedError("another study writes in its folder now")


def _gpu_readings() -> dict[str, float]:
    from tli.training.device import gpu_readings

    return gpu_readings()


def _device_answers() -> bool:
    from tli.training.device import device_answers

    return device_answers()


def _release() -> None:
    from tli.training.device import release

    release()
