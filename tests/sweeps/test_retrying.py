"""How long a store that does not answer is asked again, by what it says."""

from __future__ import annotations

import time
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from sweeps.clock import Awake
from sweeps.errors import SweepError
from sweeps.ledger.store.retrying import retry_while_unavailable


class Store:
    """A server that says the same each time, until it answers."""

    patience = 60.0

    def __init__(self, said: str, times: int) -> None:
        self.said, self.left, self.asked = said, times, 0

    def seen(self) -> object:
        """None: nothing that can be told apart."""
        return None

    @retry_while_unavailable
    def ask(self: Any) -> int:
        self.asked += 1
        if self.left:
            self.left -= 1
            raise OperationalError("SELECT 1", None, Exception(self.said))
        return int(self.asked)


@pytest.mark.parametrize(
    "said",
    [
        'FATAL:  password authentication failed for user "me"',
        'FATAL:  database "studies" does not exist',
        'FATAL:  no pg_hba.conf entry for host "10.0.0.9"',
        'FATAL:  permission denied for database "studies"',
    ],
)
def test_a_store_that_answers_no_is_asked_once(said: str) -> None:
    store = Store(said, times=1000)
    began = time.monotonic()
    with pytest.raises(SweepError, match="the same command goes on"):
        store.ask()
    assert store.asked == 1
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    "said",
    [
        "connection refused",
        "FATAL:  the database system is starting up",
        "FATAL:  sorry, too many clients already",
        "server closed the connection unexpectedly",
        'connection to server on socket "/run/pg/.s.PGSQL.5432" failed: No such file or directory',
    ],
)
def test_a_store_that_comes_back_is_waited_for(said: str) -> None:
    assert Store(said, times=2).ask() == 3


def test_hours_in_which_the_driver_was_stopped_are_not_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    clock = Awake(clock=lambda: now[0])
    monkeypatch.setattr("sweeps.ledger.store.retrying.awake", lambda: clock)

    class Stopped(Store):
        @retry_while_unavailable
        def ask(self: Any) -> int:
            now[0] += 36_000 if self.left else 0  # within the call: its connection is gone afterwards
            return int(Store.ask.__wrapped__(self))  # type: ignore[attr-defined]

    assert Stopped("server closed the connection unexpectedly", times=1).ask() == 2
