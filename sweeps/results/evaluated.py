"""Which runs are scored on downstream tasks, what scores each has, and which are still to be scored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from sweeps.records import Role, State, TrialRecord
from sweeps.results.finalists import finalists, is_done, references
from sweeps.task_scores import TaskScores

if TYPE_CHECKING:
    from sweeps.spec import Spec


def scores_of(
    spec: Spec, run: TrialRecord | None, records: Sequence[TrialRecord]
) -> dict[str, tuple[TrialRecord, TaskScores]]:
    """The scores of a run that compare, by task, each with the run that has them: itself, or one that made it
    again for them.

    Args:
        spec: with the tasks, shots and limit that scores are wanted of.
        run: None for the base.
        records: of the sweep.
    """
    number = run.number if run is not None else None
    again = [r for r in records if r.role is Role.EVALUATION and r.replicate_of == number]
    found: dict[str, tuple[TrialRecord, TaskScores]] = {}
    for record in [*([run] if run is not None else []), *again]:
        for task, scores in record.tasks.items():
            if (scores.shots, scores.limit) == (spec.evaluation.shots, spec.evaluation.limit):
                found[task] = record, scores
    return found


def runs_of(spec: Spec, records: Sequence[TrialRecord], depth: int | None = None) -> Iterator[TrialRecord]:
    """The complete runs that the spec wants scored, but for the base."""
    wanted = spec.finalists
    control, baseline = references(records)
    grown = [*finalists(records, wanted.top, spec.spread, depth=depth), baseline]
    numbers = (
        {each.number for each in grown if each is not None} if "finalists" in spec.evaluation.on else set()
    )
    if "control" in spec.evaluation.on and control is not None:
        numbers.add(control.number)
    for record in records:
        matched = record.role is Role.MATCHED and "control" in spec.evaluation.on
        if is_done(record) and (
            matched or (record.role is Role.REPLICATE and record.replicate_of in numbers)
        ):
            yield record


def runs_due(spec: Spec, records: Sequence[TrialRecord], depth: int | None = None) -> Iterator[TrialRecord]:
    """Runs that have ended without scores on each of the tasks, and that no run was made for yet.

    One that was made in any state is not due again: what failed stays failed, with its reason.
    """
    asked = spec.evaluation.asked
    if not spec.evaluation.tasks:
        return
    made = {r.replicate_of for r in records if r.role is Role.EVALUATION and _made_for(r, asked)}
    for run in runs_of(spec, records, depth):
        if (
            run.number not in made
            and not set(spec.evaluation.to_tli().names) <= scores_of(spec, run, records).keys()
        ):
            yield run


def base_due(spec: Spec, records: Sequence[TrialRecord]) -> bool:
    """Whether the base is still to be scored."""
    if not spec.evaluation.tasks or "base" not in spec.evaluation.on:
        return False
    asked = spec.evaluation.asked
    runs = [r for r in records if r.role is Role.EVALUATION and r.replicate_of is None]
    return not any(_made_for(run, asked) for run in runs)


def failures(spec: Spec, records: Sequence[TrialRecord]) -> dict[int | None, str]:
    """Why runs were not scored, by the number of the run; of the base by None."""
    asked = spec.evaluation.asked
    return {
        record.replicate_of: record.reason or "no reason is known"
        for record in records
        if record.role is Role.EVALUATION and record.state is State.FAIL and _made_for(record, asked)
    }


def is_due(spec: Spec, records: Sequence[TrialRecord], depth: int | None = None) -> bool:
    """Whether anything is still to be scored, once the search is over."""
    return base_due(spec, records) or any(True for _ in runs_due(spec, records, depth))


def _made_for(record: TrialRecord, asked: Mapping[str, object]) -> bool:
    made = record.evaluation or {}
    same = all(made.get(name) == asked[name] for name in ("shots", "limit"))
    tasks = made.get("tasks")
    return same and isinstance(tasks, list) and set(asked["tasks"]) <= set(tasks)  # type: ignore[call-overload]
