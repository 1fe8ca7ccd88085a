"""How well a sweep's slots were used: how many there were, and how long they stood idle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sweeps.records import TrialRecord

_BRIEF = 0.02  # of the busy time: more trials than that at once are one ending while the next begins


@dataclass(frozen=True)
class Occupancy:
    """Wall clock of a sweep while at least one trial ran.

    Attributes
    ----------
    slots : int
        Trials that ran at once, at the most.
    busy : float
        Seconds in which at least one ran; what lies between two runs of the driver is left out.
    idle : float
        Share of the slots' time in those seconds in which no trial was in them.
    """

    slots: int
    busy: float
    idle: float


def occupancy(records: Sequence[TrialRecord]) -> Occupancy | None:
    """By when trials began and ended; None where no time is known."""
    spans = list(_spans(records))
    changes = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    held: dict[int, float] = {}
    running, before = 0, 0.0
    for when, change in changes:
        held[running] = held.get(running, 0.0) + (when - before if running else 0.0)
        running, before = running + change, when
    busy = sum(held.values())
    if busy <= 0:
        return None
    slots = max(count for count in held if sum(held[more] for more in held if more >= count) > _BRIEF * busy)
    used = sum(seconds * min(count, slots) for count, seconds in held.items())
    return Occupancy(slots, busy, 1.0 - used / (slots * busy))


def _spans(records: Sequence[TrialRecord]) -> Iterator[tuple[float, float]]:
    for record in records:
        start, end = record.started, record.finished
        if record.ours and start is not None and end is not None and end > start:
            yield start, end
