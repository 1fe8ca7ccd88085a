"""Copies byte ranges between files: shared blocks where the file system has them, else by the kernel.

The disk is put to work while the copy goes on. A plain copy leaves all of it in the page cache, and the sync
at its end then waits for all of it; here every piece is handed to the disk as soon as it is there.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_PIECE = 64 * 2**20  # bytes moved between two reports of progress
BLOCK = 4096  # bytes; file systems share whole blocks
_FICLONERANGE = 0x4020940D  # <linux/fs.h>: fd, offset and length of the source, offset in the target


@dataclass(frozen=True)
class Run:
    """Bytes `[start, end)` of `file` that go to `offset` in another one."""

    file: Path
    start: int
    end: int
    offset: int

    @property
    def length(self) -> int:
        """Number of bytes."""
        return self.end - self.start

    def without(self, part: Run | None) -> list[Run]:
        """What is left of it before and behind a part of it."""
        if part is None:
            return [self]
        before = Run(self.file, self.start, part.start, self.offset)
        behind = Run(self.file, part.end, self.end, part.offset + part.length)
        return [run for run in (before, behind) if run.length]

    def follows(self, other: Run) -> bool:
        """Whether both are one run: side by side in both files."""
        return (self.file, self.start, self.offset) == (
            other.file,
            other.end,
            other.offset + other.length,
        )


def joined(runs: Iterable[Run]) -> list[Run]:
    """The same bytes in as few runs as there can be: whole layers lie side by side."""
    result: list[Run] = []
    for run in runs:
        if result and run.follows(result[-1]):
            last = result.pop()
            result.append(Run(last.file, last.start, run.end, last.offset))
        elif run.length:
            result.append(run)
    return result


def reserve(target: int, size: int) -> None:
    """Has the file system set aside the `size` bytes that a file has got and that are not written yet.

    Blocks in one piece are faster to fill than those found while writing, and a disk that is too small says
    so before anything was copied. Raises OSError for that; where space cannot be set aside, does nothing.
    """
    try:
        # Not os.posix_fallocate: where the file system cannot, that writes to every block by itself.
        fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    except (OSError, AttributeError):  # a system without the call
        return
    if fallocate(target, 0, ctypes.c_int64(0), ctypes.c_int64(size)) and ctypes.get_errno() == errno.ENOSPC:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def shared(source: int, target: int, run: Run) -> Run | None:
    """The part of a run that source and target now share, as whole blocks; None where they cannot.

    Only offsets at the same place in a block can be shared; `tli.checkpoint.writer` begins the data of a
    file so.
    """
    first = -run.start % BLOCK
    length = (run.length - first) // BLOCK * BLOCK
    if length <= 0 or (run.offset - run.start) % BLOCK:
        return None
    start, offset = run.start + first, run.offset + first
    try:
        fcntl.ioctl(target, _FICLONERANGE, struct.pack("qQQQ", source, start, length, offset))
    except OSError as error:
        if error.errno not in _IMPOSSIBLE:
            raise
        return None
    return Run(run.file, start, start + length, offset)


def copied(source: int, target: int, run: Run) -> Iterator[int]:
    """Copies a run; yields how many bytes after each piece. Raises OSError when the source ends before it."""
    start, offset = run.start, run.offset
    while start < run.end:
        count = _copy_some(source, target, min(_PIECE, run.end - start), start, offset)
        if count == 0:
            raise OSError(errno.EIO, "the file became shorter while it was copied", str(run.file))
        begin_writing(target, offset, count)
        start, offset = start + count, offset + count
        yield count


def write(target: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """Writes all of `data` at `offset`."""
    left = memoryview(data)
    while left:
        written = os.pwrite(target, left, offset)
        left, offset = left[written:], offset + written


def begin_writing(target: int, offset: int, count: int) -> None:
    """Has the system start to write these bytes to the disk, and does not wait for it."""
    if hasattr(os, "posix_fadvise"):
        # What is dirty it hands to the disk; only what is there already it would drop, and here nothing is.
        os.posix_fadvise(target, offset, count, os.POSIX_FADV_DONTNEED)


def _copy_some(source: int, target: int, count: int, start: int, offset: int) -> int:
    """One piece, by the first way that this system and these files allow."""
    for way in _WAYS:
        try:
            return way(source, target, count, start, offset)
        except (OSError, AttributeError) as error:
            # Across file systems, on systems without the call, or forbidden in a sandbox: the next way.
            if isinstance(error, OSError) and error.errno not in _IMPOSSIBLE:
                raise
    return _by_hand(source, target, count, start, offset)


def _in_kernel(source: int, target: int, count: int, start: int, offset: int) -> int:
    return os.copy_file_range(source, target, count, start, offset)


def _by_sendfile(source: int, target: int, count: int, start: int, offset: int) -> int:
    os.lseek(target, offset, os.SEEK_SET)
    return os.sendfile(target, source, start, count)


def _by_hand(source: int, target: int, count: int, start: int, offset: int) -> int:
    data = os.pread(source, min(count, 2**20), start)
    write(target, data, offset)
    return len(data)


_WAYS = (_in_kernel, _by_sendfile)
_IMPOSSIBLE = (
    errno.EXDEV,
    errno.ENOSYS,
    errno.EINVAL,
    errno.EOPNOTSUPP,
    errno.ENOTTY,
    errno.EPERM,
    errno.EBADF,
    errno.ENOTSOCK,
)
