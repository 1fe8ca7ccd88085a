"""Exports the trained model of a trial as a folder, with its lineage and verdict."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from sweeps.checks import machine
from sweeps.records import TrialRecord
from sweeps.results.finding import find
from sweeps.results.sweep import Sweep
from tli.argument_types import Kind, require_types
from tli.checkpoint.atomic import exists_problems
from tli.errors import CheckpointError, Problem
from tli.models.lineage import read_lineage


def out_problems(out: Path) -> list[Problem]:
    """Why no model can be written as this folder: it exists, or it cannot be made."""
    if exists := exists_problems(out):
        return [replace(problem, where="out") for problem in exists]
    above = machine.existing(out)
    if not above.is_dir() or not machine.writable(above):
        got = f"{out} in {above}"
        return [Problem("out", got, "a folder in one to write to", "another name")]
    return []


def is_model_of(sweep: Sweep, record: TrialRecord, folder: Path) -> bool:
    """Whether a folder holds the model of a trial, as it was exported or trained."""
    try:
        return bool(read_lineage(folder).get("owner") == sweep.ledger.owner(record))
    except CheckpointError:
        return False


def export(
    sweep: Sweep | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    trial: int | None = None,
    grown: bool = False,
    at_most: float | None = None,
    runs: str | os.PathLike[str] | None = None,
    study: str | None = None,
) -> int:
    """Copy the model that a sweep's answer names, or a trial's, to a folder that transformers loads.

    What the answer names may be the original, trained on, where growing is not shown to be better.

    Parameters
    ----------
    sweep : Sweep, str or path-like
        A sweep, or what `find` takes.
    out : str or path-like
        Where the model goes; it must not exist yet.
    trial : int, optional
        This trial instead of what the answer hands over.
    grown : bool, default False
        The best grown model, also where the answer is the original, trained on.
    at_most : float, optional
        The best model, or with `grown` the best grown one, that costs at most so many times what the original
        does: FLOPs per token, or what the spec's objective names.
    runs, study : optional
        As for `find`.

    Returns
    -------
    int
        The number of the trial.

    Raises
    ------
    InputError
        There is no such sweep or trial, its weights were not kept, `out` exists, or nothing costs so little;
        or `trial` is given beside one of the others.

    Examples
    --------
    >>> import sweeps
    >>> number = sweeps.export("mine", "taken-home/")
    >>> number == sweeps.find("mine").verdict.best
    True
    """
    expected = "a Sweep, a sweep's name, or its spec file"
    require_types(sweep=(sweep, Kind(expected, '"quickstart"', (Sweep, str, os.PathLike))))
    found = sweep if isinstance(sweep, Sweep) else find(sweep, runs=runs, study=study)
    return found.export(out, trial=trial, grown=grown, at_most=at_most)
