"""A trial's run in MLflow: its tags when it starts, its end."""

from __future__ import annotations

from sweeps.records import State, TrialRecord
from sweeps.tracking import Tracking
from sweeps.tracking.events import REQUEST


def show(tracker: Tracking, record: TrialRecord) -> None:
    """Tell the tracker that a trial ran, or runs again."""
    tags = {
        "sweeps.role": record.role.value,
        "sweeps.attempt": record.attempt,
        "sweeps.state": State.RUNNING.value,
        REQUEST: record.request,
    }
    tracker.declare(record.number, record.settings, tags, record.started)


def show_end(tracker: Tracking, record: TrialRecord) -> None:
    """Tell the tracker how a trial ended."""
    tags = {"sweeps.reason": record.reason} if record.reason else {}
    metrics = {"objective": record.value, "initial_loss": record.initial_loss}
    tracker.end(record.number, record.state, tags, metrics, record.finished)
