"""The one order of a sweep's trials, for tables, MLflow and `export`: what is handed over comes first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from sweeps.records import Role, TrialRecord
from sweeps.results.candidates import Candidate
from sweeps.results.finalists import is_done
from sweeps.results.verdict import Verdict


def ranking(verdict: Verdict, records: Sequence[TrialRecord]) -> list[int]:
    """Numbers of trials: what the answer hands over, the finalists in their order, the others by their loss,
    or by their score where the search goes by a task.

    Of runs under fresh seeds only the one that is handed over has a place; trials that were not run here and
    those without a finite loss have none.

    Args:
        verdict: of the sweep.
        records: every trial of it.
    """
    return list(dict.fromkeys(_ordered(verdict, records)))


def _ordered(verdict: Verdict, records: Sequence[TrialRecord]) -> Iterator[int]:
    if verdict.answer.trial is not None:
        yield verdict.answer.trial
    for finalist in verdict.finalists:
        yield finalist.number
    rest = [record for record in records if record.ours and not record.role.after and is_done(record)]
    for record in sorted(
        rest, key=lambda each: (math.inf if each.minimised is None else each.minimised, each.number)
    ):
        yield record.number


def best_of(verdict: Verdict) -> Candidate | None:
    """What the answer hands over, with its losses; None while there is nothing."""
    found = (*verdict.finalists, verdict.control, verdict.matched, verdict.baseline)
    return next((each for each in found if each and each.number == verdict.answer.trial), None)


def behind(verdict: Verdict, records: Sequence[TrialRecord]) -> list[int]:
    """Trials of the search with a lower loss, or a better score, than the best grown model, under the seed
    that chose them.

    Fresh seeds put them behind it, or it is as good and cheaper, or they are no grown models.

    Args:
        verdict: of the sweep.
        records: every trial of it.
    """
    values = {
        record.number: record.minimised
        for record in records
        if record.role in (Role.BASELINE, Role.SEARCH) and is_done(record)
    }
    best = verdict.answer.grown
    if best is None or values.get(best) is None:
        return []
    # The lowest loss is the study's best; of equal ones it may be either.
    return [number for number, value in values.items() if number != best and value <= values[best]]  # type: ignore[operator]
