"""Which losses that other programs wrote into a study can be losses of its trials at all.

A trial that was added with plain Optuna was not run here: nothing says that its value is a loss of this base
on this text. One number far off would stretch the scale on which the search sees all others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from sweeps.records import State, TrialRecord

_FAR = 3.0  # times the span of our own losses, beyond which another's tells nothing about the valley
_LEAST_SPAN = 0.05  # nats


def implausible(records: Sequence[TrialRecord]) -> frozenset[int]:
    """Numbers of complete trials of other programs whose value is no loss, or lies far outside of ours.

    Without a finite loss of our own a value from 0 on is believed.

    Args:
        records: of the sweep, ours and others.
    """
    ours = [loss for record in records if record.ours for loss in _losses(record)]
    low, high = (min(ours), max(ours)) if ours else (0.0, math.inf)
    far = _FAR * max(high - low, _LEAST_SPAN)
    least, most = max(0.0, low - far), high + far
    return frozenset(
        record.number
        for record in records
        if not record.ours and record.state is State.COMPLETE and not _within(record.value, least, most)
    )


def _losses(record: TrialRecord) -> list[float]:
    """What was measured of a trial, where it began too."""
    known = [*record.losses.values(), *([] if record.value is None else [record.value])]
    return [loss for loss in known if math.isfinite(loss)]


def _within(value: float | None, least: float, most: float) -> bool:
    return value is not None and math.isfinite(value) and least <= value <= most
