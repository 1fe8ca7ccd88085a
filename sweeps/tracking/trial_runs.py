"""A trial's run in MLflow: its name, tags and parameters when it starts, its end."""

from __future__ import annotations

from typing import Any

from sweeps.records import Role, State, TrialRecord
from sweeps.results.sentence import named
from sweeps.text import loss
from sweeps.tracking.appearance import COLOUR, colour, compared, ending, run_name, short_params
from sweeps.tracking.events import REQUEST
from sweeps.tracking.interface import Tracking

NOTE = "mlflow.note.content"  # the tag that MLflow shows as the description of a run, or of an experiment

_REASON = 300  # characters of why a trial failed
_WHY = {
    Role.CONTROL: "the original model, trained on for as many tokens",
    Role.BASELINE: "the spec's `trial:` as written",
    Role.SEARCH: "a trial of the search",
}


def show(tracker: Tracking, record: TrialRecord) -> None:
    """Tell the tracker that a trial ran, or runs again."""
    tags = {
        "sweeps.role": record.role.value,
        "sweeps.attempt": record.attempt,
        "sweeps.state": State.RUNNING.value,
        REQUEST: record.request,
        "sweeps.compared": "yes" if compared(record) else "no",
        COLOUR: colour(record),
        NOTE: f"{_what(record)}.",
        **_of_a_promotion(record),
    }
    settings: dict[str, Any] = {**record.settings, **short_params(record)}
    tracker.declare(record.number, settings, tags, record.started, run_name(record))


def _of_a_promotion(record: TrialRecord) -> dict[str, object]:
    """What a long run makes longer, and from where."""
    promotion = record.promotion
    if promotion is None:
        return {}
    return {
        "sweeps.promotes": promotion.of,
        "sweeps.begins": promotion.begins,
        "sweeps.beside": promotion.beside,
    }


def show_end(tracker: Tracking, record: TrialRecord) -> None:
    """Tell the tracker how a trial ended."""
    tags = {"sweeps.end": ending(record), NOTE: f"{_what(record)}: {_end(record)}."}
    tags |= {"sweeps.reason": record.reason} if record.reason else {}
    objective = record.aim.score if record.aim is not None else record.value
    metrics = {"objective": objective, "initial_loss": record.initial_loss}
    tracker.end(record.number, record.state, tags, metrics, record.finished)


# -- inside ----------------------------------------------------------------------------------------


def _what(record: TrialRecord) -> str:
    """What a run is: `Trial 17, K=2 damped lr 8.9e-04: a trial of the search`."""
    why = _WHY.get(record.role)
    if record.role is Role.REPLICATE:
        why = f"trial {record.replicate_of} again, under seed {record.seed}"
    if record.role is Role.RUNG:
        tokens = record.settings["recipe"]["tokens"]
        why = f"trial {record.replicate_of} with {tokens:,} tokens, a rung of the ladder"
    if record.role is Role.EVALUATION:
        if record.replicate_of is None:
            return f"Trial {record.number}: the base as it is, scored on tasks"
        why = f"trial {record.replicate_of} trained again, to be scored on tasks"
    if (promotion := record.promotion) is not None:
        beside = "" if promotion.beside is None else f", with the FLOPs of trial {promotion.beside}"
        tokens = record.steps * record.settings["recipe"]["batch_tokens"]
        why = f"trial {promotion.of} with {tokens:,} tokens{beside}, {promotion.words}"
    if record.role is Role.MATCHED:
        return f"Trial {record.number}: {named(record)}, seed {record.seed}"
    return f"Trial {record.number}, {named(record)}: {why or record.role.value}"


def _end(record: TrialRecord) -> str:
    """How it ended: `complete, held-out loss 3.0066`."""
    words = ending(record) or "running"
    if record.loss is not None:
        words += f", held-out loss {loss(record.loss)}"
    if record.reason and record.state is State.FAIL:
        said = " ".join(record.reason.split()).replace("`", "'")  # foreign text: Markdown in it is none
        words += f", as `{said[:_REASON]}`"
    return words
