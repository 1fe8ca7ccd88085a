"""Runs single trials outside a sweep: one for a debugger, one to time. The ledger is only read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from sweeps.checks.checkpointing import settled
from sweeps.commands import command
from sweeps.driver.schedule.controls import control_settings
from sweeps.errors import Problem, SpecError
from sweeps.folders import Folders
from sweeps.records import Assignment, Point, Role
from sweeps.results.finding import NoSweepError, found
from sweeps.spec import Spec
from sweeps.spec.values import steps_of
from sweeps.worker.trial import WorkerContext, for_workers, run_trial


def run_one(spec: Spec, number: int, out: Path, *, where: str | None = None) -> Iterator[tuple[Point, ...]]:
    """Run one trial in this process, for a debugger; the ledger is read but never written.

    Args:
        spec: of the sweep.
        number: of the trial; of a sweep that was not run yet, 0 is the control and 1 the baseline.
        out: an empty or new folder for what the trial writes.
        where: the option that the study's address came from; its place in the spec when left out.

    Raises:
        SpecError: there is no such trial.
    """
    assignment = assignment_of(spec, number, where)
    working = settled(for_workers(spec), _checkpointing(spec, where))
    return run_trial(WorkerContext(working), assignment, Folders(out.absolute(), spec.name))


def _checkpointing(spec: Spec, where: str | None) -> int | None:
    """What was chosen for all trials of the sweep; None before it was run."""
    try:
        return found(spec, where=where).ledger.study.checkpointing
    except NoSweepError:
        return None


def calibrate(spec: Spec, steps: int = 3) -> float:
    """Training speed of the spec's baseline on this machine, in FLOPs per second, from a few steps.

    One trial alone is timed; trials side by side on one machine share its memory and may be slower.
    """
    working = for_workers(spec)
    assignment = Assignment(
        study=spec.name,
        number=0,
        attempt=1,
        role=Role.REPLICATE,  # of which no model is kept
        settings=spec.trial.model_dump(),
        steps=spec.steps,
        report_steps=(1, 1 + steps),  # the first step warms up
    )
    with tempfile.TemporaryDirectory(prefix="sweeps-calibrate-") as scratch:
        first, last = run_trial(WorkerContext(working), assignment, Folders(Path(scratch), spec.name))
    return (last[0].flops - first[0].flops) / (last[0].seconds - first[0].seconds)


def assignment_of(spec: Spec, number: int, where: str | None = None) -> Assignment:
    """What trial `number` of a sweep runs, without asking for it.

    Raises:
        SpecError: there is no such trial, it has no settings yet, or the study cannot be read.
    """
    try:
        spec, records = (sweep := found(spec, where=where)).spec, sweep.records
        remedy = command("status", spec.name, runs=spec.root)
    except NoSweepError:  # the first two trials of every sweep are known before it runs
        records = []
        remedy = f"`sweeps run` first; before it 0 is the control of {spec.name}, and 1 its baseline"
    planned = {record.number: (record.role, dict(record.settings)) for record in records}
    if not planned:
        baseline = spec.trial.model_dump()
        planned = {
            0: (Role.CONTROL, control_settings(baseline, spec.control.train)),
            1: (Role.BASELINE, baseline),
        }
    if number not in planned:
        raise SpecError(Problem("N", str(number), f"one of 0 to {max(planned)}", remedy))
    role, settings = planned[number]
    if role is Role.OTHER:
        got = f"{number}, which was not run here: another program added it to the study"
        raise SpecError(Problem("N", got, "a trial of this sweep", remedy))
    if not settings:
        got = f"{number}, which waits for the rest of its settings"
        first = f"`{command('resume', spec.name, runs=spec.root)}` first"
        raise SpecError(Problem("N", got, "a trial that was started", first))
    steps = steps_of(settings)
    return Assignment(spec.name, number, 1, role, settings, steps, spec.report_steps(steps))
