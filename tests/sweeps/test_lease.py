"""One driver at a time, on both stores, with real processes that are killed and that sleep."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from sweeps.errors import LedgerHeldError
from sweeps.ledger import Ledger, open_storage, study
from sweeps.ledger.store import holder, lease
from sweeps.ledger.store.storage import engine_of
from sweeps.records import Point, State
from sweeps.spec import Spec
from tests.forked import FORKED


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    _quicken()


def _quicken() -> None:
    lease.SECONDS, lease.RENEWED_EVERY = 1.0, 0.2


@pytest.fixture(autouse=True)
def usual() -> Iterator[None]:
    before = lease.SECONDS, lease.RENEWED_EVERY
    yield
    lease.SECONDS, lease.RENEWED_EVERY = before


def _drive(url: str, plain: dict, events: Any, *, pid_lies: bool = False) -> None:
    """Drive the sweep in a process of its own: one trial, then a report for every word that comes."""
    _quicken()
    if pid_lies:  # as a driver of another machine, whose death nobody here can see
        holder._place = lambda: None  # type: ignore[assignment]
    try:
        with Ledger.driven(url, Spec.from_json(plain)) as ledger:
            assignment = ledger.ask()
            assert assignment is not None
            events.send(assignment.number)
            for step in itertools.count():
                events.recv()
                point = Point(step, 0, 0.0, 0.0, 1.0)
                ledger.report(assignment.number, assignment.attempt, [point])
                events.send("reported")
    except LedgerHeldError as error:
        events.send(str(error))


@pytest.fixture
def driver(url: str, spec: Spec) -> Iterator[Any]:
    """Starts processes that drive; gives the pipe to each."""
    started: list[Any] = []

    def start(**options: Any) -> tuple[Any, Any]:
        ours, theirs = FORKED.Pipe()
        process = FORKED.Process(target=_drive, args=(url, _plain(spec), theirs), kwargs=options)
        process.start()
        started.append(process)
        return process, ours

    yield start
    for process in started:
        process.kill()
        process.join()


def _plain(spec: Spec) -> dict:
    return {**spec.to_json(), "storage": spec.storage.model_dump()}


def test_a_second_driver_is_told_who_drives(url: str, spec: Spec, driver: Any, quick: None) -> None:
    process, events = driver()
    assert events.recv() == 0
    with pytest.raises(LedgerHeldError, match=f"is being driven by process {process.pid} on "):
        Ledger.driven(url, spec).__enter__()
    assert Ledger.read(url, spec.name).driver is not None
    events.send("go on")
    assert events.recv() == "reported"


def test_a_killed_driver_is_followed_at_once(url: str, spec: Spec, driver: Any) -> None:
    process, events = driver()
    assert events.recv() == 0
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert Ledger.read(url, spec.name).driver is None, "its lease has not run out, but it is dead"
    started = time.monotonic()
    with Ledger.driven(url, spec) as ledger:
        assert time.monotonic() - started < 1.0  # of a lease, which it did not wait for
        again = ledger.requeue(0)
        assert again is not None
        assert again.attempt == 2
        assert "driven" not in (ledger.driver or "")
    assert Ledger.read(url, spec.name).driver is None, "given back at the end"


def test_a_killed_driver_of_another_machine_is_followed_when_its_lease_ends(
    url: str, spec: Spec, driver: Any, quick: None
) -> None:
    process, events = driver(pid_lies=True)
    assert events.recv() == 0
    process.kill()
    process.join()
    with Ledger.driven(url, spec) as ledger:
        assert ledger.requeue(0) is not None


def test_a_driver_that_slept_past_its_lease_writes_nothing(
    url: str, spec: Spec, driver: Any, quick: None
) -> None:
    process, events = driver()
    assert events.recv() == 0
    os.kill(process.pid, signal.SIGSTOP)
    with Ledger.driven(url, spec) as ledger:
        os.kill(process.pid, signal.SIGCONT)
        events.send("go on")
        assert f"process {os.getpid()} on " in events.recv()
        assert ledger.record(0).losses == {}


def test_a_driver_that_slept_while_nobody_came_goes_on(spec: Spec, driver: Any) -> None:
    process, events = driver()
    assert events.recv() == 0
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(1.5)
    os.kill(process.pid, signal.SIGCONT)
    events.send("go on")
    assert events.recv() == "reported"


def test_a_trial_whose_creation_is_sent_again_is_made_once(
    url: str, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(url)
    create = storage.create_new_trial

    def twice(study_id: int, template_trial: Any) -> int:
        create(study_id, template_trial=template_trial)  # its reply is lost
        return create(study_id, template_trial=template_trial)

    with Ledger.driven(url, spec) as ledger:
        monkeypatch.setattr(storage, "create_new_trial", twice)
        first, second = ledger.ask(), ledger.ask()
        assert first is not None
        assert second is not None
        assert (first.number, second.number) == (0, 1)
        assert len(ledger.trials()) == 2
        assert study.REQUEST in storage.get_all_trials(ledger._study_id)[0].system_attrs


def test_of_many_drivers_one_works(driver: Any) -> None:
    pipes = [driver()[1] for _ in range(3)]
    said = [pipe.recv() for pipe in pipes]
    assert said.count(0) == 1
    assert sum("is being driven by" in str(word) for word in said) == 2


def test_the_ledger_ends_a_trial_once_when_the_reply_was_lost(url: str, spec: Spec) -> None:
    with Ledger.driven(url, spec) as ledger:
        assignment = ledger.ask()
        assert assignment is not None
        ledger.report(0, 1, [Point(0, 0, 0.0, 0.0, 1.0)])
        ledger.tell(0, 1, State.COMPLETE)
        ledger.tell(0, 1, State.COMPLETE)
        assert ledger.record(0).state is State.COMPLETE


def test_ctrl_c_in_the_middle_of_a_write_is_ctrl_c(
    url: str, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is given up then, and asking it for anything would be another error."""
    with Ledger.driven(url, spec) as ledger:
        ledger.ask()

        def interrupted(*_: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(engine_of(open_storage(url)).dialect, "do_execute", interrupted)
            with pytest.raises(KeyboardInterrupt):
                ledger.report(0, 1, [Point(0, 0, 0.0, 0.0, 1.0)])
        ledger.report(0, 1, [Point(0, 0, 0.0, 0.0, 1.0)])
        assert ledger.record(0).losses == {0: 1.0}


def test_giving_it_back_does_not_wait_for_a_write_that_was_cut_short(url: str, spec: Spec) -> None:
    """Ctrl-C may leave a transaction open in the same process: SQLite would be waited for for a minute."""
    driven = Ledger.driven(url, spec)
    driven.__enter__()
    with engine_of(open_storage(url)).connect() as cut_short:
        cut_short.exec_driver_sql("UPDATE sweeps_lease SET request = '' WHERE owner <> ''")
        began = time.monotonic()
        driven.__exit__(None, None, None)
        assert time.monotonic() - began < 5.0
        cut_short.rollback()
    with Ledger.driven(url, spec.model_copy(update={"name": f"{spec.name}-2"})):
        pass  # and nothing of that is left in the store
