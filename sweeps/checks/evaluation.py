"""Checks of a spec's downstream tasks: whether they are known, and their data is here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sweeps.errors import Problem
from sweeps.spec import Spec
from sweeps.text import counted
from sweeps.wording import masked
from tli.tasks.checks import task_problems


def evaluation_notes(spec: Spec) -> Iterator[str]:
    """What scoring adds to a sweep."""
    if not (names := spec.evaluation.to_tli().names):
        return
    on, seeds = spec.evaluation.on, spec.finalists.seeds
    models = (spec.most_finalists + 1) * seeds * ("finalists" in on) + ("base" in on)
    models += (1 + spec.control.matched) * seeds * ("control" in on)
    what = f"{counted(len(names), 'task')} for at most {counted(models, 'model')}, each after its training"
    yield f"lm-evaluation-harness scores {what}; its time is not in any estimate"


def evaluation_problems(spec: Spec) -> Iterator[Problem]:
    """Why models could not be scored, each problem at its line; the hub may be asked for a task's data."""
    if not spec.evaluation.tasks:
        return
    for problem in task_problems(spec.evaluation.to_tli(), "evaluation.tasks"):
        where = spec.where(problem.where) if problem.where.startswith("evaluation.") else problem.where
        yield replace(problem, where=where, got=masked(problem.got))
