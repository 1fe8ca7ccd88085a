"""The order of work, in process and on Ray: control, baseline, search, runs under fresh seeds.

Both runners (in process and on Ray) do nothing but carry out what the agenda hands them and tell it what
came of it. Every decision is in the ledger before it acts, so that a restart goes on from there.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from sweeps.driver.schedule.after_search import after_search
from sweeps.driver.schedule.controls import control_settings
from sweeps.driver.schedule.line_search import LineSearch
from sweeps.driver.schedule.orphans import Orphans
from sweeps.driver.schedule.retries import counted, reason_with_counts, retry
from sweeps.driver.schedule.spending import Spending
from sweeps.errors import StaleAttemptError
from sweeps.ledger import Ledger
from sweeps.ledger.search.space import flatten
from sweeps.records import Assignment, Outcome, Point, Role, State, TrialRecord
from sweeps.tracking import Tracking
from sweeps.tracking.trial_runs import show, show_end

_OnChange = Callable[[Sequence[TrialRecord], str, Mapping[str, float]], None]


class Idle(enum.Enum):
    """Why there is nothing to hand out."""

    WAIT = "wait"  # something that runs now has to end first
    FINISHED = "finished"


class Agenda:
    """The order of work of one sweep. Not thread-safe: one driver thread owns it."""

    def __init__(
        self,
        ledger: Ledger,
        tracker: Tracking,
        *,
        parallel: int,
        on_change: _OnChange = lambda _records, _phase, _spent: None,
        on_end: Callable[[TrialRecord], None] = lambda _record: None,
        request_stop: Callable[[Assignment], None] = lambda _assignment: None,
        on_note: Callable[[str], None] = lambda _text: None,
    ) -> None:
        """Go on with what the ledger holds; trials that a dead driver left RUNNING come first.

        Args:
            ledger: the sweep's study; its driver is this process.
            tracker: where runs are shown.
            parallel: how many trials may run at once.
            on_change: called with all records, the phase, and what the search has spent by limit, after every
                change.
            on_end: called with a trial that has ended for good.
            request_stop: has an attempt at a trial end before its next report.
            on_note: called with what the user should know.
        """
        self.ledger = ledger
        self.spec = ledger.spec
        self._tracker = tracker
        self._parallel = parallel
        self._on_change, self._on_end = on_change, on_end
        self._request_stop = request_stop
        self._on_note = on_note
        self._stop_requested: set[int] = set()
        self._running: dict[int, Assignment] = {}
        self._last_point: dict[int, Point] = {}
        self._orphans = Orphans(ledger, self._standing)
        self._begun = False  # whether control and baseline are there: then they stay, and are not looked for
        self._left_behind = [record.number for record in self._standing()]
        self._spending = Spending(ledger)
        self._control_rates = LineSearch(ledger.spec, parallel)
        self.phase, self.finished = "search", False
        self.broken: str | None = None

    def next(self) -> Assignment | Idle:
        """The next execution, already in the ledger, or why there is none."""
        if self.broken:
            return Idle.FINISHED
        self._spending.tick(searching=self.phase == "search")
        self._stop_searched()
        if len(self._running) >= self._parallel:
            if self._to_ask:
                self.ledger.prepare()  # there is time now
            return Idle.WAIT
        assignment = self._left_over() or self._due()
        if assignment is None:
            # One that no driver runs any more is taken over before long: it, too, ends before the sweep does.
            self.finished = not self._standing()
            return Idle.FINISHED if self.finished else Idle.WAIT
        self._running[assignment.number] = assignment
        show(self._tracker, self.ledger.record(assignment.number))
        self._changed()
        return assignment

    def report(self, number: int, attempt: int, points: Sequence[Point]) -> bool:
        """Take held-out losses; returns whether the trial is to stop here."""
        try:
            stop = self.ledger.report(number, attempt, points)
            running = self._running.get(number)
            if running is not None and points:
                self._spending.count(running, points[-1])
                stop = stop or self._spending.stops(running, points[-1])
        except StaleAttemptError:
            return True
        if points:
            self._last_point[number] = points[-1]
        self._tracker.points(number, attempt, points)
        self._changed()
        return stop

    def note(self, number: int, text: str) -> None:
        """Take what the user should know of a trial."""
        self._on_note(f"trial {number} {text}")

    def waits(self, number: int, attempt: int, why: str | None) -> None:
        """Take what an execution that was handed out waits for; None once it runs."""
        with suppress(StaleAttemptError):
            self.ledger.note_waiting(number, attempt, why)
            self._changed()

    def finish(self, number: int, attempt: int, outcome: Outcome) -> None:
        """Take the end of an execution; one without a result may be put back in front, by its cause."""
        self._running.pop(number, None)
        self._stop_requested.discard(number)
        last = self._last_point.pop(number, None)
        if outcome.fatal:
            self.broken = outcome.reason
            return
        try:
            again = self._written(number, attempt, outcome, last.totals if last else None)
        except StaleAttemptError:
            if not self.ledger.record(number).state.finished:
                raise
            again = False  # ended by another program, and that stands
        if again:
            self._left_behind.append(number)
            self._changed()
        else:
            self._ended(number)

    def records(self) -> list[TrialRecord]:
        """Every trial of the sweep."""
        return self.ledger.trials()

    def _written(
        self, number: int, attempt: int, outcome: Outcome, totals: Mapping[str, float] | None
    ) -> bool:
        """Write the end of an execution down; whether its trial is to run again."""
        if outcome.cause is not None:
            record = self.ledger.record(number)
            counts = counted(record, outcome.cause)
            again = retry(self.spec, record, outcome.cause, counts)
            if again is not None:
                self.ledger.note_retry(number, attempt, counts, again.micro_batch_tokens)
                self.note(number, f"runs again: {(outcome.reason or outcome.cause).partition(chr(10))[0]}")
                return True
            outcome = replace(outcome, reason=reason_with_counts(outcome.reason, outcome.cause, counts))
        self.ledger.tell(number, attempt, outcome.state, reason=outcome.reason, totals=totals)
        return False

    def _stop_searched(self) -> None:
        """Once the budget is used up, no trial of the search goes on to its next report."""
        if self._spending.used_up is None:
            return
        for number, running in self._running.items():
            if number in self._stop_requested or number not in self._last_point:
                continue
            with suppress(StaleAttemptError, OSError):  # its next report ends it, then
                if self._spending.stops(running, self._last_point[number]):
                    self._request_stop(running)
                    self._stop_requested.add(number)

    # -- the order of work --------------------------------------------------------------------------------

    def _due(self) -> Assignment | None:
        """What has to be asked for next, if anything."""
        return self._first_ones() or self._control_rate() or self._searched() or self._after()

    def _drives(self, record: TrialRecord) -> bool:
        """Whether a trial of ours is of this work: a long run goes on when it is promoted again."""
        return not record.role.promoted

    def _standing(self) -> list[TrialRecord]:
        """What stands RUNNING in the ledger, whether a worker is at it or not."""
        return [r for r in self.ledger.unfinished() if r.state is State.RUNNING and self._drives(r)]

    def _left_over(self) -> Assignment | None:
        self._left_behind += self._orphans.found({*self._running, *self._left_behind})
        while self._left_behind:
            number = self._left_behind.pop(0)
            assignment = self.ledger.requeue(number)
            if assignment is not None:
                return assignment
            self._ended(number)
        return None

    def _first_ones(self) -> Assignment | None:
        if self._begun:
            return None
        present = {record.role for record in self.records()}
        baseline = self.spec.trial.model_dump()
        if Role.CONTROL not in present:
            return self.ledger.start(Role.CONTROL, control_settings(baseline, self.spec.control.train))
        if Role.BASELINE not in present:
            return self.ledger.start(
                Role.BASELINE, baseline, params=self.ledger.space.project(flatten(baseline))
            )
        self._begun = True
        return None

    def _control_rate(self) -> Assignment | None:
        """The control at another rate, once all before have ended; meanwhile the search goes on."""
        if self._spending.used_up or self._control_rates.over:
            return None
        settings = self._control_rates.next(self.records())
        return None if settings is None else self.ledger.start(Role.CONTROL, settings)

    @property
    def ended_by(self) -> str:
        """What ended the search: the name of a setting of the budget, or `search` when all was tried."""
        return self._spending.ended_by(self.ledger.asked)

    def _searched(self) -> Assignment | None:
        if self._spending.used_up:
            return None
        enqueued = self.ledger.take_waiting()
        if enqueued is not None:
            return enqueued
        return self.ledger.ask() if self._to_ask else None

    @property
    def _to_ask(self) -> bool:
        """Whether the budget has room for another trial of the sampler's choice beside the controls."""
        if self._spending.used_up or self.ledger.asked >= self.spec.budget.trials:
            return False
        controls = 0 if self._control_rates.over else self._control_rates.left(self.records())
        return self.ledger.asked + controls < self.spec.budget.trials

    def _after(self) -> Assignment | None:
        """What runs once the search is over."""
        unfinished = self._open()
        if any(not record.role.after for record in unfinished):
            return None  # there is no ranking before
        due = after_search(self.ledger, self.spec, unfinished)
        self.phase = due.phase if due is not None else self.phase.replace("search", "finalists")
        return due.start(self.ledger) if due is not None else None

    def _open(self) -> list[TrialRecord]:
        """What has not ended, but for what is enqueued and waits for more of a budget that is used up."""
        over = (State.WAITING,) if self._spending.used_up else ()
        return [r for r in self.ledger.unfinished() if r.state not in over and self._drives(r)]

    @property
    def control_rates_over(self) -> bool:
        """Whether no control at another rate will be run."""
        return self._control_rates.over or self.phase != "search"

    def _ended(self, number: int) -> None:
        record = self.ledger.record(number)
        if record.settings:  # what was enqueued and cannot be run is nowhere shown
            show_end(self._tracker, record)
        self._on_end(record)
        self._changed()

    def _changed(self) -> None:
        known = [each for each in self.records() if self._drives(each)]
        self._on_change(known, self.phase, self._spending.spent)
