"""Optuna's storage with retries while a server restarts; errors of drivers as one line.

Nothing that a store may have done already is done twice. Every call of Optuna's storage can be repeated: a
value is set to what it was set to, an ending that stands is seen by the ledger, and the creation of a trial
carries a key (`sweeps.ledger.store.lease`).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar, cast

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from sweeps.clock import awake
from sweeps.errors import SweepError
from sweeps.wording import masked

Given = ParamSpec("Given")
Answer = TypeVar("Answer")

_LONGEST_WAIT = 2.0
# What a server says, in part, that answers and will not have us: waiting mends none of it.
_REFUSALS = ("password authentication failed", "does not exist", "no pg_hba.conf entry", "permission denied")


class ServerStorage(RDBStorage):
    """Optuna's storage for a server, which comes back."""

    patience = 120.0  # seconds with a store that does not answer

    def seen(self) -> object:
        """What is different once the store was changed beneath a reader: a server keeps its readers apart."""
        return None


class FileStorage(RDBStorage):
    """Optuna's storage for a file; a disk that is full stays so."""

    patience = 0.0

    def seen(self) -> object:
        """As for a server: SQLite keeps its readers apart from its writers."""
        return None


@contextmanager
def as_sweep_error() -> Iterator[None]:
    """What a store says about its disk or its connection ends the command with a line.

    Raises:
        SweepError: in place of the database library's error.
    """
    try:
        yield
    except (StorageInternalError, DBAPIError) as error:
        if (reason := _away(error)) is None:
            raise
        raise _unanswered(reason) from None


def retry_while_unavailable(call: Callable[Given, Answer]) -> Callable[Given, Answer]:
    """A call of a storage, its first argument, repeated until the store answers, and was the same all along.

    Raises:
        SweepError: it has not, for the storage's `patience`.
    """

    @functools.wraps(call)
    def ask(*given: Given.args, **named: Given.kwargs) -> Answer:
        storage = cast("ServerStorage | FileStorage", given[0])
        clock, wait = awake(), 0.1  # a driver that was stopped meanwhile has not waited
        started = clock()
        while True:
            seen = storage.seen()
            try:
                answer = call(*given, **named)
                if seen is None or storage.seen() in (None, seen):
                    return answer
            except (StorageInternalError, DBAPIError) as error:
                reason = _away(error)
                if reason is None:
                    raise
                refused = any(said in reason for said in _REFUSALS)
                if refused or clock() - started >= storage.patience:
                    raise _unanswered(reason) from None
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)

    return ask


def _unanswered(reason: str) -> SweepError:
    return SweepError(
        f"the study's store cannot be used: {reason}; nothing is lost: once it can, the same command goes on"
    )


def _away(error: Exception) -> str | None:
    """Why a store cannot be reached or written, in a line; None when that is not what went wrong."""
    cause = error if isinstance(error, DBAPIError) else error.__cause__
    if not isinstance(cause, (OperationalError, InterfaceError)):
        return None
    return masked(str(cause.orig).strip().partition("\n")[0])


# What Optuna calls from outside, and what its cache calls beneath that.
for _name in (
    "create_new_study", "set_study_user_attr", "set_study_system_attr", "get_study_id_from_name",
    "get_study_name_from_id", "get_study_directions", "get_study_user_attrs", "get_study_system_attrs",
    "get_all_studies", "get_trial_id_from_study_id_trial_number", "set_trial_state_values", "get_trial",
    "_get_trials",
):  # fmt: skip
    for _kind in (ServerStorage, FileStorage):
        setattr(_kind, _name, retry_while_unavailable(getattr(RDBStorage, _name)))
