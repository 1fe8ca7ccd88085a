"""What a driver remembers of its study, against what the store holds, on every store."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import event

from sweeps.driver.schedule.agenda import Agenda
from sweeps.errors import StaleAttemptError
from sweeps.ledger import Ledger, open_storage
from sweeps.ledger.store.storage import engine_of
from sweeps.records import Cause, Outcome, Point, Role, State
from sweeps.spec import Spec
from sweeps.tracking import NullTracker


@pytest.fixture
def driven(url: str, spec: Spec) -> Iterator[Ledger]:
    with Ledger.driven(url, spec) as ledger:
        yield ledger


def outside(url: str, spec: Spec) -> optuna.Study:
    return optuna.load_study(study_name=spec.name, storage=open_storage(url))


def point(step: int, loss: float) -> Point:
    return Point(step, step * 64, 1.0 * step, 0.1 * step, loss)


def test_it_is_what_the_store_holds_whatever_was_done(driven: Ledger, url: str, spec: Spec) -> None:
    chance = random.Random(5)
    driven.start(Role.CONTROL, spec.trial.model_dump())
    for _ in range(40):
        running = [record for record in driven.unfinished() if record.state is State.RUNNING]
        action = chance.choice(
            ["ask", "ask", "report", "report", "tell", "retake", "retry", "enqueue", "wrong"]
        )
        if action == "ask":
            assert driven.take_waiting() or driven.ask()
        elif action in ("enqueue", "wrong"):
            outside(url, spec).enqueue_trial({"injection.k": 4 if action == "enqueue" else 3})
        elif running:
            _do(driven, chance.choice(running), action, chance)
        fresh = Ledger.read(url, spec.name)
        driven._mirror.look()
        assert driven._mirror.records() == fresh.trials()
        assert driven._mirror._trials == fresh._mirror._trials
        assert driven.asked == fresh.asked
        assert driven._mirror.visible.ended_last == fresh._mirror.visible.ended_last
        assert list(driven._mirror.visible.trials.items()) == list(fresh._mirror.visible.trials.items())


def _do(ledger: Ledger, record: Any, action: str, chance: random.Random) -> None:
    if action == "report":
        step = record.step + 1 if record.losses else 0
        ledger.report(record.number, record.attempt, [point(step, chance.choice([4.0, 5.5, math.inf]))])
    elif action == "tell":
        state = chance.choice([State.COMPLETE, State.PRUNED, State.FAIL] if record.losses else [State.FAIL])
        if state is State.FAIL or math.isfinite(record.loss):
            ledger.tell(record.number, record.attempt, state, reason="so", totals={"seconds": 1.0})
    elif action == "retake":
        ledger.requeue(record.number)
    else:
        ledger.note_retry(record.number, record.attempt, {"lost": 1, "at": record.step}, 32)


def test_a_trial_enqueued_while_a_driver_works_is_its_next(driven: Ledger, url: str, spec: Spec) -> None:
    driven.ask()
    outside(url, spec).enqueue_trial({"injection.k": 4})
    taken = driven.take_waiting()
    assert taken is not None
    assert taken.settings["injection"]["k"] == 4
    assert driven.take_waiting() is None


def test_a_driver_that_gave_the_study_back_sees_what_the_next_one_does(url: str, spec: Spec) -> None:
    with Ledger.driven(url, spec) as before:
        before.ask()
    with Ledger.driven(url, spec) as after:
        after.report(0, 1, [point(0, 5.0)])
        assert before.record(0).losses == {0: 5.0}
        assert [record.losses for record in before.trials()] == [{0: 5.0}]


def test_a_waiting_trial_that_somebody_else_took_is_left_to_them(
    driven: Ledger, url: str, spec: Spec
) -> None:
    study = outside(url, spec)
    study.enqueue_trial({"injection.k": 4})
    driven.refresh()
    theirs = study.ask()
    assert driven.take_waiting() is None
    study.tell(theirs, 1.0)
    assert driven.take_waiting() is None
    driven.refresh()
    assert [record.state for record in driven.trials()] == [State.COMPLETE]


def test_a_trial_that_another_program_runs_is_left_to_it(driven: Ledger, url: str, spec: Spec) -> None:
    theirs = outside(url, spec).ask()
    driven.refresh()
    assert driven.record(0).params == {}
    chosen = theirs.suggest_categorical("injection.k", [1, 2, 4])
    driven.refresh()
    assert driven.record(0).params == {"injection.k": chosen}
    assert driven.requeue(0) is None
    assert driven.unfinished() == []
    assert driven.record(0).role is Role.OTHER


def test_a_trial_that_was_ended_from_outside_stays_ended(driven: Ledger, url: str, spec: Spec) -> None:
    for _ in range(2):
        driven.ask()
    outside(url, spec).tell(0, state=TrialState.FAIL)
    with pytest.raises(StaleAttemptError, match="trial 0 has ended: FAIL"):
        driven.report(0, 1, [point(0, 5.0)])
    assert driven.record(0).state is State.FAIL
    outside(url, spec).tell(1, state=TrialState.FAIL)
    assert driven.record(1).state is State.RUNNING
    driven.refresh()
    assert driven.unfinished() == []


def test_a_driver_goes_on_when_a_trial_was_ended_from_outside(driven: Ledger, url: str, spec: Spec) -> None:
    ended = []
    agenda = Agenda(driven, NullTracker(), parallel=2, on_end=ended.append)
    assert agenda.next().number == 0  # type: ignore[union-attr]
    outside(url, spec).tell(0, state=TrialState.FAIL)
    assert agenda.report(0, 1, [point(0, 5.0)]) is True
    agenda.finish(0, 1, Outcome(State.PRUNED, "stopped"))
    assert [record.state for record in ended] == [State.FAIL]
    assert agenda.next().number == 1  # type: ignore[union-attr]
    outside(url, spec).tell(1, state=TrialState.FAIL)
    agenda.finish(1, 1, Outcome(State.FAIL, "gone", Cause.LOST))
    assert [record.number for record in ended] == [0, 1]


def test_an_event_that_cannot_be_written_has_not_been(driven: Ledger, url: str, spec: Spec) -> None:
    driven.ask()
    driven.report(0, 1, [point(0, 5.0)])
    held = driven._mirror

    def cut_short() -> None:
        with held.event(0):
            held.set_loss(2, 4.0)
            held.set_rung(0, "completed_rung_0", 4.0)
            held.set_attribute("sweeps:stopped", {"step": 2})
            assert list(held.on_rung("completed_rung_0")) == [4.0]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cut_short()
    assert driven.record(0).losses == {0: 5.0}
    assert held.trial(0) == Ledger.read(url, spec.name)._mirror.trial(0)
    assert list(held.on_rung("completed_rung_0")) == []


def test_each_event_is_one_transaction(driven: Ledger, url: str) -> None:
    """A kill finds no half of it, and the driver waits for the store once."""
    driven.ask()
    driven.report(0, 1, [point(2, 3.0)])
    with _statements(url) as statements:
        commits = []
        for act in (
            driven.ask,
            lambda: driven.report(1, 1, [point(0, 5.0), point(2, 4.0)]),  # which stops it
            lambda: driven.tell(1, 1, State.PRUNED, reason="so", totals={"seconds": 1.0}),
        ):
            statements.clear()
            act()
            commits.append(statements.count("COMMIT"))
    assert driven.record(1).reason == "so"
    assert commits == [1, 1, 1]


@contextmanager
def _statements(url: str) -> Iterator[list[str]]:
    """What reaches the store but for renewals of the lease; COMMIT stands for that of something written."""
    seen: list[str] = []

    def note(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "sweeps_lease SET expires" not in statement:
            seen.append(statement)
            connection.info["wrote"] = connection.info.get("wrote") or not statement.startswith("SELECT")

    def note_commit(connection: Any) -> None:
        if connection.info.pop("wrote", False):
            seen.append("COMMIT")

    engine = engine_of(open_storage(url))
    event.listen(engine, "before_cursor_execute", note)
    event.listen(engine, "commit", note_commit)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)
        event.remove(engine, "commit", note_commit)


def test_trials_made_by_us_and_by_optuna_at_once_have_numbers_of_their_own(url: str, spec: Spec) -> None:
    ledger = Ledger.open(url, spec)
    study = outside(url, spec)
    with ThreadPoolExecutor(4) as pool:
        enqueued = [pool.submit(study.enqueue_trial, {"injection.k": 4}) for _ in range(15)]
        started = [ledger.start(Role.CONTROL, spec.trial.model_dump()).number for _ in range(15)]
        for each in enqueued:
            each.result()
    assert len(set(started)) == 15
    assert [trial.number for trial in study.get_trials()] == list(range(30))
    for number in started:
        assert study.get_trials()[number].user_attrs["sweeps:role"] == "control"


def test_no_step_of_a_driver_reads_the_trials_that_run(driven: Ledger, url: str) -> None:
    """The statements that reach the store are as many with thirty trials running as with three."""

    def spent(number: int) -> list[str]:
        statements.clear()
        driven.take_waiting()
        driven.ask()
        driven.report(number, 1, [point(0, 5.0)])
        driven.report(number, 1, [point(2, 4.0)])  # which is on a rung
        driven.trials()
        driven.tell(number, 1, State.PRUNED, reason="stopped")
        return list(statements)

    for _ in range(3):
        driven.ask()
    with _statements(url) as statements:
        few = spent(0)
        for _ in range(27):
            driven.ask()
        many = spent(1)
    assert len(many) == len(few) < 30, few
