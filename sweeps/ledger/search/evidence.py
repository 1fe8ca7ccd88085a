"""What early stopping cost: how many of the stopped trials would have ended among the best."""

from __future__ import annotations

from collections.abc import Sequence

from sweeps.ledger.search.forecast import Curve
from sweeps.ledger.search.observations import forecaster_of, whole_ones
from sweeps.records import Role, State, TrialRecord
from sweeps.search_answers import StoppingEvidence
from sweeps.student import CONFIDENCE


def stopping_evidence(records: Sequence[TrialRecord], top: int = 3) -> StoppingEvidence | None:
    """From a sweep's trials alone; None where nothing was stopped, or too few whole curves tell.

    A trial counts as among the best where it would have ended below the last of the best that were measured;
    that two stopped ones may have displaced each other is left out, which makes the numbers no smaller.

    Args:
        records: of the sweep.
        top: how many of the best are meant.
    """
    stopped = [r for r in records if r.role is Role.SEARCH and r.state is State.PRUNED and r.losses]
    forecaster = forecaster_of(records)
    ends = sorted(r.value for r in whole_ones(records) if r.role is not Role.CONTROL and r.value is not None)
    if not stopped or len(ends) < top:
        return None
    chances = []
    for record in stopped:
        forecast = forecaster.final(Curve.of(record.number, record.settings, record.losses), record.step)
        if forecast is None:
            return None
        chances.append(forecast.below(ends[top - 1]))
    return StoppingEvidence(len(stopped), top, sum(chances), _at_most(chances))


def _at_most(chances: Sequence[float]) -> int:
    """The 95 % quantile of the number of events with these chances, one independent of the other."""
    numbers = [1.0]
    for chance in chances:
        before = [*numbers, 0.0]
        numbers = [
            before[n] * (1 - chance) + (before[n - 1] * chance if n else 0.0) for n in range(len(before))
        ]
    total = 0.0
    for count, share in enumerate(numbers):
        total += share
        if total >= CONFIDENCE:
            return count
    return len(chances)
