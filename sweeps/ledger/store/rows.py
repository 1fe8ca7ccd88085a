"""A study in a SQLite file read by SQL alone: importing Optuna and SQLAlchemy takes longer than the answer.

What Optuna's own reading would give, or nothing: a store of another version, a row that is not as Optuna
writes it and a file that changes meanwhile are left to Optuna, which knows what to say of them.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sweeps import readonly_sqlite
from sweeps.ledger.store.holder import TABLE, Row, query
from sweeps.ledger.store.marks import united
from sweeps.records import State

KNOWN = ("v3.2.0.a", 12)  # the tables that are read here: Alembic's version and Optuna's
_TRIES = 3  # at a file that changes while it is read
_PATIENCE = 5.0  # seconds for a lock; Optuna waits longer
_FLOAT, _INT = ("float", "int")
_NOT_FINITE = {"INF_POS": math.inf, "INF_NEG": -math.inf, "NAN": math.nan}


class _OtherwiseError(Exception):
    """What is there is not what is read here."""


@dataclass(frozen=True)
class TrialRows:
    """One trial under the names that Optuna has for what it holds; times are UTC."""

    number: int
    state: State
    datetime_start: datetime | None
    datetime_complete: datetime | None
    value: float | None = None
    params: dict[str, Any] = field(default_factory=dict)
    user_attrs: dict[str, Any] = field(default_factory=dict)
    system_attrs: dict[str, Any] = field(default_factory=dict)
    intermediate_values: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyRows:
    """One study as it was at one moment."""

    attributes: Mapping[str, Any]  # the user's
    trials: Sequence[TrialRows]  # in the order of their numbers
    lease: Row | None
    version: tuple[object, ...] | None  # of the file, which is the same as long as this is; None: not known


def read_study(file: Path, name: str) -> StudyRows | None:
    """A study by its name; None where there is none that can be read here."""
    for _ in range(_TRIES):
        before, version = readonly_sqlite.mark(file), readonly_sqlite.version(file)
        try:
            with closing(_opened(file)) as store:
                found = _study(store, name, version)
        except (_OtherwiseError, sqlite3.Error, OSError, ValueError, RecursionError, OverflowError):
            found = None
        if readonly_sqlite.mark(file) == before:
            return found
    return None


def is_known(file: Path) -> bool:
    """Whether a file holds tables of the version that is read here, and the names of its studies."""
    try:
        with closing(_opened(file)) as store:
            store.execute("SELECT study_name FROM studies").fetchall()
    except (_OtherwiseError, sqlite3.Error, OSError):
        return False
    return True


# -- inside ------------------------------------------------------------------------------------------------


def _opened(file: Path) -> sqlite3.Connection:
    """A connection within one transaction, so that all that is read is of one moment."""
    store = readonly_sqlite.connect(file, patience=_PATIENCE)
    try:
        store.execute("BEGIN")
        _require_known(store)
    except BaseException:
        store.close()
        raise
    return store


def _require_known(store: sqlite3.Connection) -> None:
    alembic = store.execute("SELECT version_num FROM alembic_version").fetchall()
    optuna = store.execute("SELECT schema_version FROM version_info").fetchall()
    if (alembic, optuna) != ([(KNOWN[0],)], [(KNOWN[1],)]):
        raise _OtherwiseError


def _study(store: sqlite3.Connection, name: str, version: tuple[object, ...] | None) -> StudyRows:
    found = store.execute("SELECT study_id FROM studies WHERE study_name = ?", (name,)).fetchall()
    if len(found) != 1:
        raise _OtherwiseError
    ((study_id,),) = found
    wanted = "SELECT key, value_json FROM study_user_attributes WHERE study_id = ?"
    attributes = {_text(key): _decoded(value) for key, value in store.execute(wanted, (study_id,))}
    return StudyRows(attributes, _trials(store, study_id), _lease(store, study_id), version)


def _lease(store: sqlite3.Connection, study_id: int) -> Row | None:
    tables = store.execute("SELECT name FROM sqlite_master WHERE name = ?", (TABLE,)).fetchall()
    found = store.execute(query("sqlite"), {"study": study_id}).fetchone() if tables else None
    if found is None:
        return None
    fence, owner, expires, now = found
    return Row(_whole(fence), _text(owner), _number(expires), _number(now))


def _trials(store: sqlite3.Connection, study_id: int) -> list[TrialRows]:
    user = _attributes(store, study_id, "trial_user_attributes", "trial_user_attribute_id")
    system = _attributes(store, study_id, "trial_system_attributes", "trial_system_attribute_id")
    params, values, losses = _params(store, study_id), _values(store, study_id), _losses(store, study_id)
    wanted = (
        "SELECT trial_id, number, state, datetime_start, datetime_complete FROM trials "
        "WHERE study_id = ? ORDER BY trial_id"
    )
    trials = []
    for place, (key, number, state, start, end) in enumerate(store.execute(wanted, (study_id,))):
        if number != place or state not in State.__members__:
            raise _OtherwiseError
        user_attrs, system_attrs = united(user[key], system[key])
        trials.append(
            TrialRows(
                number,
                State(state),
                _time(start),
                _time(end),
                _only(values[key]) if state == State.COMPLETE else None,
                params[key],
                user_attrs,
                system_attrs,
                losses[key],
            )
        )
    return trials


def _of_trials(
    store: sqlite3.Connection, study_id: int, table: str, key: str, columns: str
) -> Sequence[tuple[Any, ...]]:
    """Rows of all trials of a study, the id of the trial first, in the order in which they were written."""
    wanted = (
        f"SELECT {table}.trial_id, {columns} FROM {table} "  # noqa: S608 - names of ours
        f"JOIN trials ON trials.trial_id = {table}.trial_id WHERE trials.study_id = ? ORDER BY {key}"
    )
    return store.execute(wanted, (study_id,)).fetchall()


def _attributes(
    store: sqlite3.Connection, study_id: int, table: str, key: str
) -> Mapping[int, dict[str, Any]]:
    found: Mapping[int, dict[str, Any]] = defaultdict(dict)
    for trial, name, value in _of_trials(store, study_id, table, key, "key, value_json"):
        found[trial][_text(name)] = _decoded(value)
    return found


def _params(store: sqlite3.Connection, study_id: int) -> Mapping[int, dict[str, Any]]:
    found: Mapping[int, dict[str, Any]] = defaultdict(dict)
    known: dict[str, Mapping[str, Any]] = {}  # the same few distributions stand at every trial
    columns = "param_name, param_value, distribution_json"
    for trial, name, value, written in _of_trials(store, study_id, "trial_params", "param_id", columns):
        if written not in known:
            known[written] = _distribution(written)
        found[trial][_text(name)] = _external(_number(value), known[written])
    return found


def _distribution(written: Any) -> Mapping[str, Any]:
    """A distribution as Optuna writes it."""
    value = _decoded(written)
    if not isinstance(value, dict) or value.keys() != {"name", "attributes"}:
        raise _OtherwiseError
    kind, attributes = value["name"], value["attributes"]
    if not isinstance(attributes, dict):
        raise _OtherwiseError
    if kind == "CategoricalDistribution":
        choices = attributes.get("choices")
        plain = (str, int, float, type(None))  # and bool, which is an int
        if attributes.keys() != {"choices"} or not isinstance(choices, list) or not choices:
            raise _OtherwiseError
        if not all(isinstance(each, plain) for each in choices):
            raise _OtherwiseError
        return {"choices": choices}
    if kind not in ("FloatDistribution", "IntDistribution") or attributes.keys() != _RANGE:
        raise _OtherwiseError
    low, high, step, log = (attributes[name] for name in ("low", "high", "step", "log"))
    of = (int,) if kind == "IntDistribution" else (int, float)
    sound = type(low) in of and type(high) in of and type(log) is bool and low <= high
    sound = sound and (step is None or (type(step) in of and step > 0)) and not (log and low <= 0)
    # What a range may not be together, Optuna says better.
    if not sound or (log and step not in (None, 1)) or (of == (int,) and step is None):
        raise _OtherwiseError
    return {"kind": _INT if of == (int,) else _FLOAT}


_RANGE = {"low", "high", "step", "log"}


def _external(value: float, distribution: Mapping[str, Any]) -> Any:
    """A parameter's value from the number that Optuna keeps."""
    if "choices" not in distribution:
        return int(value) if distribution["kind"] == _INT else value
    choices = distribution["choices"]
    if not value.is_integer() or not 0 <= value < len(choices):
        raise _OtherwiseError
    return choices[int(value)]


