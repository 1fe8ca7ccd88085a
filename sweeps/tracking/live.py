"""The projection of a running sweep beside its trials: gaps to the control, how far it is, colours."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from sweeps.records import Role, TrialRecord
from sweeps.results.finalists import finalists
from sweeps.results.front import Front
from sweeps.results.sweep import Sweep
from sweeps.tracking.appearance import COLOUR, colour, colours
from sweeps.tracking.control_gap import ControlGaps, best_control
from sweeps.tracking.descriptions import running_text
from sweeps.tracking.interface import Tracking
from sweeps.tracking.trial_runs import NOTE

FRONT = "sweeps.front"  # the tag that says how a model stands on the front
_NO_MEMBER = "not compared"
_GAPS_EVERY, _TEXT_EVERY = 2.0, 30.0  # seconds
_SHARE = 0.02  # of the driver's time, at most


class LiveProjection:
    """Tells a tracker of the whole sweep as its trials go on; at most `_SHARE` of the time is spent on it."""

    def __init__(self, tracker: Tracking, sweep: Sweep, settled: Callable[[], bool]) -> None:
        """Tell nothing yet.

        Args:
            tracker: of the sweep.
            sweep: that runs.
            settled: whether no control at another rate will be run.
        """
        self._tracker, self._sweep, self._settled = tracker, sweep, settled
        self._gaps = ControlGaps(tracker)
        self._gaps_after = self._text_after = 0.0
        self._phase = ""
        self._seen: Sequence[TrialRecord] = ()  # the last time

    def update(self, records: Sequence[TrialRecord], phase: str) -> None:
        """Take every trial as it is now, and the phase of the work."""
        self._seen = records
        now = time.monotonic()
        changed, self._phase = phase != self._phase, phase
        if now < self._gaps_after and not changed:
            return
        control = best_control(records) if self._settled() else None
        against = self._gaps.tell(records, control)
        if now >= self._text_after or changed:
            self._text_after = now + _TEXT_EVERY
            text = running_text(self._sweep, records, phase, against)
            self._tracker.describe({NOTE: text})
        if changed and phase == "finalists":
            self._colour(records, control)
        done = time.monotonic()
        self._gaps_after = done + max(_GAPS_EVERY, (done - now) / _SHARE)

    def close(self) -> None:
        """Tell the gaps that are still to be told: the sweep ends, or is stopped."""
        if self._seen:
            self._gaps.tell(self._seen, best_control(self._seen) if self._settled() else None)

    def _colour(self, records: Sequence[TrialRecord], control: int | None) -> None:
        wanted = self._sweep.spec.finalists
        depth = self._sweep.ledger.depth
        chosen = finalists(records, wanted.top, self._sweep.spec.spread, depth=depth)
        show_colours(self._tracker, records, [each.number for each in chosen], control)


def show_colours(
    tracker: Tracking,
    records: Sequence[TrialRecord],
    chosen: Sequence[int],
    control: int | None,
    front: Front | None = None,
) -> None:
    """Tell the colours that are other than when the runs began, and how models stand on a front.

    Args:
        tracker: of the sweep.
        records: every trial of it.
        chosen: numbers of the finalists, the best first.
        control: number of the control at its best rate.
        front: of the answer, where there is one.
    """
    stands = {} if front is None else {member.number: member.stands for member in front.members}
    baseline = next((r.number for r in records if r.role is Role.BASELINE), None)
    found = colours(records, chosen, control, baseline)
    for record in records:
        if record.settings and record.ours:
            now, place = found[record.number], stands.get(record.number)
            tags = {COLOUR: now}
            if front is not None and not record.role.after:
                tags[FRONT] = place or _NO_MEMBER
            tracker.mark(record.number, tags, again=now == colour(record) and place is None)
