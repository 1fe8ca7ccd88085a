"""The table of methods of a comparison, a row a trial: sizes, losses, steps to the base's loss, tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweeps.results.equal_cost import Comparison, Entry
from sweeps.results.task_scores import Score, task_scores


@dataclass(frozen=True)
class MethodRow:
    """One trial of the table. Losses are nats per token, means over the seeds that all share.

    Attributes
    ----------
    reference : str
        ``SWEEP:TRIAL``.
    method : str
        What it is, in words.
    parameters : int or None
        Of its model; None where its weights were not kept.
    learning_rate : float or None
        Its peak.
    initial_loss : float
        Before the first step.
    losses : mapping of int to float
        By step, for as long as its curve goes.
    steps_to_base : float or None
        Steps to the loss of the base before training, on the line between two measurements; None where that
        was not reached.
    equal_tokens, equal_compute : float
        Losses where all had trained on as many tokens, and had spent as many FLOPs.
    tasks : mapping of str to Score
        By the name of the task.
    """

    reference: str
    method: str
    parameters: int | None
    learning_rate: float | None
    initial_loss: float
    losses: Mapping[int, float]
    steps_to_base: float | None
    equal_tokens: float
    equal_compute: float
    tasks: Mapping[str, Score] = field(default_factory=dict)


def method_rows(comparison: Comparison) -> list[MethodRow]:
    """The rows, in the order of the comparison: controls first."""
    equal = {each.axis: each for each in comparison.equal}
    return [
        MethodRow(
            reference=entry.key,
            method=entry.what,
            parameters=entry.parameters,
            learning_rate=_rate(entry),
            initial_loss=comparison.losses[entry.key][0],
            losses={step: loss for step, loss in comparison.losses[entry.key].items() if step},
            steps_to_base=comparison.reached[entry.key]["steps"],
            equal_tokens=equal["tokens"].mean(entry.key),
            equal_compute=equal["flops"].mean(entry.key),
            tasks=task_scores(entry.record),
        )
        for entry in comparison.entries
    ]


def flat_rows(rows: Sequence[MethodRow]) -> list[dict[str, Any]]:
    """The rows for a program, all with the same keys: what is missing is None."""
    steps = sorted({step for row in rows for step in row.losses})
    tasks = list(dict.fromkeys(task for row in rows for task in row.tasks))
    return [dict(_cells(row, steps, tasks)) for row in rows]


# -- inside ---------------------------------------------------------------------------------------


def _rate(entry: Entry) -> float | None:
    found = entry.record.settings.get("recipe", {}).get("learning_rate")
    return None if found is None else float(found)


def _cells(row: MethodRow, steps: Sequence[int], tasks: Sequence[str]) -> Iterator[tuple[str, Any]]:
    yield "reference", row.reference
    yield "method", row.method
    yield "parameters", row.parameters
    yield "learning_rate", row.learning_rate
    yield "initial_loss", row.initial_loss
    for step in steps:
        yield f"loss_at_step_{step}", row.losses.get(step)
    yield "steps_to_base_loss", row.steps_to_base
    yield "loss_at_equal_tokens", row.equal_tokens
    yield "loss_at_equal_flops", row.equal_compute
    for task in tasks:
        score = row.tasks.get(task)
        yield task, score.value if score else None
        yield f"{task}_error", score.error if score else None