def _values(store: sqlite3.Connection, study_id: int) -> Mapping[int, list[float]]:
    found: Mapping[int, list[float]] = defaultdict(list)
    columns = "objective, value, value_type"
    for trial, objective, value, kind in _of_trials(
        store, study_id, "trial_values", "trial_value_id", columns
    ):
        _whole(objective)
        found[trial].append(_kept(value, kind))
    return found


def _losses(store: sqlite3.Connection, study_id: int) -> Mapping[int, dict[int, float]]:
    found: Mapping[int, dict[int, float]] = defaultdict(dict)
    columns = "step, intermediate_value, intermediate_value_type"
    for trial, step, value, kind in _of_trials(
        store, study_id, "trial_intermediate_values", "trial_intermediate_value_id", columns
    ):
        found[trial][_whole(step)] = _kept(value, kind)
    return found


def _kept(value: Any, kind: Any) -> float:
    if kind == "FINITE":
        return _number(value)
    if value is not None or kind not in _NOT_FINITE:
        raise _OtherwiseError
    return _NOT_FINITE[kind]


def _only(values: Sequence[float]) -> float | None:
    if len(values) > 1:  # a study of several objectives
        raise _OtherwiseError
    return values[0] if values else None


def _time(value: Any) -> datetime | None:
    """A time as SQLAlchemy writes it, `2026-11-27 06:17:20.251948`."""
    if value is None:
        return None
    return datetime.strptime(_text(value), "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC)


def _decoded(value: Any) -> Any:
    return json.loads(_text(value))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _OtherwiseError
    return value


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise _OtherwiseError
    return value


def _number(value: Any) -> float:
    if type(value) is not float:  # the columns are REAL to SQLite
        raise _OtherwiseError
    return value
