"""The size of a working directory as Ray packs it for a job, checked before it is uploaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sweeps.errors import Problem
from sweeps.text import counted, in_bytes

_NAMED = 3  # files in the message
_ENTRY, _END = 76, 22  # bytes of a zip file beside names and contents: of each entry, and at the end


def packing_problem(folder: Path, excludes: Sequence[str]) -> Problem | None:
    """Why a jobs server would not take this working folder; None where it would.

    Ray packs a folder without compression, reads it whole to name the package, and sends it in one request,
    whose size the server limits. What `.gitignore`, `.rayignore` and the excludes leave out is left out here.

    Args:
        folder: absolute.
        excludes: patterns as in a .gitignore, besides Ray's own.
    """
    from ray._private import ray_constants
    from ray._private.runtime_env import packaging

    limit = min(ray_constants.DASHBOARD_CLIENT_MAX_SIZE, packaging.GCS_STORAGE_MAX_SIZE)
    try:
        found = packed(folder, excludes)
    except OSError as error:
        got = f"{folder}, which cannot be packed ({error.filename}: {error.strerror})"
        return Problem(
            "--working-dir", got, "a folder that can be read whole", "naming that in its .gitignore"
        )
    size = _END + sum(_ENTRY + 2 * len(name.encode()) + content for name, content in found.items())
    if size < limit:
        return None
    largest = sorted(found, key=lambda name: -found[name])[:_NAMED]
    named = ", ".join(f"{name} {in_bytes(found[name])}" for name in largest)
    got = f"{folder}, {in_bytes(size)} in {counted(len(found), 'file')} to upload (largest: {named})"
    remedy = (
        "naming what a job does not need in its .gitignore or .rayignore; models and text lie better in a "
        "folder that every node has"
    )
    return Problem("--working-dir", got, f"less than {in_bytes(limit)}, what a jobs server takes", remedy)


def packed(folder: Path, excludes: Sequence[str]) -> dict[str, int]:
    """The files that Ray would pack, by name from the folder, and their sizes in bytes."""
    from ray._private import ray_constants
    from ray._private.runtime_env import packaging

    found: dict[str, int] = {}

    def see(path: Path) -> None:
        if path.is_file():
            found[str(path.relative_to(folder))] = path.stat().st_size

    left_out = [*ray_constants.get_runtime_env_default_excludes(), *excludes]
    packaging._dir_travel(folder, [packaging._get_excludes(folder, left_out)], see, include_gitignore=True)
    return found
