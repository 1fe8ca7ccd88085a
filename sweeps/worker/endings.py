"""How an attempt ended whose process goes with it: said on disk, for a driver that finds the worker gone."""

from __future__ import annotations

import json
from dataclasses import asdict

from sweeps.folders import Folders
from sweeps.records import Assignment, Cause, Outcome, State
from tli.files import read_regular, replace_file

_LIMIT = 100_000  # bytes


def leave_ending(folders: Folders, assignment: Assignment, outcome: Outcome) -> bool:
    """Say how an attempt ended, before its process does; whether the disk took it."""
    path = folders.ending(assignment.number, assignment.attempt)
    text = json.dumps({"token": assignment.token, **asdict(outcome)})
    try:
        folders.make(path.parent)
        replace_file(path, text.encode())
    except OSError:
        return False
    return True


def left_ending(folders: Folders, assignment: Assignment) -> Outcome | None:
    """What an attempt's own process said of its end; None where it could say nothing."""
    try:
        said = json.loads(read_regular(folders.ending(assignment.number, assignment.attempt), _LIMIT))
        if said["token"] != assignment.token or said["state"] != State.FAIL:  # another study's, or damaged
            return None
        reason = str(said["reason"]) if said["reason"] is not None else None
        cause = Cause(said["cause"]) if said["cause"] is not None else None
        return Outcome(State.FAIL, reason, cause, fatal=said["fatal"] is True)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
