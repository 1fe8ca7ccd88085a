"""Classifies an error in a trial: an outcome with its cause, and a remedy."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import traceback
from collections.abc import Iterator
from pathlib import Path

from sweeps.errors import PreemptedError, SpecError, StopRequestedError, SweepError
from sweeps.folders import Folders
from sweeps.records import Assignment, Cause, Outcome, State
from sweeps.wording import masked
from tli.files import open_regular

LOG = "log.txt"  # in the trial's folder: tracebacks of its attempts
# What a disk says that takes no more, and what to do about it. Another trial would fare no better.
_DISK = {
    errno.ENOSPC: ("is full", "free space"),
    errno.EDQUOT: ("is full to its quota", "free space, or have the quota raised"),
    errno.EROFS: ("is read-only", "make it writable"),
}


class UnusableError(SweepError):
    """This worker has no base or no text, whatever the trial: it was raised from the reason."""


def outcome_of(error: Exception, assignment: Assignment, folders: Folders) -> Outcome:
    """How an attempt ended that raised: FAIL with its cause, and fatal where no trial could do better; PRUNED
    where it was recalled.

    The traceback goes to the trial's log, where the disk takes it.
    """
    from tli.errors import DivergedError, FamilyError, PlanError
    from tli.training.device import out_of_memory

    if isinstance(error, StopRequestedError):
        return Outcome(State.PRUNED)
    if isinstance(error, PreemptedError):
        return Outcome(State.FAIL, str(error), Cause.PREEMPTED)
    if isinstance(error, DivergedError):
        return Outcome(State.FAIL, f"diverged: {error}", Cause.DIVERGED)
    logged = _logged(error, assignment, folders)
    if (fault := disk_fault(error, folders.trial(assignment.number))) is not None:
        return Outcome(State.FAIL, fault, Cause.ERROR, fatal=True)
    if isinstance(error, UnusableError):
        return Outcome(State.FAIL, logged, Cause.ERROR, fatal=True)
    if isinstance(error, PlanError | FamilyError | SpecError):
        return Outcome(State.FAIL, logged, Cause.REFUSED)
    if out_of_memory(error):
        return Outcome(State.FAIL, f"out of memory: {logged}", Cause.OUT_OF_MEMORY)
    return Outcome(State.FAIL, logged, Cause.ERROR)


def disk_fault(error: BaseException, place: Path) -> str | None:
    """Which file system takes no more and what helps, if that is behind an error; `place` is for those that
    name none."""
    for link in _chain(error):
        number = link.errno if isinstance(link, OSError) else _number_said(link)
        if number in _DISK:
            state, remedy = _DISK[number]
            where = getattr(link, "filename", None) or place
            return f"the file system of {where} {state}; {remedy}"
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those it was raised from or during."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _number_said(error: BaseException) -> int | None:
    """The system's error number as libraries written in Rust say it; safetensors hands over no other."""
    said = re.search(r"\(os error (\d+)\)", str(error))
    return int(said[1]) if said else None


def _logged(error: Exception, assignment: Assignment, folders: Folders) -> str:
    """The error in one line, with the file that has its traceback."""
    if isinstance(error, UnusableError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    log = folders.trial(assignment.number) / LOG
    first_line = masked(str(error).partition("\n")[0])
    with contextlib.suppress(OSError):  # a full disk has its own message, and it must get out
        folders.make(log.parent)
        with os.fdopen(open_regular(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666), "a") as out:
            lines = masked("".join(traceback.format_exception(error)))
            out.write(f"attempt {assignment.attempt}\n{lines}\n")
    return f"{type(error).__name__}: {first_line}; log: {log}"
