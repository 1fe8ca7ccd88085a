"""What the ended trials of a sweep come to, counted once each: a look costs the same at 5 as at 5,000."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence

from sweeps.records import Role, State, TrialRecord
from sweeps.results.finalists import control_of
from sweeps.results.pace import seconds_for_a_whole, share

_LATEST = 200  # ended trials whose times tell how different they are, and whose curves teach


class Tally:
    """The trials of a sweep: those that have ended in sums, the open ones as they are."""

    def __init__(self) -> None:
        """Know of none."""
        self.open: list[TrialRecord] = []  # ours that have not ended
        self.counts: Counter[State] = Counter()  # of those that have
        self.fresh = self.asked = 0  # of them: after the search; against the budget
        self.work = self.searched = 0.0  # whole trials' worth of work, and that of the search
        self.best: TrialRecord | None = None
        self.control: TrialRecord | None = None
        self.took: deque[float] = deque(maxlen=_LATEST)  # seconds for a whole trial
        self.whole: deque[TrialRecord] = deque(maxlen=_LATEST)
        self._last: list[TrialRecord] = []
        self._open_at: list[int] = []
        self._seen = 0

    @property
    def ended(self) -> int:
        """How many have ended."""
        return self.counts.total()

    def take(self, records: Sequence[TrialRecord]) -> None:
        """Count those that have ended since the last time.

        Args:
            records: all of the study, in the order of numbers; no fewer than the last time.
        """
        places = [*self._open_at, *range(self._seen, len(records))]
        self._seen = len(records)
        now = [records[place] for place in places]
        for record in sorted((r for r in now if r.ours and r.state.finished), key=ended):
            self._add(record)
        self._open_at = [place for place in places if not records[place].state.finished]
        self.open = [record for record in now if record.ours and not record.state.finished]

    def recent(self, most: int) -> list[TrialRecord]:
        """Those that ended last, the last first."""
        return self._last[-most:][::-1] if most > 0 else []

    def _add(self, record: TrialRecord) -> None:
        done = share(record)
        self.counts[record.state] += 1
        self.work += done
        self.asked += record.budgeted
        if record.role.after:
            self.fresh += 1
        else:
            self.searched += done
        self.best = best_so_far([record, *([self.best] if self.best else [])])
        self.control = control_of([record, *([self.control] if self.control else [])])
        if (seconds := seconds_for_a_whole(record)) is not None:
            self.took.append(seconds)
        if record.state is State.COMPLETE:
            self.whole.append(record)
        self._last = sorted([*self._last, record], key=ended)[-_LATEST:]


def best_so_far(records: Sequence[TrialRecord]) -> TrialRecord | None:
    """The complete trial with the lowest loss, or the best score where the search goes by a task; the
    control, which is what to beat, does not count.
    """
    roles = (Role.BASELINE, Role.SEARCH)
    complete = [r for r in records if r.value is not None and r.role in roles and not r.original]
    return min(
        complete,
        key=lambda r: (math.inf if r.minimised is None else r.minimised, r.value or 0.0),
        default=None,
    )


def ended(record: TrialRecord) -> tuple[float, int]:
    """Sorts trials by when they ended."""
    return record.finished or 0.0, record.number
