"""What a trial's model scores at downstream tasks, as far as its record holds it."""

from __future__ import annotations

from dataclasses import dataclass

from sweeps.records import TrialRecord


@dataclass(frozen=True)
class Score:
    """What a model scores at a downstream task, with its standard error where that is known."""

    value: float
    error: float | None = None


def task_scores(record: TrialRecord) -> dict[str, Score]:
    """Scores by the name of their task; none, as no trial's record holds one yet."""
    found = getattr(record, "task_scores", {})
    return {task: Score(each["value"], each.get("error")) for task, each in found.items()}


def score_text(score: Score | None) -> str:
    """`0.543 ± 0.016`; `-` where there is none."""
    if score is None:
        return "-"
    return f"{score.value:.3f}" + (f" ± {score.error:.3f}" if score.error is not None else "")
