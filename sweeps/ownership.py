"""Ownership of a sweep's folder and of the files in it, by the study's UUID, never by a name or number.

A study can be deleted and its name taken again, restored from a backup, or made in another store; a folder
can be copied or received. So the folder bears the identity of the study that writes in it, and each state,
curve and model in it bears its trial's owner.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sweeps.errors import Problem, SpecError
from sweeps.folders import LOCK, Folders
from tli.files import read_regular, replace_file, sync

MARK = "study.json"  # in the sweep's folder: the identity of the study that writes there
_SMALL = 4096  # bytes of a mark
_ASIDE = re.compile(r"(.+)\.before-\d+")  # names of what was set aside


def owner_of(
    study_uuid: str, number: int, request: str | None, settings: Mapping[str, Any], steps: int
) -> str:
    """What a trial's states, curves and models bear: its study, its number, and a digest of what was trained.

    Args:
        identity: of the study.
        number: of the trial.
        request: the key under which the trial was created; a number is given twice where a study is restored
            from a backup.
        settings: all that the trial is trained with, as JSON values.
        steps: of training.
    """
    made = json.dumps([request, settings, steps], sort_keys=True).encode()
    return f"{study_uuid}/{number}/{hashlib.sha256(made).hexdigest()[:16]}"


def study_uuid_in(folder: Path) -> str | None:
    """The identity of the study that writes in a sweep's folder; None where no mark can be read."""
    try:
        mark = json.loads(read_regular(folder / MARK, _SMALL))
    except (OSError, ValueError, RecursionError):
        return None
    study_uuid = mark.get("identity") if isinstance(mark, dict) else None
    return study_uuid if isinstance(study_uuid, str) else None


def refuse_others(folders: Folders, study_uuid: str) -> None:
    """See that a sweep's folder is this study's, or empty.

    Raises:
        SpecError: another study wrote there.
    """
    if study_uuid_in(folders.sweep) != study_uuid and _entries(folders):
        got = "what another study of this name wrote"
        remedy = "--runs with this study's folder (runs=), or `sweeps run`, which sets the other's aside"
        raise SpecError(Problem(str(folders.sweep), got, "the folder of this study", remedy))


@contextmanager
def claimed(
    folders: Folders, study_uuid: str, tell: Callable[[str], None] = lambda _: None
) -> Iterator[None]:
    """Have the sweep's folder be this study's; the caller holds it.

    What another study left there is set aside, renamed and whole, as NAME.before-1 and so on. What was set
    aside from this study earlier comes back: two stores may have studies of one name over one folder.

    Args:
        folders: of the sweep.
        identity: of the study.
        tell: called with what was set aside, in words.

    Raises:
        LedgerHeldError: another process has taken the new folder first.
        OSError: the folder cannot be renamed or written.
    """
    if study_uuid_in(folders.sweep) == study_uuid:
        yield
        return
    ours = next((each for each in _set_aside(folders) if study_uuid_in(each) == study_uuid), None)
    moved = bool(_entries(folders))
    if moved:
        aside = _free(folders)
        folders.sweep.rename(aside)
        tell(
            f"{folders.sweep} holds what another study of the name {folders.name!r} left: "
            f"none of it is used; it was set aside, whole, as {aside.name}"
        )
    if ours is not None:
        if not moved:
            (folders.sweep / LOCK).unlink(missing_ok=True)
            folders.sweep.rmdir()
        ours.rename(folders.sweep)
        tell(f"{ours.name} is this study's: it is {folders.sweep} again")
    with folders.driver_lock() if moved or ours is not None else nullcontext():
        sync(folders.artifacts)
        mark = json.dumps({"study": folders.name, "identity": study_uuid}) + "\n"
        replace_file(folders.sweep / MARK, mark.encode())
        yield


def is_set_aside(name: str, sweep: str | None = None) -> bool:
    """Whether a folder's name is one that `claimed` gives to what it sets aside, of any or of this sweep."""
    match = _ASIDE.fullmatch(name)
    return match is not None and sweep in (None, match[1])


def names_under(runs: Path) -> list[str]:
    """The names of the sweeps under a folder, without what was set aside from them."""
    names = [kept.parent.name for kept in runs.glob("*/spec.json")]
    return sorted(name for name in names if not is_set_aside(name))


def _entries(folders: Folders) -> list[Path]:
    """What a study has written in the sweep's folder."""
    return [each for each in folders.sweep.iterdir() if each.name != LOCK] if folders.sweep.is_dir() else []


def _set_aside(folders: Folders) -> list[Path]:
    return sorted(
        each
        for each in folders.artifacts.iterdir()
        if is_set_aside(each.name, folders.name) and each.is_dir() and not each.is_symlink()
    )


def _free(folders: Folders) -> Path:
    number = 1
    while (aside := folders.artifacts / f"{folders.name}.before-{number}").exists() or aside.is_symlink():
        number += 1
    return aside
