"""The lease on a study: one driver at a time by the store's clock, with fencing numbers.

Optuna's own heartbeat does not cover ask-and-tell, so liveness is ours: one row of a table beside Optuna's
says who drives the study, until when, and under which fencing number, which every change of hands raises. The
lease of a driver covers all attempts that it has running. Each of its transactions reads the number before it
commits, inside the transaction: a driver that slept past its lease and wakes up cannot write any more.
The row holds the key of the last new trial, too: a creation that is sent again, because only its reply was
lost, is refused.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from sweeps.errors import LedgerHeldError
from sweeps.ledger.store.holder import NOW, Row, query, this_process
from sweeps.ledger.store.retrying import as_sweep_error

SECONDS = 20.0  # of a lease
RENEWED_EVERY = 5.0

_TABLE = """CREATE TABLE IF NOT EXISTS sweeps_lease (
    study_id INTEGER PRIMARY KEY, fence INTEGER NOT NULL, owner TEXT NOT NULL,
    expires DOUBLE PRECISION NOT NULL, request TEXT NOT NULL)"""
_WRITES = ("INSERT", "UPDATE", "DELETE")
_GIVING_BACK = 1.0  # seconds
_WAITS_LESS = {
    "sqlite": f"PRAGMA busy_timeout = {1000 * _GIVING_BACK:.0f}",
    "postgresql": f"SET lock_timeout = {1000 * _GIVING_BACK:.0f}",
}  # for locks, in milliseconds


class AskedTwiceError(Exception):
    """A new trial with this key is in the study: only the reply to its creation was lost."""


class Lease:
    """A held lease; the writes of this process to its study are fenced until it is given back."""

    def __init__(self, engine: Engine, study_id: int, fence: int) -> None:
        """Use `hold`."""
        self._engine, self._study_id, self._fence = engine, study_id, fence
        self._request: str | None = None
        self._ended = threading.Event()
        self._renewals = threading.Thread(target=self._renew, name="lease", daemon=True)

    @contextmanager
    def creating(self, request: str) -> Iterator[None]:
        """The next transaction creates the trial with this key, once.

        Raises:
            AskedTwiceError: it was created before.
        """
        self._request = request
        try:
            yield
        finally:
            self._request = None

    # -- inside ----------------------------------------------------------------------------------------

    def _start(self) -> None:
        event.listen(self._engine, "before_cursor_execute", self._mark)
        event.listen(self._engine, "commit", self._fenced)
        event.listen(self._engine, "rollback", _unmark)
        self._renewals.start()

    def _stop(self) -> None:
        """Give it back, unless a write that Ctrl-C cut short still locks the store: then it runs out."""
        self._ended.set()
        self._renewals.join(_GIVING_BACK)
        event.remove(self._engine, "before_cursor_execute", self._mark)
        event.remove(self._engine, "commit", self._fenced)
        event.remove(self._engine, "rollback", _unmark)
        with suppress(SQLAlchemyError), self._engine.connect() as connection:
            connection.detach()  # not for others: it is less patient than they are
            connection.exec_driver_sql(_WAITS_LESS[self._engine.dialect.name])
            connection.execute(
                text("UPDATE sweeps_lease SET owner = '' WHERE study_id = :study AND fence = :fence"),
                self._mine,
            )
            connection.commit()

    @property
    def _mine(self) -> dict[str, Any]:
        return {"study": self._study_id, "fence": self._fence}

    def _renew(self) -> None:
        """A store that does not answer is asked again; a lease that was taken is left."""
        statement = text(
            f"UPDATE sweeps_lease SET expires = {NOW[self._engine.dialect.name]} + :seconds "  # noqa: S608
            "WHERE study_id = :study AND fence = :fence"
        )
        while not self._ended.wait(RENEWED_EVERY):
            with suppress(SQLAlchemyError), self._engine.begin() as connection:
                if connection.execute(statement, {**self._mine, "seconds": SECONDS}).rowcount == 0:
                    return

    def _mark(self, connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.lstrip()[:6].upper() in _WRITES and "sweeps_lease" not in statement:
            connection.info["sweeps:wrote"] = True

    def _fenced(self, connection: Connection) -> None:
        """Before a commit, inside its transaction; who takes the lease over waits for it, or it for them."""
        if not connection.info.pop("sweeps:wrote", False):
            return
        if self._request is not None:
            self._note_request(connection, self._request)
            return
        share = " FOR SHARE" if connection.dialect.name == "postgresql" else ""
        select = f"SELECT fence FROM sweeps_lease WHERE study_id = :study{share}"  # noqa: S608
        if connection.execute(text(select), self._mine).scalar() != self._fence:
            raise self._lost(connection)

    def _note_request(self, connection: Connection, request: str) -> None:
        update = (
            "UPDATE sweeps_lease SET request = :request "
            "WHERE study_id = :study AND fence = :fence AND request <> :request"
        )
        if connection.execute(text(update), {**self._mine, "request": request}).rowcount == 1:
            return
        found = _row(connection, self._study_id)
        if found is None or found.fence != self._fence:
            raise self._lost(connection)
        raise AskedTwiceError(request)

    def _lost(self, connection: Connection) -> LedgerHeldError:
        found = _row(connection, self._study_id)
        holder = found.holder if found is not None and found.owner else "another process"
        return LedgerHeldError(
            f"{holder} has taken this sweep over, for this process had been silent for over {SECONDS:g} s; "
            "nothing that it did since counts"
        )


def _unmark(connection: Connection) -> None:
    if not connection.invalidated:  # by Ctrl-C in a statement; it answers no more, and its marks go with it
        connection.info.pop("sweeps:wrote", None)


@contextmanager
def hold(engine: Engine, study_id: int, name: str) -> Iterator[Lease]:
    """Be the one driver of a study.

    A lease that has run out is taken over at once, and so is one whose process has ended, which only its own
    machine can know. Another one is watched until it runs out or is renewed.

    Args:
        engine: of the store.
        study_id: of Optuna.
        name: of the sweep, for the message.

    Raises:
        LedgerHeldError: another process drives the study.
        SweepError: the store cannot be used.
    """
    with as_sweep_error():
        with engine.begin() as connection:
            connection.execute(text(_TABLE))
        lease = Lease(engine, study_id, _acquired(engine, study_id, name))
    lease._start()
    try:
        yield lease
    finally:
        lease._stop()


def standing(engine: Engine, study_id: int) -> Row | None:
    """A study's lease, for reading; None when no process ever drove it."""
    try:
        with engine.connect() as connection:
            return _row(connection, study_id)
    except SQLAlchemyError:  # a store without the table
        return None


