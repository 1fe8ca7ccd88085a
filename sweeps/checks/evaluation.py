"""Checks of a spec's downstream tasks: whether they are known, and their data is here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sweeps.checks.scoring import models_scored
from sweeps.errors import Problem
from sweeps.spec import Spec
from sweeps.text import counted
from sweeps.wording import formatted, masked, nearest
from tli.tasks.checks import task_problems
from tli.tasks.harness import metrics_of


def evaluation_notes(spec: Spec) -> Iterator[str]:
    """What scoring adds to a sweep."""
    if not (names := spec.evaluation.to_tli().names):
        return
    if spec.objective.scored is not None:
        by, what = spec.objective.metric, "the search, the finalists and the best grown model go by"
        if spec.objective.score is not None:
            by, what = spec.objective.score, "the search and the finalists go along the front of losses and"
        yield (
            f"{what} {by}: every trial is scored after its last step; whether to grow and what each setting"
            " does is told by loss"
        )
    models = counted(sum(models_scored(spec).values()), "model")
    what = f"at most {models} on {counted(len(names), 'task')}, each after its training"
    yield f"lm-evaluation-harness scores {what}; no limit of the budget counts that, `sweeps plan` does"


def evaluation_problems(spec: Spec) -> Iterator[Problem]:
    """Why models could not be scored, each problem at its line; the hub may be asked for a task's data."""
    if not spec.evaluation.tasks:
        return
    found = task_problems(spec.evaluation.to_tli(), "evaluation.tasks")
    for problem in found or _metric_problems(spec):
        where = spec.where(problem.where) if problem.where.startswith("evaluation.") else problem.where
        yield replace(problem, where=where, got=masked(problem.got))


def _metric_problems(spec: Spec) -> Iterator[Problem]:
    """A metric that the task of the objective does not have, or that is neither better higher nor lower."""
    if spec.objective.scored is None:
        return
    task, metric = spec.objective.scored
    path, aim = "objective.metric", spec.objective.metric
    if spec.objective.score is not None:
        path, aim = "objective.score", spec.objective.score
    known = metrics_of(task, spec.evaluation.to_tli())
    where, got = spec.where(path), formatted(aim)
    sided = [name for name, higher in known.items() if higher is not None]
    expected = f"a metric of {task}: {', '.join(sided)}"
    near = nearest(metric, sided)
    remedy = f"{task}/{near}" if near else f"{task}/{sided[0]}" if sided else ""
    if metric not in known:
        yield Problem(where, got, expected, remedy)
    elif known[metric] is None:
        yield Problem(
            where, f"{got}, of which the task does not say whether higher is better", expected, remedy
        )
