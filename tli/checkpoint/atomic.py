"""Atomic writes of files and folders: written aside, synced, renamed."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tli.errors import CheckpointError, Problem
from tli.files import replace_file, sync


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yields an empty folder beside `target` that becomes `target` when the block ends well.

    When it ends badly the folder is removed; what a killed run left beside `target` is removed by the next.
    Raises CheckpointError when `target` exists, before or after, or is in no place to write to.
    """
    problems = exists_problems(target)
    if problems:
        raise CheckpointError(*problems)
    aside = target.parent / f".{target.name}.tmp-{os.getpid()}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        clear(target)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
    except OSError as error:
        raise CheckpointError(_unwritable(target, error)) from None
    try:
        yield aside
        for path in (*aside.rglob("*"), aside):
            sync(path)
        try:
            aside.rename(target)
        except OSError as error:
            raise CheckpointError(*(exists_problems(target) or [_unwritable(target, error)])) from None
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    sync(target.parent)


def write_text(target: Path, text: str) -> None:
    """Writes a file, in place of one that may be there, so that it is there in full or as it was before."""
    try:
        replace_file(target, text.encode())
    except OSError as error:
        raise CheckpointError(_unwritable(target, error)) from None


def clear(target: Path) -> None:
    """Removes what killed runs left beside `target`; done first, it takes no room from the next run."""
    if target.parent.is_dir():
        remove_stale(target.parent, f".{glob.escape(target.name)}.tmp-*")


def exists_problems(target: Path) -> list[Problem]:
    """Whether something that must not be overwritten is at `target`."""
    if not os.path.lexists(target):
        return []
    return [
        Problem(str(target), "something that exists", "a folder to be made", "another name, or removing it")
    ]


def _unwritable(target: Path, error: OSError) -> Problem:
    reason = (error.strerror or str(error)).lower()
    return Problem(str(target), f"a place that cannot be written to ({reason})", "a place to write to")


def remove_stale(folder: Path, pattern: str) -> None:
    """Removes what killed processes of this machine left aside: names that match and end in `-<pid>`."""
    for left in folder.glob(pattern):  # of names: a pattern has them escaped
        if _alive(left.name.rpartition("-")[2]):
            continue
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def disk_space_problems(target: Path, needed: int) -> list[Problem]:
    """Whether the file system of `target` has less than `needed` bytes free."""
    place = target.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free >= needed:
        return []
    return [Problem(str(target), f"{free / 1e9:.2f} GB free", f"{needed / 1e9:.2f} GB", "another disk")]


def _alive(pid: str) -> bool:
    """Whether a process of this machine that is not this one has the id."""
    if not pid.isdecimal() or int(pid) == os.getpid():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
