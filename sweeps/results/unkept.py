"""Why a trial's model cannot be handed over: it has none, or it was not kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sweeps.commands import command
from sweeps.errors import Problem
from sweeps.folders import Folders
from sweeps.records import State, TrialRecord


def no_weights(name: str, record: TrialRecord, folders: Folders, kept: Sequence[int], out: Path) -> Problem:
    """The problem, with what to try instead.

    Args:
        name: of the sweep.
        record: the trial that was asked for.
        folders: of the sweep.
        kept: numbers of the trials whose models lie where they should.
        out: the folder that the model was wanted in.
    """
    where, held = f"trial {record.number}", ", ".join(map(str, kept))
    runs, folder = folders.artifacts, folders.model_dir(record.number, record.attempt)
    status = command("status", name, runs=runs)
    if not record.ours:
        got, again = "one that was not run here", status
        return Problem(where, got, f"a trial of this sweep: {held or 'none is kept'}", again)
    if not record.state.finished:
        got, again = f"one that is {record.state.value.lower()}", f"`{status}`, and waiting"
        return Problem(where, got, "a complete trial", again)
    words = {State.PRUNED: "one that was stopped early", State.FAIL: "one that failed"}
    lost = "were not kept" if not folder.exists() else "in its folder are another study's, or another trial's"
    got = words.get(record.state, f"one whose weights {lost}")
    wanted = f"one of the trials that were kept: {held or 'none'}"
    trained = command("trial", name, str(record.number), "--out", str(out), runs=runs)
    return Problem(where, got, wanted, f"{trained}, to train it here")
