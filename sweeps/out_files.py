"""A file that a command writes at a place of the user's: what may be replaced there, and what never is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from sweeps.errors import Problem

_HEAD = 1 << 16  # bytes that are looked at


def out_file_problems(
    out: Path, *, force: bool, usual: str, what: str, is_one: Callable[[bytes], bool]
) -> Iterator[Problem]:
    """Why a file cannot be written.

    Args:
        out: its place.
        force: whether a file of this kind may be replaced; another one never is: it may be a study.
        usual: its name in a folder.
        what: it is, in a word.
        is_one: whether the beginning of a file is one of this kind.
    """
    if out.is_dir():
        yield Problem("--out", f"{out}, a folder", "a file", f"--out {out / usual}")
    elif out.exists() and not force:
        yield Problem("--out", f"{out}, which exists", "a new file", "--force, to replace it")
    elif out.exists() and not _begins(out, is_one):
        yield Problem(
            "--out", f"{out}, which is no {what}", f"a new file, or a {what} to replace", f"--out {usual}"
        )
    elif not out.absolute().parent.is_dir():
        yield Problem("--out", f"{out}, in no folder", "a file in a folder that is there", f"--out {usual}")


def _begins(path: Path, is_one: Callable[[bytes], bool]) -> bool:
    try:
        with path.open("rb") as file:
            return is_one(file.read(_HEAD))
    except OSError:
        return False
