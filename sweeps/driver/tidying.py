"""Frees what ended trials no longer need: training states, and models that cannot be handed over any more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sweeps.records import Role, TrialRecord
from sweeps.results.candidates import matched_control
from sweeps.results.finalists import control_of, may_be_finalists
from sweeps.results.sweep import Sweep


class Tidying:
    """Keeps the models of finalists, baseline, best control, best matched controls and promotions.

    Nothing of running trials is freed: their worker may have written the model of a winner that has yet to be
    told.
    """

    def __init__(self, sweep: Sweep) -> None:
        """Free what is there to be freed."""
        self._folders, self._wanted = sweep.folders, sweep.spec.finalists
        self._spread, self._depth = sweep.spec.spread, sweep.ledger.depth
        self._best: list[TrialRecord] = []
        self._free([record for record in sweep.records if record.ours and record.state.finished])

    def ended(self, record: TrialRecord) -> None:
        """One more has ended: itself or one that it surpasses is no finalist any more, and never will be."""
        self._free([record])

    def _free(self, ended: Sequence[TrialRecord]) -> None:
        known = [*self._best, *ended]
        self._best = list({record.number: record for record in self._kept(known)}.values())
        kept = {record.number for record in self._best}
        for record in ended:
            self._folders.drop_checkpoints(record.number)
        for record in known:
            self._folders.drop_finals(record.number, record.attempt if record.number in kept else None)

    def _kept(self, known: Sequence[TrialRecord]) -> Iterator[TrialRecord]:
        wanted = self._wanted
        yield from may_be_finalists(known, wanted.top, self._spread, depth=self._depth)
        yield from (r for r in known if r.role is Role.BASELINE or (r.role.promoted and r.value is not None))
        control = control_of(known)
        if control is not None:
            yield control
            of = {record.replicate_of for record in known if record.role is Role.MATCHED}
            found = [matched_control(record, known, control) for record in known if record.number in of]
            runs = {each.number for each in found if each is not None}
            yield from (record for record in known if record.number in runs)
