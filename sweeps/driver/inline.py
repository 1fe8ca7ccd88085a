"""The runner in this process: one trial after the other, no cluster, for tests and debuggers."""

from __future__ import annotations

import time
from contextlib import closing

from sweeps.driver.schedule.agenda import Agenda, Idle
from sweeps.records import Assignment, Outcome, State
from sweeps.spec import Spec
from sweeps.worker.execution import Execution

_LOOKS_EVERY = 1.0  # seconds, while there is nothing to do


def run_inline(agenda: Agenda, spec: Spec) -> None:
    """Carry the agenda out, to its end. `spec` has absolute paths."""
    while (assignment := agenda.next()) is not Idle.FINISHED:
        if assignment is Idle.WAIT:  # for a trial that another process runs, or none
            time.sleep(_LOOKS_EVERY)
            continue
        outcome = _carry_out(agenda, assignment, spec)
        agenda.finish(assignment.number, assignment.attempt, outcome)


def _carry_out(agenda: Agenda, assignment: Assignment, spec: Spec) -> Outcome:
    with closing(Execution(spec, assignment)) as execution:
        while True:
            reply = execution.advance()
            for note in reply.notes:
                agenda.note(assignment.number, note)
            stop = agenda.report(assignment.number, assignment.attempt, reply.points)
            if reply.outcome is not None:
                return reply.outcome
            if stop:
                return Outcome(State.PRUNED)
