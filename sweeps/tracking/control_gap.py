"""The gap to the control by step: a trial's held-out loss less that of the control, under the same seed.

MLflow takes no point of a metric back. So nothing is told before it is known which control is the one at
its best rate, and that one stays the reference of the sweep: what came before is told then, what comes later
as it comes, and a sweep that is extended goes on with the same. A control whose curve comes later than a
trial's completes the gaps of that trial once it is there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from sweeps.records import Role, State, TrialRecord
from sweeps.results.finalists import control_of, is_done
from sweeps.tracking.interface import Tracking


def best_control(records: Sequence[TrialRecord]) -> int | None:
    """Number of the control with the lowest loss; None while one runs, or where none is complete."""
    if any(record.role is Role.CONTROL and not record.state.finished for record in records):
        return None
    found = control_of(records)
    return found.number if found else None


def references(records: Sequence[TrialRecord], control: int) -> dict[int, TrialRecord]:
    """The runs of a control by seed: its own, and those under fresh seeds."""
    replicates = (r for r in records if r.role is Role.REPLICATE and r.replicate_of == control)
    found = {record.seed: record for record in replicates if record.state is not State.FAIL}
    own = next((record for record in records if record.number == control), None)
    return found if own is None else {**found, own.seed: own}


class ControlGaps:
    """Tells the gaps of one sweep's trials to a tracker, each once; cheap where nothing is new."""

    def __init__(self, tracker: Tracking) -> None:
        self._tracker = tracker
        self._told: dict[int, tuple[int, int, bool]] = {}  # how much of a trial and of its control was told

    def tell(self, records: Sequence[TrialRecord], control: int | None) -> int | None:
        """Tell what is new; the number of the control that is the reference.

        Args:
            records: of the sweep.
            control: the one at its best rate, as far as it is known; one that was told before stands.
        """
        before = self._tracker.gaps_against()
        control = control if before is None else before
        if control is None:
            return None
        runs = references(records, control)
        for record in records:
            reference = runs.get(record.seed)
            if reference is None or not record.settings or not record.losses:
                continue
            if record.steps != reference.steps:  # at one step their rates would be others
                continue
            now = (len(record.losses), len(reference.losses), record.state.finished)
            if self._told.get(record.number) != now:
                self._told[record.number] = now
                gaps, final = _gaps(record, reference), _final(record, reference)
                self._tracker.gaps(record.number, control, gaps, final)
        return control


def _gaps(record: TrialRecord, reference: TrialRecord) -> Mapping[int, float]:
    """By step, of the steps that both have."""
    losses = record.losses
    shared = (step for step in sorted(losses) if step in reference.losses)
    found = {step: losses[step] - reference.losses[step] for step in shared}
    return {step: gap for step, gap in found.items() if math.isfinite(gap)}


def _final(record: TrialRecord, reference: TrialRecord) -> float | None:
    """The gap of the objective, of complete trials."""
    if not (is_done(record) and is_done(reference)) or record.value is None or reference.value is None:
        return None
    if record.aim is not None:  # its objective is no loss, and better above
        return None
    return record.value - reference.value
