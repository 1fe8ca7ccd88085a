"""What looks on while a sweep runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from sweeps.records import TrialRecord
from tli.argument_types import Kind

CHECKING = "checking the model, the text and the stores"  # the first that a run does
WATCHER = Kind("a watcher with update, note and progress", attributes=("update", "note", "progress"))


class Watcher(Protocol):
    """What looks on while a sweep runs."""

    def update(self, records: Sequence[TrialRecord], phase: str) -> None:
        """Something changed."""

    def note(self, text: str) -> None:
        """Something that the user should know."""

    def progress(self, what: str, amount: str, share: float | None) -> None:
        """Work before the first trial goes on: how much is done, and which share if that is known; 1 ends it.

        Several may go on at the same time: the text is made into tokens while Ray starts.
        """


@contextmanager
def doing(watcher: Watcher, what: str) -> Iterator[None]:
    """Have a watcher show what is done before the first trial, while it is done."""
    watcher.progress(what, "", None)
    try:
        yield
    finally:
        watcher.progress(what, "", 1.0)


class Onlookers:
    """All that see the changes of a sweep; what the search has spent is for those that have a `spent`."""

    def __init__(self, *onlookers: Any) -> None:
        """These: the first is a watcher, the others have `update`."""
        self._all = onlookers

    def changed(self, records: Sequence[TrialRecord], phase: str, spent: Mapping[str, float]) -> None:
        """Something changed; `spent` by the search, by limit."""
        for each in self._all:
            if hasattr(each, "spent"):
                each.spent(spent)
            each.update(records, phase)


class Quiet:
    """A watcher that prints nothing; notes go to the logger `sweeps`."""

    def update(self, records: Sequence[TrialRecord], phase: str) -> None:
        """Nothing is shown."""

    def note(self, text: str) -> None:
        """To the log, at INFO."""
        logging.getLogger("sweeps").info("%s", text)

    def progress(self, what: str, amount: str, share: float | None) -> None:
        """Nothing is shown."""
