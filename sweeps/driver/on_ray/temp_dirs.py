"""Temporary folders on this machine that belong to this user alone."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from sweeps.errors import SweepError

# Ray's sockets lie below its folder, in session_DATE_TIME_MICROSECONDS_PROCESS/sockets/plasma_store, and the
# system limits the path of a socket.
_BELOW = 66
LONGEST = (107 if sys.platform == "linux" else 103) - _BELOW
SHORTEST = Path("/tmp")  # noqa: S108 - looked at before it is used


def ray_folder(temporary: Path | None = None, shorter: Path = SHORTEST) -> Path:
    """A folder for the sessions of a Ray that is started here: within one of ours alone, with a short path.

    Ray's own choice is shared by all users, belongs to the first of them, and can be written to by each.

    Args:
        temporary: the folder for temporary files; the system's, as TMPDIR has it, when left out.
        shorter: where to go when that one's path is too long.

    Raises:
        SweepError: there is none.
    """
    wanted = temporary or Path(tempfile.gettempdir())
    for place in (wanted, shorter):
        if fits_ray(place):
            with suppress(OSError):
                # One below, for Ray opens its own folder to all users.
                return own_folder(place / f"sweeps-{os.getuid()}") / "r"
    raise SweepError(
        f"no folder for Ray's sockets in {wanted}: its path has at most {LONGEST - 24} "
        "characters, and this user may write to it; try export TMPDIR=/tmp"
    )


def fits_ray(place: Path) -> bool:
    """Whether `ray_folder` would be made in a folder; nothing is made by asking."""
    writable = os.access(place, os.W_OK | os.X_OK)
    return writable and len(os.fsencode(place / f"sweeps-{os.getuid()}-12345678" / "r")) <= LONGEST


def own_folder(path: Path) -> Path:
    """The folder at a path, made now or this user's own; one of another name when it belongs to another user.

    In a folder that all may write to, a name that can be guessed may have been taken to be used by others.

    Raises:
        OSError: it cannot be made.
    """
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    if is_ours(path):
        return path
    return Path(tempfile.mkdtemp(prefix=f"{path.name}-", dir=path.parent))


def is_ours(path: Path) -> bool:
    """Whether a path is a folder, and no link, of this user into which no other may look."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def keep_rays_token() -> None:
    """See that the token of this user's own Ray clusters is read by no other user: `keep_to_ourselves`."""
    with suppress(RuntimeError):  # a user without a home
        keep_to_ourselves(Path.home() / ".ray" / "auth_token")


def keep_to_ourselves(file: Path) -> None:
    """See that a secret in a file of ours is read by no other user, before and after it is made.

    Its folder is made, so that a program that is about to make the file makes it where no other user looks.
    """
    with suppress(OSError):
        file.parent.mkdir(mode=0o700, exist_ok=True)
        opened = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            if os.fstat(opened).st_uid == os.getuid():
                os.fchmod(opened, 0o600)
        finally:
            os.close(opened)
