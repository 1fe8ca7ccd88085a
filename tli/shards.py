"""Writes safetensors shards by ranges of bytes: a header, then each tensor copied, left zero or computed.

No tensor is loaded for a copy: the kernel moves the bytes between the files (and on file systems that share
extents does not even move them). Zeros are holes, which read as zeros and take no space.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tli.checkpoint_io import INDEX, SINGLE
from tli.header import BITS, TensorInfo

_CHUNK = 64 * 2**20  # bytes moved between two reports of progress

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Zeros:
    """A tensor of zeros."""


@dataclass(frozen=True)
class Computed:
    """A tensor whose bytes are made when its turn comes, so that only one is in memory."""

    make: Callable[[], bytes | bytearray | memoryview]


@dataclass(frozen=True)
class Output:
    """One tensor to write; with a TensorInfo as content its bytes are copied from there."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    content: TensorInfo | Zeros | Computed

    @property
    def nbytes(self) -> int:
        """Size on disk."""
        return math.prod(self.shape) * BITS[self.dtype] // 8


def write_shards(
    folder: Path,
    outputs: Sequence[Output],
    *,
    limit: int | None,
    metadata: Mapping[str, str],
    progress: Progress | None = None,
) -> None:
    """Writes `outputs` into `folder` as one file, or as shards of at most `limit` bytes with an index.

    Only a tensor larger than `limit` makes a larger shard. The order of tensors is kept, but those of wider
    types come first in a file, so that each begins at a multiple of its size. `progress(done, total)` is
    called with bytes. Raises OSError when the disk is full.
    """
    total = sum(output.nbytes for output in outputs)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    shards = split(outputs, limit)
    names = [SINGLE] if limit is None else [_shard_name(i, len(shards)) for i in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        _write_shard(folder / name, shard, metadata, advance)
    if limit is not None:
        weight_map = {
            output.name: name for name, shard in zip(names, shards, strict=True) for output in shard
        }
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def split(outputs: Sequence[Output], limit: int | None) -> list[list[Output]]:
    """Divides tensors into shards, in order, each filled up to `limit` bytes."""
    shards: list[list[Output]] = [[]]
    size = 0
    for output in outputs:
        if limit is not None and shards[-1] and size + output.nbytes > limit:
            shards.append([])
            size = 0
        shards[-1].append(output)
        size += output.nbytes
    return shards


def header(outputs: Sequence[Output], metadata: Mapping[str, str]) -> bytes:
    """The beginning of a safetensors file with these tensors one behind the other."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for output in outputs:
        start, end = end, end + output.nbytes
        entries[output.name] = {
            "dtype": output.dtype,
            "shape": list(output.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _shard_name(number: int, count: int) -> str:
    return f"model-{number:05}-of-{count:05}.safetensors"


def _write_shard(
    path: Path, outputs: Sequence[Output], metadata: Mapping[str, str], advance: Callable[[int], None]
) -> None:
    ordered = sorted(outputs, key=lambda output: -BITS[output.dtype])
    beginning = header(ordered, metadata)
    with ExitStack() as stack:
        target = stack.enter_context(_opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        os.ftruncate(target, len(beginning) + sum(output.nbytes for output in ordered))
        _write(target, beginning, 0)
        sources: dict[Path, int] = {}
        offset = len(beginning)
        for output in ordered:
            content = output.content
            if isinstance(content, TensorInfo):
                if content.file not in sources:
                    sources[content.file] = stack.enter_context(_opened(content.file, os.O_RDONLY))
                assert content.nbytes == output.nbytes, (
                    f"{output.name} is copied from a tensor of another size"
                )
                for count in _copied(sources[content.file], target, content.start, content.end, offset):
                    advance(count)
            else:
                if isinstance(content, Computed):
                    data = content.make()
                    assert len(data) == output.nbytes, f"{output.name} was computed with another size"
                    _write(target, data, offset)
                advance(output.nbytes)
            offset += output.nbytes
        os.fsync(target)


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write(target: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    left = memoryview(data)
    while left:
        written = os.pwrite(target, left, offset)
        left, offset = left[written:], offset + written


def _copied(source: int, target: int, start: int, end: int, offset: int) -> Iterator[int]:
    """Copies bytes `[start, end)` of one file to `offset` of another; yields how many after each piece."""
    while start < end:
        count = _copy_some(source, target, min(_CHUNK, end - start), start, offset)
        if count == 0:
            raise OSError(errno.EIO, "the file became shorter while it was copied")
        start, offset = start + count, offset + count
        yield count


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
    _write(target, data, offset)
    return len(data)


_WAYS = (_in_kernel, _by_sendfile)
_IMPOSSIBLE = (
    errno.EXDEV,
    errno.ENOSYS,
    errno.EINVAL,
    errno.EOPNOTSUPP,
    errno.EPERM,
    errno.EBADF,
    errno.ENOTSOCK,
)
