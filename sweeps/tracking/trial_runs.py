"""A trial's run in MLflow: its tags when it starts, its end."""

from __future__ import annotations

from sweeps.records import State, TrialRecord
from sweeps.tracking import Tracking
from sweeps.tracking.events import REQUEST

NOTE = "mlflow.note.content"  # the tag that MLflow shows as the description of a run


def show(tracker: Tracking, record: TrialRecord) -> None:
    """Tell the tracker that a trial ran, or runs again."""
    tags = {
        "sweeps.role": record.role.value,
        "sweeps.attempt": record.attempt,
        "sweeps.state": State.RUNNING.value,
        REQUEST: record.request,
        **_of_a_promotion(record),
    }
    tracker.declare(record.number, record.settings, tags, record.started)


def _of_a_promotion(record: TrialRecord) -> dict[str, object]:
    """What a long run makes longer, and from where, also as the description of its run."""
    promotion = record.promotion
    if promotion is None:
        return {}
    beside = "" if promotion.beside is None else f", with the FLOPs of trial {promotion.beside}"
    tokens = record.steps * record.settings["recipe"]["batch_tokens"]
    return {
        "sweeps.promotes": promotion.of,
        "sweeps.begins": promotion.begins,
        "sweeps.beside": promotion.beside,
        NOTE: f"trial {promotion.of} with {tokens:,} tokens{beside}, {promotion.words}",
    }


def show_end(tracker: Tracking, record: TrialRecord) -> None:
    """Tell the tracker how a trial ended."""
    tags = {"sweeps.reason": record.reason} if record.reason else {}
    metrics = {"objective": record.value, "initial_loss": record.initial_loss}
    tracker.end(record.number, record.state, tags, metrics, record.finished)
