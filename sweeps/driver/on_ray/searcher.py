"""Ray Tune's searcher and scheduler as adapters of the agenda.

Tune is a disposable executor: it holds no state that is needed again. Each Tune trial is one attempt at one
trial of the ledger; retries, stopping and the order of work are decided by the agenda alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from sweeps.clock import awake
from sweeps.driver.on_ray.stall_monitor import StallMonitor
from sweeps.driver.schedule.agenda import Agenda, Idle
from sweeps.records import METRIC, Assignment, Cause, Outcome, Point, State


class AgendaSearcher(Searcher):  # type: ignore[misc] # Ray is untyped
    """Hands Tune the agenda's assignments, and the agenda the way they ended."""

    def __init__(
        self,
        agenda: Agenda,
        shared: dict[str, Any],
        watch: StallMonitor,
        hung: Callable[[Assignment], Path | None],
        left: Callable[[Assignment], Outcome | None] = lambda _running: None,
        measured: Callable[[float], None] = lambda _when: None,
    ) -> None:
        """Hand out the agenda's work.

        Args:
            agenda: what there is to do.
            shared: goes to every worker beside its assignment.
            watch: hears of every measurement.
            hung: where the stacks lie of an execution that ended itself because it did not go on.
            left: what the process of an execution said of its end, before it ended too.
            measured: called when a measurement is in the study, with when it was made.
        """
        super().__init__(metric=METRIC, mode="min")
        self.agenda = agenda
        self._shared = shared
        self._watch = watch
        self._hung, self._left, self._measured = hung, left, measured
        self._running: dict[str, Assignment] = {}
        self._stood: dict[str, float] = {}  # seconds that did not count when it began
        self.endings: dict[str, Outcome] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next assignment; None while something else has to end first."""
        assignment = self.agenda.next()
        if isinstance(assignment, Idle):
            return Searcher.FINISHED if assignment is Idle.FINISHED else None
        self._running[trial_id] = assignment
        self._stood[trial_id] = awake().missed()
        return {"assignment": asdict(assignment), **self._shared}

    def report(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Take a worker's result; whether the trial is to stop."""
        running = self._running[trial_id]
        for note in result["notes"]:
            self.agenda.note(running.number, note)
        points = [Point.from_json(point) for point in result["points"]]
        stop = self.agenda.report(running.number, running.attempt, points)
        if points:
            self._measured(points[-1].time)
        if points and points[-1].step < running.steps:
            step = points[-1].step
            due = next(later for later in running.report_steps if later > step)
            last = due == running.steps
            self._watch.heard(trial_id, tuple(result["worker"]), step, due, writes=last)
        if result["state"]:
            self.endings[trial_id] = Outcome(
                State(result["state"]),
                result["reason"] or None,
                Cause(result["cause"]) if result["cause"] else None,
                fatal=result["fatal"],
            )
        elif stop:
            self.endings[trial_id] = Outcome(State.PRUNED)
        return stop

    def waits(self, trial_id: str, why: str | None) -> None:
        """A trial that was handed out does not begin yet, and why; None once it does."""
        if (running := self._running.get(trial_id)) is not None:
            self.agenda.waits(running.number, running.attempt, why)

    def on_trial_complete(
        self,
        trial_id: str,
        result: dict[str, Any] | None = None,  # noqa: ARG002
        error: bool = False,  # noqa: ARG002, FBT001, FBT002
    ) -> None:
        """A Tune trial is over; without an ending of its own, its worker was lost."""
        running = self._running.pop(trial_id)
        self._watch.forget(trial_id)
        stood = self._stood.pop(trial_id)
        outcome = self.endings.pop(trial_id, None) or self._gone(trial_id, running, stood)
        self.agenda.finish(running.number, running.attempt, outcome)

    def _gone(self, trial_id: str, running: Assignment, stood: float) -> Outcome:
        if trial_id in self._watch.hung:
            return Outcome(State.FAIL, "its worker fell silent and was killed", Cause.HUNG)
        if (said := self._left(running)) is not None:
            return said
        if (stacks := self._hung(running)) is not None:
            if awake().missed() > stood:
                # Its own timer went on while all that runs here was stopped, and said so as soon as it could.
                return Outcome(State.FAIL, "its worker ended after a stop of the whole sweep", Cause.LOST)
            return Outcome(State.FAIL, f"it did not go on; stacks: {stacks}", Cause.HUNG)
        return Outcome(State.FAIL, "its worker died", Cause.LOST)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing goes into Tune's snapshots: the ledger is the memory."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the memory."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the memory."""


class AgendaScheduler(FIFOScheduler):  # type: ignore[misc] # Ray is untyped
    """Asks the agenda, after every report, whether to go on."""

    def __init__(self, searcher: AgendaSearcher, slots: int) -> None:
        """Report to the same agenda that the searcher asks; as many workers stay as there are slots."""
        super().__init__()
        self._searcher = searcher
        self._slots = slots
        self._stay = False

    def __getstate__(self) -> dict[str, Any]:
        """Nothing goes into Tune's snapshots: the ledger is the memory."""
        return {}

    def on_trial_add(self, tune_controller: TuneController, trial: Trial) -> None:
        """With the first trial, have Tune keep idle workers for later ones.

        By itself it keeps one: the others would start anew for the finalists' replicates, after the wait for
        the last trial of the search.
        """
        super().on_trial_add(tune_controller, trial)
        if not self._stay:
            tune_controller._actor_cache.increase_max(trial.placement_group_factory, self._slots)
            self._stay = True

    def on_trial_result(
        self,
        tune_controller: TuneController,  # noqa: ARG002
        trial: Trial,
        result: dict[str, Any],
    ) -> str:
        """Stop or go on."""
        stop = self._searcher.report(trial.trial_id, result)
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)

    def on_trial_complete(
        self,
        tune_controller: TuneController,  # noqa: ARG002
        trial: Trial,
        result: dict[str, Any],
    ) -> None:
        """The last result of a trial comes here and not to `on_trial_result`."""
        if trial.trial_id not in self._searcher.endings:
            self._searcher.report(trial.trial_id, result)
