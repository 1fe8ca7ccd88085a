"""Transactional writes of trials: all rows of an event in one transaction.

What is decided at a report stands in the study with the report or not at all, and a new trial takes five
statements instead of twenty-six.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, Table, UniqueConstraint, delete, func, insert, select, true, update
from sqlalchemy.dialects import postgresql, sqlite

from sweeps.ledger.store.marks import OURS_PREFIX, parted
from sweeps.ledger.store.retrying import retry_while_unavailable
from sweeps.ledger.store.trials import CONSTRAINT, RUNG

_TRIALS, _STUDIES = models.TrialModel.__table__, models.StudyModel.__table__
_VALUES, _PARAMS = models.TrialValueModel.__table__, models.TrialParamModel.__table__
_LOSSES = models.TrialIntermediateValueModel.__table__
_USER, _SYSTEM = models.TrialUserAttributeModel.__table__, models.TrialSystemAttributeModel.__table__
_INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


@dataclass
class Changes:
    """What one event does to one trial; times are local, as Optuna's."""

    params: dict[str, tuple[Any, BaseDistribution]] = field(default_factory=dict)
    losses: dict[int, float] = field(default_factory=dict)
    user_attrs: dict[str, Any] = field(default_factory=dict)
    system_attrs: dict[str, Any] = field(default_factory=dict)
    state: TrialState | None = None  # that it ends in
    value: float | None = None
    ended: datetime | None = None

    def __bool__(self) -> bool:
        """Whether anything is changed."""
        parts = (self.params, self.losses, self.user_attrs, self.system_attrs)
        return any(parts) or self.state is not None


@retry_while_unavailable
def create(
    storage: RDBStorage,
    study_id: int,
    template: FrozenTrial,
    after: FrozenTrial | None,
    marks: Callable[[int], dict[str, Any]],
) -> FrozenTrial:
    """A new trial with the parameters and attributes of a template, numbered as Optuna does.

    Args:
        storage: where it is to be.
        study_id: of Optuna.
        template: its number is not looked at.
        after: a trial of the study; the later it is, the fewer are counted.
        marks: the user attributes that depend on the number.
    """
    known, last = (0, 0) if after is None else (after.number + 1, after._trial_id)
    with storage.engine.begin() as connection:
        if connection.dialect.name == "postgresql":  # SQLite has one writer at a time
            study = select(_STUDIES.c.study_id).where(_STUDIES.c.study_id == study_id)
            connection.execute(study.with_for_update())
        later = select(func.count()).select_from(_TRIALS).where(_TRIALS.c.study_id == study_id)
        later = later.where(_TRIALS.c.trial_id > last)
        new = insert(_TRIALS).values(
            study_id=study_id,
            number=known + later.scalar_subquery(),
            state=template.state,
            datetime_start=_utc(template.datetime_start),
        )
        key = connection.execute(new).inserted_primary_key
        assert key is not None
        trial_id = key[0]
        # Asked for: systems in use have a SQLite that cannot return it (before 3.35).
        asked = select(_TRIALS.c.number).where(_TRIALS.c.trial_id == trial_id)
        number = connection.execute(asked).scalar_one()
        params = {name: (value, template.distributions[name]) for name, value in template.params.items()}
        _write_params(connection, trial_id, params)
        user_attrs = {**template.user_attrs, **marks(number)}
        _put_attributes(connection, trial_id, user_attrs)
    created = copy.copy(template)
    created.user_attrs = user_attrs
    created.number, created._trial_id = number, trial_id
    return created


@retry_while_unavailable
def claim(storage: RDBStorage, trial_id: int, marks: dict[str, Any]) -> bool:
    """Set a waiting trial running and put user attributes on it, both or neither; whether it was waiting.

    What it may bear of another sweep, whose trial was copied into the queue, goes: marks, rungs, losses.
    """
    with storage.engine.begin() as connection:
        waiting = (_TRIALS.c.trial_id == trial_id) & (_TRIALS.c.state == TrialState.WAITING)
        now = _utc(datetime.now())  # noqa: DTZ005 - as Optuna's
        taken = update(_TRIALS).where(waiting).values(state=TrialState.RUNNING, datetime_start=now)
        if connection.execute(taken).rowcount == 0:
            return False
        for table, theirs in (
            (_USER, _USER.c.key.startswith(OURS_PREFIX)),
            (_SYSTEM, _SYSTEM.c.key.startswith(OURS_PREFIX) | _SYSTEM.c.key.startswith(RUNG)),
            (_LOSSES, true()),
        ):
            connection.execute(delete(table).where((table.c.trial_id == trial_id) & theirs))
        _put_attributes(connection, trial_id, marks)
    return True


