"""One sweep's study for commands that only read it: a SQLite file by SQL alone, anything else by Optuna.

Both ways give the same; Optuna is imported only for what needs it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sweeps.addresses import absolute, file_of, server
from sweeps.errors import SpecError
from sweeps.ledger.attributes import StudyFacts, nothing_left
from sweeps.ledger.store.marks import SPEC
from sweeps.ledger.store.rows import StudyRows, is_known, read_study
from sweeps.ledger.store.trials import record_of, record_owner
from sweeps.readonly_sqlite import version
from sweeps.records import TrialRecord
from sweeps.spec import Spec

if TYPE_CHECKING:
    from sweeps.ledger.study import Ledger


class LedgerView(Protocol):
    """What can be asked of a sweep's study, whichever way it is read."""

    @property
    def spec(self) -> Spec:
        """As the study was last run."""

    @property
    def study(self) -> StudyFacts:
        """What the study bears beside its trials."""

    @property
    def depth(self) -> int | None:
        """Layers of the base; None where it is not known."""

    @property
    def finished(self) -> bool:
        """Whether running the sweep again would find nothing to do."""

    @property
    def driver(self) -> str | None:
        """The process that drives the sweep now, in words; None when none does."""

    def trials(self) -> list[TrialRecord]:
        """Every trial, in the order of their numbers."""

    def owner(self, record: TrialRecord) -> str:
        """What the states, the curve and the models of a trial bear."""


class FileLedger:
    """A study in a SQLite file, read anew whenever the file may have changed; it cannot be written."""

    def __init__(self, url: str, file: Path, spec: Spec, rows: StudyRows) -> None:
        """Use `read_file`."""
        self.spec = spec
        self.study = StudyFacts(self._attributes, spec.name)
        self._url, self._file, self._rows = url, file, rows
        self._records: tuple[StudyRows, list[TrialRecord]] | None = None  # with what they were made of
        self._optuna: Ledger | None = None  # once the file holds what only Optuna can read
        self._identity = self.study.study_uuid
        self.depth = self.study.layers

    @property
    def finished(self) -> bool:
        """Whether running the sweep again would find nothing to do."""
        unfinished = (record for record in self.trials() if record.ours and not record.state.finished)
        return nothing_left(self.spec, self.study, list(unfinished))

    @property
    def driver(self) -> str | None:
        """The process that drives the sweep now, in words; None when none does."""
        rows = self._now()
        if rows is None:
            return self._by_optuna().driver
        return rows.lease.holder if rows.lease is not None and rows.lease.alive else None

    def trials(self) -> list[TrialRecord]:
        """Every trial, in the order of their numbers."""
        rows = self._now()
        if rows is None:
            return self._by_optuna().trials()
        if self._records is None or self._records[0] is not rows:
            found = [record_of(trial, self.spec, self._identity) for trial in rows.trials]
            self._records = (rows, found)
        return list(self._records[1])

    def owner(self, record: TrialRecord) -> str:
        """What the states, the curve and the models of a trial bear."""
        return record_owner(self._identity, record)

    # -- inside ----------------------------------------------------------------------------------------

    def _attributes(self) -> Mapping[str, Any]:
        rows = self._now()
        return self._by_optuna().study.all() if rows is None else rows.attributes

    def _now(self) -> StudyRows | None:
        """The study as it is; None where only Optuna can read it any more."""
        seen = self._rows.version
        if self._optuna is None and (seen is None or version(self._file) != seen):
            rows = read_study(self._file, self.spec.name)
            if rows is None:
                self._by_optuna()
            else:
                self._rows = rows
        return None if self._optuna is not None else self._rows

    def _by_optuna(self) -> Ledger:
        if self._optuna is None:
            from sweeps.ledger.study import Ledger

            self._optuna = Ledger.read(self._url, self.spec.name)
        return self._optuna


def read_file(url: str, name: str) -> FileLedger | None:
    """A study of this program in a SQLite file; None where there is none that can be read without Optuna."""
    if server(url):
        return None
    file = file_of(absolute(url))
    rows = read_study(file, name)
    if rows is None or SPEC not in rows.attributes:
        return None
    try:
        spec = Spec.from_json(json.loads(rows.attributes[SPEC]), name=f"study {name!r}")
        return FileLedger(url, file, spec, rows)
    except (SpecError, TypeError, ValueError, RecursionError):
        return None  # the other way has the words for it


def is_readable(url: str) -> bool:
    """Whether a store is a file whose tables are read without Optuna."""
    return not server(url) and is_known(file_of(url))
