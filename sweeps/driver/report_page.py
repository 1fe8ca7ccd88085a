"""Keeps a sweep's report fresh while trials run, in a thread of its own, and writes it at the end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from sweeps.errors import SpecError
from sweeps.ledger import Ledger
from sweeps.records import TrialRecord
from sweeps.report.page.writing import write_report
from sweeps.results.sweep import Sweep
from sweeps.tracking import Tracking
from tli.errors import InputError

_PAUSE = 60.0  # seconds between two pages, at the least
_SHARE = 50  # a page is written again after so many times what the last one took
_LAST = 20.0  # seconds to wait at the end for one that is being written


class ReportPage:
    """Writes ``report.html`` in the sweep's folder, and tells the tracker of each new one.

    What goes wrong costs no trial: it is told once, at the end.
    """

    def __init__(self, sweep: Sweep, tracker: Tracking, note: Callable[[str], None]) -> None:
        """Nothing is written yet.

        Args:
            sweep: that runs.
            tracker: which takes the page to MLflow.
            note: for the user, at the end.
        """
        self._sweep, self._tracker, self._note = sweep, tracker, note
        self._thread: threading.Thread | None = None
        self._next = 0.0  # by the monotonic clock
        self._written = threading.Event()  # since the tracker was told

    def update(self, records: Sequence[TrialRecord], phase: str) -> None:  # noqa: ARG002 - a watcher's
        """Begin a new page when it is time, and some trial is complete."""
        self._tell()
        busy = self._thread is not None and self._thread.is_alive()
        if busy or time.monotonic() < self._next or all(record.value is None for record in records):
            return
        self._next = time.monotonic() + _PAUSE
        self._thread = threading.Thread(target=self._refresh, name="report", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """The last page, in this thread."""
        if self._thread is not None:
            self._thread.join(_LAST)
        try:
            write_report(self._sweep, self._sweep.spec.name)
        except InputError as error:
            if self._sweep.verdict.answer.grown is not None:
                self._note(f"no report: {error}")
            return
        self._written.set()
        self._tell()

    def _tell(self) -> None:
        if self._written.is_set():
            self._written.clear()
            self._tracker.report()

    def _refresh(self) -> None:
        began, spec = time.monotonic(), self._sweep.spec
        try:
            # By a connection of its own: the ledger that drives the sweep is its driver's alone.
            seen = Sweep(spec, self._sweep.folders, Ledger.read(spec.study_url, spec.name))
            write_report(seen, spec.name)
            self._written.set()
        except SpecError:
            pass  # nothing to compare yet, or no place to write to, which the last page tells
        except Exception as error:  # noqa: BLE001 - whatever a page runs into, the sweep goes on
            logging.getLogger(__name__).info("no report yet: %s", error)
        self._next = max(self._next, time.monotonic() + _SHARE * (time.monotonic() - began))
