"""The order of work of a promotion: the long run, and the control beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sweeps.driver.schedule.agenda import Agenda
from sweeps.ledger import Ledger
from sweeps.records import Assignment, Role, TrialRecord
from sweeps.results.promotions import LongRun
from sweeps.spec import Spec
from sweeps.tracking import Tracking

PHASE = "promotion"


class Promotions(Agenda):
    """Long runs of trials that have ended; what a search left unfinished in the same study stays as it is."""

    def __init__(
        self, ledger: Ledger, tracker: Tracking, wanted: Sequence[LongRun], *, spec: Spec, **given: Any
    ) -> None:
        """Go on with those of the long runs that the ledger holds.

        Args:
            ledger: the sweep's study; its driver is this process.
            tracker: where runs are shown.
            wanted: a promotion, then its control if that is wanted.
            spec: of the sweep, with the resources of these runs.
            given: as for `Agenda`.
        """
        self._wanted = list(wanted)
        self.numbers = [each.record.number for each in wanted if each.record is not None]
        super().__init__(ledger, tracker, **given)
        self.spec, self.phase = spec, PHASE

    def _drives(self, record: TrialRecord) -> bool:
        return record.role.promoted and record.number in self.numbers

    @property
    def _to_ask(self) -> bool:
        return False

    def _due(self) -> Assignment | None:
        while self._wanted:
            wanted = self._wanted.pop(0)
            if wanted.record is not None:  # asked for before: it stands in the ledger
                continue
            promotion = wanted.promotion
            if wanted.role is Role.PROMOTED_CONTROL:
                promotion = replace(promotion, beside=self.numbers[0])
            assignment = self.ledger.start(wanted.role, wanted.settings, promotion=promotion)
            self.numbers.append(assignment.number)
            return assignment
        return None
