"""Read-only storage: nothing is created, upgraded, switched or written."""

from __future__ import annotations

import sqlite3
from functools import lru_cache
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, RDBStorage, get_storage
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import NullPool, create_engine, inspect, select

from sweeps import readonly_sqlite
from sweeps.addresses import absolute, driven, file_of, server
from sweeps.ledger.store.marks import legible_of_study
from sweeps.ledger.store.retrying import FileStorage, ServerStorage, as_sweep_error


class _AsShown(RDBStorage):
    """For optuna-dashboard: the best trial that `Study.best_trial` has, as it asks the storage alone, and of
    a study's attributes those that people read."""

    shown = False  # whether it is for optuna-dashboard

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Attributes of a study."""
        found: dict[str, Any] = super().get_study_user_attrs(study_id)
        return legible_of_study(found) if self.shown else found

    def get_all_studies(self) -> list[FrozenStudy]:
        """Every study."""
        studies = super().get_all_studies()
        for study in studies if self.shown else ():
            study.user_attrs = legible_of_study(study.user_attrs)
        return studies

    def _get_best_trial_id(self, study_id: int, direction: StudyDirection) -> int:
        """Of the trial with the best value that violates no constraint."""
        best = super()._get_best_trial_id(study_id, direction)
        if _feasible(self.get_trial(best)):
            return best
        complete = self.get_all_trials(study_id, deepcopy=False, states=(TrialState.COMPLETE,))
        sign = -1 if direction is StudyDirection.MAXIMIZE else 1
        found = min(filter(_feasible, complete), key=lambda each: sign * each.values[0], default=None)
        return best if found is None else int(found._trial_id)


def _feasible(trial: FrozenTrial) -> bool:
    return all(value <= 0 for value in trial.constraints.values())


class LookedAtFile(_AsShown, FileStorage):
    """Optuna's storage for a file that is read, and is left as it is."""

    def __init__(self, url: str) -> None:
        """Open it; there are tables of Optuna in it."""
        self._file = file_of(url)
        super().__init__(url, _of_file(self._file), skip_table_creation=True)

    def seen(self) -> object:
        """What is different once the file was changed beneath a reader."""
        return readonly_sqlite.mark(self._file)


class LookedAtServer(_AsShown, ServerStorage):
    """Optuna's storage for a server, in transactions that cannot write."""

    def __init__(self, url: str) -> None:
        """Open it; there are tables of Optuna in it."""
        super().__init__(url, _OF_SERVER, skip_table_creation=True)


def look(url: str, *, shown: bool = False) -> BaseStorage | None:
    """The storage at a URL, for reading; None where Optuna has made no tables so far.

    Args:
        url: SQLAlchemy's.
        shown: whether it is for optuna-dashboard; what only this program reads of a study is left out then.

    Raises:
        RuntimeError: its tables are those of another version of Optuna.
        SweepError: it cannot be used.
    """
    url = driven(absolute(url))
    with as_sweep_error():
        return get_storage(_storage(url, _identity(url), shown=shown)) if _made(url) else None


def _of_file(file: Path) -> dict[str, object]:
    def connect() -> sqlite3.Connection:
        return readonly_sqlite.connect(file)

    # Each statement's connection is new: how to open the file depends on who has it open at the time.
    return {"creator": connect, "poolclass": NullPool}


_OF_SERVER: dict[str, object] = {
    "pool_pre_ping": True,
    "execution_options": {"postgresql_readonly": True},
}


def _identity(url: str) -> int:
    return 0 if server(url) else file_of(url).stat().st_ino


@lru_cache(maxsize=8)
def _storage(url: str, _file: int, *, shown: bool) -> LookedAtFile | LookedAtServer:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = LookedAtServer(url) if server(url) else LookedAtFile(url)
    found.shown = shown
    return found


def _made(url: str) -> bool:
    """Whether a first driver has set the store up.

    Optuna's own start would write the versions that are missing, in whatever store it finds them missing.

    Raises:
        RuntimeError: the store is older than its versions are.
    """
    if not server(url) and not file_of(url).exists():
        return False
    engine = create_engine(url, **(_OF_SERVER if server(url) else _of_file(file_of(url))))
    try:
        with engine.connect() as connection:
            tables = set(inspect(connection).get_table_names())
            if models.StudyModel.__tablename__ not in tables:
                return False
            versions = (models.VersionInfoModel.__tablename__, "alembic_version")
            if all(
                name in tables and connection.exec_driver_sql(f"SELECT * FROM {name}").first()  # noqa: S608
                for name in versions
            ):
                return True
            if connection.execute(select(models.StudyModel.study_id).limit(1)).first() is None:
                return False
    finally:
        engine.dispose()
    # In Optuna's words, for an age of which it has none.
    said = "The study was made by an Optuna from before its tables had versions. "
    raise RuntimeError(f"{said}Please execute `$ optuna storage upgrade --storage $STORAGE_URL`.")
