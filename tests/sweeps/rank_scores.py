"""What each rank does in the test of scores over ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sweeps.driver.single import assignment_of
from sweeps.folders import Folders
from sweeps.records import Assignment, Role
from sweeps.spec import Spec, load_spec
from sweeps.worker.ranks import RankContext
from sweeps.worker.trial import WorkerContext, for_workers, run_trial


def assigned(spec: Spec, number: int) -> Assignment:
    """The baseline as a run under a fresh seed."""
    given = vars(assignment_of(spec, 1))
    return Assignment(**{**given, "number": number, "role": Role.REPLICATE, "owner": f"run {number}"})


def scored_by(context: WorkerContext, number: int) -> dict[str, Any]:
    """The scores of that run, and its last loss."""
    folders = Folders(context.spec.root, context.spec.name)
    steps = run_trial(context, assigned(context.spec, number), folders)
    points = [point for each in steps for point in each]
    tasks = {task: scores.to_json() for task, scores in points[-1].tasks.items()}
    return {"tasks": tasks, "loss": points[-1].eval_loss}


def on_a_rank(group: Any, path: str, number: int) -> dict[str, Any]:
    """The same on one rank of several, which score the model together."""
    spec = for_workers(load_spec(path))
    found = scored_by(RankContext(spec, group), number)
    written = sorted(
        Path(each).name for each in (Folders(spec.root, spec.name).trial(number) / "tasks").iterdir()
    )
    return {**found, "written": written}
