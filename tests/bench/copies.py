"""A long study in seconds: the trials of a short one, copied row by row with their curves."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

from optuna.storages._rdb import models
from sqlalchemy import Connection, Engine, insert, select, text

from sweeps.curve import CURVE
from sweeps.ledger.store.trials import OURS, mark_of

_PARTS: tuple[Any, ...] = (
    models.TrialValueModel,
    models.TrialParamModel,
    models.TrialUserAttributeModel,
    models.TrialSystemAttributeModel,
    models.TrialIntermediateValueModel,
)
_CONTROL_AND_BASELINE = 2  # are there once


def multiply(engine: Engine, study_id: int, trials: int, folder: Path) -> None:
    """Copy ended trials of a study, in turn, until there are so many in all.

    Args:
        engine: of the store.
        study_id: of Optuna.
        trials: that there are to be, those that run included.
        folder: of all trials' folders.
    """
    table = models.TrialModel.__table__
    with engine.begin() as connection:
        rows = connection.execute(
            select(table).where(table.c.study_id == study_id).order_by(table.c.trial_id)
        ).all()
        sources = [row for row in rows[_CONTROL_AND_BASELINE:] if row.state.is_finished()]
        first = connection.execute(text("SELECT MAX(trial_id) FROM trials")).scalar_one() + 1
        copies = list(zip(range(len(rows), trials), itertools.cycle(sources), strict=False))
        made = [
            {**source._mapping, "trial_id": first + place, "number": number}
            for place, (number, source) in enumerate(copies)
        ]
        if not made:
            return
        connection.execute(insert(table), made)
        ids = [(source.trial_id, first + place, number) for place, (number, source) in enumerate(copies)]
        for model in _PARTS:
            _copy(connection, model.__table__, ids)
        if connection.dialect.name == "postgresql":  # its counter does not see numbers that were given
            connection.execute(
                text("SELECT setval(pg_get_serial_sequence('trials', 'trial_id'), :last)"),
                {"last": ids[-1][1]},
            )
    for number, source in copies:
        (folder / f"{number:04d}").mkdir(parents=True, exist_ok=True)
        curve = (folder / f"{source.number:04d}" / CURVE).read_text()
        own = re.sub(rf'("owner": "[^"/]+)/{source.number}/', rf"\1/{number}/", curve)
        (folder / f"{number:04d}" / CURVE).write_text(own)


def _copy(connection: Connection, table: Any, ids: list[tuple[int, int, int]]) -> None:
    """Copy the rows of one table from trial to trial; the mark of a sweep's own trial bears its number."""
    (key,) = table.primary_key.columns
    parts: dict[int, list[dict[str, Any]]] = {}
    for row in connection.execute(select(table).order_by(key)).mappings():
        plain = {name: value for name, value in row.items() if name != key.name}
        parts.setdefault(plain["trial_id"], []).append(plain)
    made = [
        {**part, "trial_id": copy, **_marked(part, number)}
        for source, copy, number in ids
        for part in parts.get(source, ())
    ]
    if made:
        connection.execute(insert(table), made)


def _marked(part: dict[str, Any], number: int) -> dict[str, str]:
    if part.get("key") != OURS:
        return {}
    return {"value_json": json.dumps(mark_of(json.loads(part["value_json"]).rpartition("/")[0], number))}