def _acquired(engine: Engine, study_id: int, name: str) -> int:
    """The fencing number of the lease that is now ours."""
    watched: float | None = None
    while True:
        with engine.connect() as connection:
            found = _row(connection, study_id)
        if found is None or not found.alive:
            fence = _taken(engine, study_id, found)
            if fence is not None:
                return fence
            continue
        if watched is not None and found.expires != watched:
            raise LedgerHeldError(
                f"{name} is being driven by {found.holder}; wait for it, or stop it, then run this again"
            )
        watched = found.expires
        time.sleep(min(0.5, max(0.05, found.expires - found.now)))


def _taken(engine: Engine, study_id: int, found: Row | None) -> int | None:
    """Take a lease that stands as found; None when another process was faster."""
    until = f"{NOW[engine.dialect.name]} + :seconds"
    values = {"study": study_id, "owner": this_process(), "seconds": SECONDS}
    with suppress(IntegrityError), engine.begin() as connection:
        if found is None:
            insert = f"INSERT INTO sweeps_lease VALUES (:study, 1, :owner, {until}, '')"  # noqa: S608
            connection.execute(text(insert), values)
            return 1
        update = (
            f"UPDATE sweeps_lease SET fence = fence + 1, owner = :owner, expires = {until} "  # noqa: S608
            "WHERE study_id = :study AND fence = :fence"
        )
        if connection.execute(text(update), {**values, "fence": found.fence}).rowcount == 1:
            return found.fence + 1
    return None


def _row(connection: Connection, study_id: int) -> Row | None:
    found = connection.execute(text(query(connection.dialect.name)), {"study": study_id}).one_or_none()
    return Row(int(found[0]), found[1], float(found[2]), float(found[3])) if found else None
