"""Finds trials that stand RUNNING and that no worker runs: a write that was cut short left them so."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

from sweeps.ledger import Ledger
from sweeps.records import TrialRecord

_LOOKED_EVERY = 30.0  # seconds between two looks


class Orphans:
    """Of one sweep. The driver's lease is the only one on its study: no other process runs its trials."""

    def __init__(self, ledger: Ledger, standing: Callable[[], Sequence[TrialRecord]]) -> None:
        """Nothing is looked at yet; `standing` gives the trials of this work that stand RUNNING."""
        self._ledger, self._standing = ledger, standing
        self._looked = time.monotonic()
        self._seen: set[int] = set()

    def found(self, known: Collection[int]) -> list[int]:
        """Those that stand RUNNING at two looks in turn and are not known; none before it is time to look."""
        now = time.monotonic()
        if now - self._looked < _LOOKED_EVERY:
            return []
        self._looked = now
        self._ledger.refresh()
        orphans = {record.number for record in self._standing()} - set(known)
        found, self._seen = sorted(orphans & self._seen), orphans
        return found
