"""Line search for the control's learning rate: each next rate from the losses at those before it.

Brackets the minimum by factors of three, then takes the vertex of the parabola through the best rate and its
two neighbours, in the logarithm of the rate (successive parabolic interpolation; Brent, Algorithms for
Minimization without Derivatives, 1973, chapter 5).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

from sweeps.records import Role, TrialRecord
from sweeps.results.finalists import is_done
from sweeps.spec import Range, Spec
from sweeps.spec.equivalence import key, replaced, value_at
from sweeps.spec.fields import LEARNING_RATE

_FACTOR = math.log(3.0)  # between two rates while the minimum is not bracketed
_FURTHEST = {1: 2 * _FACTOR, -1: 3 * _FACTOR}  # beyond the outermost rate, up and down, where losses are safe
_SAME = math.log(1.05)  # rates that are closer train alike
_AT_ONCE = 3  # first rates that are tried side by side, where slots are many

Point = tuple[float, float]  # logarithm of a rate, and the loss at it: infinite where a trial had none


class LineSearch:
    """The control's learning rates of one sweep; what it says hangs on the ledger's records alone."""

    def __init__(self, spec: Spec, parallel: int = 1) -> None:
        """Ask nothing yet; with many slots in `parallel`, half of them at the most try the first rates."""
        self._spec = spec
        self._at_once = min(_AT_ONCE, parallel // 2, spec.control_rates)
        self.over = spec.control_rates == 1  # nothing more will come of it

    def next(self, records: Sequence[TrialRecord]) -> dict[str, Any] | None:
        """Settings of the next control; None while one runs, or when the line search is over.

        Args:
            records: of the sweep; without a control there is nothing to go on from.
        """
        controls = [record for record in records if record.role is Role.CONTROL]
        if self.over or not controls:
            return None
        if not all(record.state.finished for record in controls):
            return self._beside(controls) if len(controls) < self._at_once else None
        rate = None
        if len(controls) < self._spec.control_rates:
            tried = [
                (value_at(record.settings, LEARNING_RATE), record.minimised if is_done(record) else None)
                for record in (*controls, *_searched_alike(records, controls[0]))
            ]
            rate = next_rate(tried, self._spec.search[LEARNING_RATE])
        self.over = rate is None
        return None if rate is None else replaced(controls[0].settings, {LEARNING_RATE: rate})

    def _beside(self, controls: Sequence[TrialRecord]) -> dict[str, Any] | None:
        """While the first one runs: the rates that would bracket it, the higher one first."""
        first = value_at(controls[0].settings, LEARNING_RATE)
        wanted = self._spec.search[LEARNING_RATE]
        tried = [math.log(value_at(record.settings, LEARNING_RATE)) for record in controls]
        if wanted.choice is not None:
            choices = sorted(wanted.choice, key=lambda c: abs(math.log(c / first)))
            rates = [float(choice) for choice in choices]
        else:
            low, high = wanted.ends
            ends = (math.exp(math.log(first) + side * _FACTOR) for side in (1, -1))
            rates = [_rounded(min(max(end, low), high), wanted) for end in ends]
        for rate in rates:
            if all(abs(math.log(rate) - known) >= _SAME for known in tried):
                return replaced(controls[0].settings, {LEARNING_RATE: rate})
        return None

    def left(self, records: Sequence[TrialRecord]) -> int:
        """The most controls that are still to come."""
        if self.over:
            return 0
        return max(0, self._spec.control_rates - sum(record.role is Role.CONTROL for record in records))


def _searched_alike(records: Sequence[TrialRecord], control: TrialRecord) -> list[TrialRecord]:
    """What the search trained of the original itself, to its end and as the control but for the rate."""

    def but_for_the_rate(record: TrialRecord) -> Hashable:
        return key(replaced(record.settings, {LEARNING_RATE: 1.0}), None)

    wanted = but_for_the_rate(control)
    searched = (r for r in records if r.original and r.role in (Role.BASELINE, Role.SEARCH) and is_done(r))
    return [record for record in searched if but_for_the_rate(record) == wanted]


def next_rate(tried: Sequence[tuple[float, float | None]], wanted: Range) -> float | None:
    """The learning rate to try next; None where the best one is known to 5 %, or every choice has its loss.

    Args:
        tried: rates and their losses, in any order; None where a trial had no finite one.
        wanted: where rates may lie.
    """
    points = sorted((math.log(rate), math.inf if loss is None else loss) for rate, loss in tried)
    if wanted.choice is not None:
        return _next_choice(points, sorted(wanted.choice))
    low, high = (math.log(end) for end in wanted.ends)
    best = min(range(len(points)), key=lambda place: points[place][1])
    failed = points[best][1] == math.inf  # all of them: the rates were too high
    place = points[0][0] - _FACTOR if failed else _next_place(points, best, low, high)
    place = min(max(place, low), high)
    if any(abs(place - known) < _SAME for known, _ in points):
        return None
    rate = _rounded(math.exp(place), wanted)
    if wanted.step is not None and any(abs(math.log(rate) - known) < _SAME for known, _ in points):
        return _next_choice(points, _grid(wanted, wanted.step))  # the step is coarser than the search by now
    return rate


def _grid(wanted: Range, step: float) -> list[float]:
    """All rates of a range with a step, the lowest first."""
    low, high = wanted.ends
    return [
        _rounded(low + index * step, wanted) for index in range(math.floor((high - low) / step + 1e-9) + 1)
    ]


def _next_choice(points: Sequence[Point], choices: Sequence[float]) -> float | None:
    """The untried choice beside the best one that was tried, the nearest first."""
    best, loss = min(points, key=lambda point: point[1])
    if loss == math.inf:
        best = points[0][0]
    left = [c for c in choices if all(abs(math.log(c) - known) >= _SAME for known, _ in points)]
    below = [c for c in left if math.log(c) < best and not _between(points, math.log(c), best)]
    above = [
        c for c in left if math.log(c) > best and not _between(points, best, math.log(c)) and loss < math.inf
    ]
    beside = [*below[-1:], *above[:1]]
    return min(beside, key=lambda c: abs(math.log(c) - best), default=None)


def _between(points: Sequence[Point], low: float, high: float) -> bool:
    return any(low < known < high for known, _ in points)


def _next_place(points: Sequence[Point], best: int, low: float, high: float) -> float:
    """Where the next rate is tried, in the logarithm; outside the range where there is no more to know."""
    at = points[best][0]
    above, below = best == len(points) - 1 and high - at > _SAME, best == 0 and at - low > _SAME
    if above or below:
        return _beyond(points, best, 1 if above else -1)
    if 0 < best < len(points) - 1:
        (left, worse_left), (right, worse_right) = points[best - 1], points[best + 1]
        if math.inf in (worse_left, worse_right):
            return (at + (right if worse_right == math.inf else left)) / 2
        return _vertex(points[best - 1 : best + 2], at)
    if len(points) == 1:  # the range is one rate
        return at
    # The best one stands at the end of the range.
    three = points[-3:] if best else points[:3]
    if len(three) < 3 or any(loss == math.inf for _, loss in three):
        return (at + points[best - 1 if best else 1][0]) / 2
    return _vertex(three, at)


def _beyond(points: Sequence[Point], best: int, direction: int) -> float:
    """A rate further out than the best one, which is the outermost that was tried."""
    at = points[best][0]
    three = points[-3:] if direction > 0 else points[:3]
    if len(three) == 3 and all(loss < math.inf for _, loss in three):
        # Losses rise faster above the best rate than below it, which no parabola does: what it says of a
        # minimum close by or a little inside is not trusted before there is a bracket.
        beyond = (_vertex(three, at) - at) * direction
        return at + direction * (min(beyond, _FURTHEST[direction]) if beyond > _FACTOR / 5 else _FACTOR / 2)
    return at + direction * _FACTOR


def _vertex(three: Sequence[Point], without: float) -> float:
    """Of the parabola through three points; `without` where it has no minimum."""
    (x0, y0), (x1, y1), (x2, y2) = three
    left, right = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    if not right > left:
        return without
    return (x0 + x1) / 2 - left * (x2 - x0) / (2 * (right - left))


def _rounded(rate: float, wanted: Range) -> float:
    """A rate of four digits, in the range and on its grid."""
    low, high = wanted.ends
    if wanted.step is not None:
        rate = low + round((rate - low) / wanted.step) * wanted.step
    return min(max(float(f"{rate:.3e}"), float(low)), float(high))
