"""How fast a sweep goes on, and when it will have ended: one time with its range.

Work is counted in whole trials: one that was stopped after a quarter of its steps was a quarter. What is left
is foretold by the speed since this display began, which no stop of hours before it can spoil; until there is
one, by how long the trials took that ended before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from sweeps.records import State, TrialRecord
from sweeps.student import t_quantile

_LEAST_WORK = 0.5  # whole trials that were seen here before their speed counts
_CONFIDENCE = 0.8  # of the range
_GUESSED, _WEIGHT = 0.5, 2  # before any has ended: times differ by a half, as if two trials had shown that
Clock = Callable[[], float]


@dataclass(frozen=True)
class Left:
    """Seconds to the end, and where it lies with 80 %."""

    seconds: float
    low: float
    high: float


@dataclass(frozen=True)
class Rest:
    """What is left to do: in whole trials' worth of work, and in trials."""

    work: float
    trials: float


@dataclass(frozen=True)
class _Progress:
    """Where a running attempt was first seen, and where it was when it last came further; active seconds."""

    attempt: int
    first_step: int
    first_at: float
    step: int
    at: float


class Pace:
    """What is seen of a sweep's speed from now on."""

    def __init__(self, active: Clock) -> None:
        """Begin now.

        Args:
            active: seconds that do not count while nothing can run.
        """
        self._active = active
        self._began = active()
        self._at_first: float | None = None
        self._progress: dict[int, _Progress] = {}  # of running trials, by number

    def look(self, running: Iterable[TrialRecord]) -> None:
        """See how far the running trials have come."""
        now, before = self._active(), self._progress
        self._progress = {r.number: _progress(r, now, before.get(r.number)) for r in running}

    def count(self, work: float) -> None:
        """Take the work that is done by now; the first time, all of it was done before."""
        if self._at_first is None:
            self._at_first = work

    def left_of(self, record: TrialRecord) -> float | None:
        """Seconds to the end of a running trial at the speed that was seen here; None before there is one."""
        seen = self._progress.get(record.number)
        if seen is None or seen.step <= seen.first_step:
            return None
        pace = (seen.at - seen.first_at) / (seen.step - seen.first_step)
        return max(0.0, pace * (record.steps - seen.step) - (self._active() - seen.at))

    def left(self, work: float, rest: Rest, took: Collection[float], at_once: int) -> Left | None:
        """When all is done; None before there is a speed.

        Args:
            work: that is done, of this sweep.
            rest: what is left.
            took: seconds of trials that ended, and of each whole trial's worth of work where it was stopped.
            at_once: trials that run now.
        """
        new = work - (self._at_first or 0.0)
        if new >= _LEAST_WORK:
            each = (self._active() - self._began) / new
        elif took and at_once:
            each = fmean(took) / at_once
        else:
            return None
        seconds = each * rest.work
        factor = math.exp(_half_width(took, rest.trials))
        return Left(seconds, seconds / factor, seconds * factor)


def _half_width(took: Collection[float], trials: float) -> float:
    """Of the logarithm of the time: by how different trials are, how many have ended, how many come."""
    mean = fmean(took) if took else 0.0
    squares = sum((each / mean - 1) ** 2 for each in took) if mean > 0 else 0.0
    known = len(took) + _WEIGHT
    spread = math.sqrt((_WEIGHT * _GUESSED**2 + squares) / known)
    return t_quantile(float(known - 1), _CONFIDENCE) * spread * math.sqrt(1 / max(trials, 1.0) + 1 / known)


def share(record: TrialRecord) -> float:
    """Of its steps that a trial has done."""
    return record.step / max(record.steps, 1)


def seconds_for_a_whole(record: TrialRecord) -> float | None:
    """Seconds for a whole trial's worth of work, by one that ended; None where its times do not tell that."""
    told = record.state in (State.COMPLETE, State.PRUNED) and record.attempt == 1 and record.step > 0
    if not told or record.started is None or record.finished is None or record.finished <= record.started:
        return None
    return (record.finished - record.started) / share(record)


def rest_of(
    searched: tuple[int, float],
    running: Sequence[TrialRecord],
    trials: int,
    fresh: int,
    used: Mapping[str, float],
) -> Rest:
    """What is left of a sweep.

    Searched trials that come are taken to do the share of their steps that those did which have ended; a
    limit that is used up before ends them earlier.

    Args:
        searched: trials that have ended, without those under fresh seeds, and their work.
        running: those that run.
        trials: of the search that have not begun.
        fresh: runs under fresh seeds that have not begun.
        used: share of each limit that the search has used.
    """
    number, work = searched
    usual = (work + 1.0) / (number + 1)
    open_now = sum(max(0.0, (1.0 if r.role.after else max(usual, share(r))) - share(r)) for r in running)
    search, work = trials * usual, work + sum(share(r) for r in running if not r.role.after)
    for part in used.values():
        if part > 0 and work > 0:
            search = min(search, max(0.0, work / part - work))
    return Rest(open_now + search + fresh, len(running) + search / usual + fresh)


def _progress(record: TrialRecord, now: float, before: _Progress | None) -> _Progress:
    if before is None or before.attempt != record.attempt:
        return _Progress(record.attempt, record.step, now, record.step, now)
    return replace(before, step=record.step, at=now) if record.step > before.step else before