@retry_while_unavailable
def write(storage: RDBStorage, trial_id: int, changes: Changes) -> None:
    """Make changes to a trial, all or none; making them twice is as making them once, but for an end.

    Raises:
        UpdateFinishedTrialError: it has ended.
    """
    with storage.engine.begin() as connection:
        # First, even where the state stays: no other process can end the trial until this is committed.
        standing = update(_TRIALS).where(_TRIALS.c.trial_id == trial_id)
        standing = standing.where(_TRIALS.c.state.in_((TrialState.RUNNING, TrialState.WAITING)))
        if changes.state is None:
            standing = standing.values(state=_TRIALS.c.state)
        else:
            standing = standing.values(state=changes.state, datetime_complete=_utc(changes.ended))
        if connection.execute(standing).rowcount == 0:
            raise UpdateFinishedTrialError(f"trial with id {trial_id} has ended")
        _write_params(connection, trial_id, changes.params)
        losses = [
            {"trial_id": trial_id, "step": step, "intermediate_value": value, "intermediate_value_type": kind}
            for step, loss in changes.losses.items()
            for value, kind in [models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(loss)]
        ]
        _put(connection, _LOSSES, losses)
        _put_attributes(connection, trial_id, changes.user_attrs)
        _put(connection, _SYSTEM, _attributes(trial_id, changes.system_attrs))
        if changes.value is not None:
            value, kind = models.TrialValueModel.value_to_stored_repr(changes.value)
            row = {"trial_id": trial_id, "objective": 0, "value": value, "value_type": kind}
            connection.execute(insert(_VALUES), [row])


@retry_while_unavailable
def constrain(storage: RDBStorage, violating: Collection[int], satisfying: Collection[int]) -> None:
    """Have finished trials violate a constraint, which `Study.best_trial` then leaves out, or have none.

    Optuna writes to no trial that has ended; which one is the best is known only after that.

    Args:
        storage: where they are.
        violating: ids of trials that get one.
        satisfying: ids of trials that lose theirs.
    """
    with storage.engine.begin() as connection:
        theirs = _SYSTEM.c.trial_id.in_(satisfying) & (_SYSTEM.c.key == CONSTRAINT)
        connection.execute(delete(_SYSTEM).where(theirs))
        for trial_id in violating:
            _put(connection, _SYSTEM, _attributes(trial_id, {CONSTRAINT: [1.0]}))


def _write_params(
    connection: Connection, trial_id: int, params: dict[str, tuple[Any, BaseDistribution]]
) -> None:
    rows = [
        {
            "trial_id": trial_id,
            "param_name": name,
            "param_value": distribution.to_internal_repr(value),
            "distribution_json": distribution_to_json(distribution),
        }
        for name, (value, distribution) in params.items()
    ]
    _put(connection, _PARAMS, rows)


def _put_attributes(connection: Connection, trial_id: int, attributes: dict[str, Any]) -> None:
    """Attributes that are the user's in memory; what only the program reads goes to the system's."""
    user, system = parted(attributes)
    _put(connection, _USER, _attributes(trial_id, user))
    _put(connection, _SYSTEM, _attributes(trial_id, system))


def _attributes(trial_id: int, attributes: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"trial_id": trial_id, "key": name, "value_json": json.dumps(value)}
        for name, value in attributes.items()
    ]


def _put(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    """Rows of one trial, in place of those with the same key."""
    if not rows:
        return
    statement = _INSERTS[connection.dialect.name](table)
    (key,) = (constraint for constraint in table.constraints if isinstance(constraint, UniqueConstraint))
    columns = [column.name for column in key.columns]
    new = {name: statement.excluded[name] for name in rows[0] if name not in columns}
    connection.execute(statement.on_conflict_do_update(index_elements=columns, set_=new), rows)


def _utc(local: datetime | None) -> datetime | None:
    """Naive time of this place as naive universal time, which Optuna's tables hold."""
    return None if local is None else local.astimezone(UTC).replace(tzinfo=None)
