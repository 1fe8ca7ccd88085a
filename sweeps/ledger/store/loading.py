"""Bulk loading of trials in six SQL statements, where Optuna makes an object of every row.

Ten thousand trials have a quarter of a million rows, and a resume waits for them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, Row, select

from sweeps.errors import InputError, Problem, SpecError
from sweeps.ledger.store.retrying import retry_while_unavailable

# What a trial consists of, by the name that Optuna gives to it.
_PARTS: dict[str, Any] = {
    "values": models.TrialValueModel,
    "params": models.TrialParamModel,
    "user_attributes": models.TrialUserAttributeModel,
    "system_attributes": models.TrialSystemAttributeModel,
    "intermediate_values": models.TrialIntermediateValueModel,
}
Parts = dict[int, list[Row[Any]]]  # rows by the id of their trial, in the order in which they were written


class _Trial:
    """A trial's rows under the names that Optuna reads them by."""

    datetime_start, datetime_complete = models.TrialModel.datetime_start, models.TrialModel.datetime_complete

    def __init__(self, row: Row[Any], parts: dict[str, Parts]) -> None:
        self.trial_id, self.number, self.state = row.trial_id, row.number, row.state
        self._datetime_start_utc, self._datetime_complete_utc = row.datetime_start, row.datetime_complete
        for name, rows in parts.items():
            setattr(self, name, rows[row.trial_id])


@contextmanager
def legible(where: str) -> Iterator[None]:
    """Reading rows of a study through Optuna, whose own words for one that it cannot decode say nothing.

    Raises:
        SpecError: there is one.
    """
    try:
        yield
    except InputError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        got = f"a row that Optuna cannot read ({type(error).__name__}: {str(error)[:200]})"
        remedy = "the last copy of the store, or deleting that trial or attribute there"
        raise SpecError(Problem(where, got, "rows as Optuna writes them", remedy)) from error


@retry_while_unavailable
def load(storage: RDBStorage, study_id: int) -> list[FrozenTrial]:
    """Every trial of a study, in the order of their numbers.

    One that runs while it is read may have some of what it gets just then; one that has ended is whole.
    """
    with storage.engine.connect() as connection:
        table = models.TrialModel.__table__
        trials = connection.execute(
            select(table).where(table.c.study_id == study_id).order_by(table.c.trial_id)
        ).all()
        parts = {name: _rows(connection, study_id, model) for name, model in _PARTS.items()}
    return [storage._build_frozen_trial_from_trial_model(_Trial(row, parts)) for row in trials]  # type: ignore[arg-type]


@retry_while_unavailable
def unfinished(storage: RDBStorage, study_id: int) -> dict[int, str]:
    """The states of a study's trials that have not ended, by Optuna's id; nothing else of them is read."""
    table = models.TrialModel.__table__
    wanted = select(table.c.trial_id, table.c.state).where(table.c.study_id == study_id)
    with storage.engine.connect() as connection:
        rows = connection.execute(wanted.where(table.c.state.in_((TrialState.RUNNING, TrialState.WAITING))))
        return {int(trial_id): state.name for trial_id, state in rows}


def _rows(connection: Connection, study_id: int, model: Any) -> Parts:
    table, trials = model.__table__, models.TrialModel.__table__
    (key,) = table.primary_key.columns
    wanted = select(table).join(trials, trials.c.trial_id == table.c.trial_id)
    found: Parts = defaultdict(list)
    for row in connection.execute(wanted.where(trials.c.study_id == study_id).order_by(key)):
        found[row.trial_id].append(row)
    return found
