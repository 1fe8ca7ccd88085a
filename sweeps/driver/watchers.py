"""What looks on while a sweep runs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from sweeps.records import TrialRecord
from tli.argument_types import Kind

WATCHER = Kind("a watcher with update, note and progress", attributes=("update", "note", "progress"))


class Watcher(Protocol):
    """What looks on while a sweep runs."""

    def update(self, records: Sequence[TrialRecord], phase: str) -> None:
        """Something changed."""

    def note(self, text: str) -> None:
        """Something that the user should know."""

    def progress(self, what: str, amount: str, share: float | None) -> None:
        """Work before the first trial goes on: how much is done, and which share of it if that is known."""


class Quiet:
    """A watcher that prints nothing; notes go to the logger `sweeps`."""

    def update(self, records: Sequence[TrialRecord], phase: str) -> None:
        """Nothing is shown."""

    def note(self, text: str) -> None:
        """To the log, at INFO."""
        logging.getLogger("sweeps").info("%s", text)

    def progress(self, what: str, amount: str, share: float | None) -> None:
        """Nothing is shown."""
