"""Commands that messages name, as a user can type them: quoted for a shell, with the folder of results."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from sweeps.addresses import masked_address

USUAL_RUNS = "runs"  # where commands look by themselves


def command(*words: str, runs: str | os.PathLike[str] | None = None, study: str | None = None) -> str:
    """`sweeps` and these words.

    Args:
        words: the command, its arguments and options.
        runs: the folder of all results; named where it is not the one that commands look in by themselves.
        study: the store that `--study` named; a password in it is masked, to be typed again.
    """
    store = ["--study", masked_address(study)] if study else []
    return shlex.join(["sweeps", *words, *store, *runs_option(runs)])


def runs_option(runs: str | os.PathLike[str] | None) -> list[str]:
    """`--runs DIR`, relative to the working folder where it lies below that; nothing where none is needed."""
    if runs is None or Path(runs).absolute() == Path(USUAL_RUNS).absolute():
        return []
    folder = Path(runs)
    if folder.is_absolute() and folder.is_relative_to(Path.cwd()):
        folder = folder.relative_to(Path.cwd())
    return ["--runs", str(folder)]
