"""Regular files alone: links followed only where asked, read within a limit, replaced as a whole.

What lies in a folder of results may come from a stranger: a link there leads a write to a file of the user's,
a named pipe or a device is read for ever, and a single line may be larger than memory.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_CHUNK = 1 << 20  # bytes that are read at once
_APART = os.O_CLOEXEC | os.O_NONBLOCK  # without waiting for the other end of a pipe


def open_regular(path: Path, flags: int, mode: int = 0o644, *, follow: bool = False) -> int:
    """A descriptor of a regular file; `flags` and `mode` as for `os.open`.

    Args:
        path: of the file.
        flags: what is done with it.
        mode: permissions of one that is made.
        follow: take a link for the file that it leads to, as the user's own texts and models may be.

    Raises:
        OSError: it is a link (ELOOP) or no regular file (EINVAL), or the system refuses it.
    """
    # Emptied only once it is known to be no device and no pipe.
    descriptor = os.open(path, (flags & ~os.O_TRUNC) | _APART | (0 if follow else os.O_NOFOLLOW), mode)
    try:
        found = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(found):
            raise OSError(errno.EINVAL, f"{_kind(found)}, not a file", str(path))  # noqa: TRY301
        if flags & os.O_TRUNC:
            os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a pipe or socket" if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else "a device"


def reader(path: Path) -> BinaryIO:
    """A regular file, or one that a link leads to, opened for reading in bytes.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    return os.fdopen(open_regular(path, os.O_RDONLY, follow=True), "rb")


def read_regular(path: Path, limit: int) -> bytes:
    """All of a regular file.

    Raises:
        OSError: as for `open_regular`; or it holds more than `limit` bytes (EFBIG).
    """
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"Larger than {limit} bytes", str(path))
    return data


def lines(path: Path, offset: int, longest: int) -> Iterator[tuple[bytes | None, int]]:
    """Whole lines of a regular file from a byte offset on, each with its newline and the offset after it.

    One of more than `longest` bytes comes as None; a last line without a newline does not come.

    Raises:
        OSError: as for `open_regular`.
    """
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
        file.seek(offset)
        end = offset
        while line := file.readline(longest + 1):
            whole: bytes | None = line
            size = len(line)
            while line and not line.endswith(b"\n"):
                whole = None
                line = file.readline(_CHUNK)
                size += len(line)
            if not line:
                return
            end += size
            yield whole, end


def replace_file(target: Path, data: bytes) -> None:
    """Write a file beside `target`, have it on disk, and put it in its place; a link there is replaced.

    Raises:
        OSError: it could not be written; `target` is as it was.
    """
    beside = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    try:
        beside.unlink(missing_ok=True)  # of a killed process that had this one's id
        descriptor = open_regular(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.rename(target)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    sync(target.parent)


def sync(path: Path) -> None:
    """Have the system write a file or folder to its disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
