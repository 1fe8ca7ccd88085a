"""The runner in this process: one trial after the other, no cluster, for tests and debuggers."""

from __future__ import annotations

from sweeps.agenda import Agenda, Idle
from sweeps.execution import Execution
from sweeps.records import Assignment, Outcome, State
from sweeps.spec import Spec


def run_inline(agenda: Agenda, spec: Spec) -> None:
    """Carry the agenda out, to its end. `spec` has absolute paths."""
    while not isinstance(assignment := agenda.next(), Idle):
        outcome = _carry_out(agenda, assignment, spec)
        agenda.finish(assignment.number, assignment.attempt, outcome)
    assert assignment is Idle.FINISHED, "one trial at a time never waits for another"


def _carry_out(agenda: Agenda, assignment: Assignment, spec: Spec) -> Outcome:
    execution = Execution(spec, assignment)
    while True:
        reply = execution.advance()
        stop = agenda.report(assignment.number, assignment.attempt, reply.points)
        if reply.outcome is not None:
            return reply.outcome
        if stop:
            return Outcome(State.PRUNED)
