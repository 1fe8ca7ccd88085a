"""Writes safetensors shards by ranges of bytes: a header, then each tensor copied, left zero or computed.

No tensor is loaded for a copy: the kernel moves the bytes between the files (`tli.checkpoint.copying`), in
several files at a time. Zeros are not written: space that was set aside and never written to reads as
zeros. The rest is computed beside the copying, several tensors at a time where they come in pieces.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock

from tli.checkpoint.copying import BLOCK, Run, begin_writing, copied, joined, reserve, shared, write
from tli.checkpoint.header import BITS, TensorInfo
from tli.checkpoint.reader import INDEX, SINGLE

_PARALLEL = 4  # files, and computed tensors, at a time, on a machine of as many cores
_HANDED = 8 * 2**20  # bytes of computed pieces that the disk is given together
_WORTH_SHARING = 2**20  # bytes; the spaces that it takes should be few beside it
_EVERY = 0.1  # seconds between two reports of progress

Progress = Callable[[int, int], None]
Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Zeros:
    """A tensor of zeros."""


@dataclass(frozen=True)
class Computed:
    """A tensor whose bytes are made at once when its turn comes: only one of these is in memory."""

    make: Callable[[], Buffer]

    def pieces(self) -> Iterator[Buffer]:
        """Its bytes, in one piece."""
        yield self.make()


@dataclass(frozen=True)
class Pieces:
    """A tensor whose bytes are made in pieces, one behind the other, in little memory."""

    make: Callable[[], Iterator[Buffer]]

    def pieces(self) -> Iterator[Buffer]:
        """Its bytes, in pieces."""
        return self.make()


Content = TensorInfo | Zeros | Computed | Pieces


@dataclass(frozen=True)
class Output:
    """One tensor to write; with a TensorInfo as content its bytes are copied from there."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    content: Content

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
    types come first in a file, so that each begins at a multiple of its size. All is on the disk when it
    returns. `progress(done, total)` is called with bytes, in the thread of the caller; what it raises ends
    the writing. Raises OSError when the disk is full.
    """
    shards = split(outputs, limit)
    names = [SINGLE] if limit is None else [shard_name(i, len(shards)) for i in range(1, len(shards) + 1)]
    files = [_File(folder / name, shard, metadata) for name, shard in zip(names, shards, strict=True)]
    _write_all(files, progress)
    if limit is not None:
        (folder / INDEX).write_text(index_of(names, shards), encoding="utf-8")


def index_of(names: Sequence[str], shards: Sequence[Sequence[Output]]) -> str:
    """The content of the index of several files."""
    weight_map = {output.name: name for name, shard in zip(names, shards, strict=True) for output in shard}
    total = sum(output.nbytes for shard in shards for output in shard)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    return json.dumps(index, indent=2, allow_nan=False) + "\n"


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
    """The beginning of a safetensors file with these tensors one behind the other.

    It is filled up with spaces, as the format allows, so that the data begins at a multiple of 8 bytes; and
    so that what is copied keeps its place within a block of the disk, which is what sharing blocks needs.
    """
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for output in outputs:
        start, end = end, end + output.nbytes
        entries[output.name] = {
            "dtype": output.dtype,
            "shape": list(output.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    largest = max(_runs(outputs, 0), key=lambda run: run.length, default=None)
    multiple, place = 8, 0  # the data is to begin at a `multiple`, and `place` bytes more
    if largest and largest.length >= _WORTH_SHARING and (largest.start - largest.offset) % 8 == 0:
        multiple, place = BLOCK, largest.start - largest.offset
    text += b" " * ((place - 8 - len(text)) % multiple)
    return len(text).to_bytes(8, "little") + text


def shard_name(number: int, count: int) -> str:
    """What one of several files is called, counted from 1."""
    return f"model-{number:05}-of-{count:05}.safetensors"


@dataclass
class _File:
    """One file to write, and how many bytes of tensors are in it already."""

    path: Path
    outputs: Sequence[Output]
    metadata: Mapping[str, str]
    done: int = 0
    _counting: Lock = field(default_factory=Lock)

    def count(self, written: int) -> None:
        """Adds to what is done, from any thread."""
        with self._counting:
            self.done += written


@dataclass(frozen=True)
class _Together:
    """What the threads that write have in common."""

    calculators: ThreadPoolExecutor
    stopped: Event = field(default_factory=Event)
    whole: Lock = field(default_factory=Lock)  # one tensor made at once is in memory, not one a thread


def _write_all(files: Sequence[_File], progress: Progress | None) -> None:
    total = sum(output.nbytes for file in files for output in file.outputs)
    threads = min(os.cpu_count() or 1, _PARALLEL)
    with ThreadPoolExecutor(threads) as calculators, ThreadPoolExecutor(min(len(files), threads)) as executor:
        together = _Together(calculators)
        writing = {executor.submit(_write_file, file, together) for file in files}
        try:
            while writing:
                ended, writing = wait(writing, _EVERY, return_when=FIRST_EXCEPTION)
                for future in ended:
                    future.result()
                if progress is not None:
                    progress(sum(file.done for file in files), total)
        except BaseException:
            together.stopped.set()
            raise


def _write_file(file: _File, together: _Together) -> None:
    """Writes one file and has it on the disk; ends early, without a complaint, when all were stopped."""
    ordered = sorted(file.outputs, key=lambda output: -BITS[output.dtype])
    beginning = header(ordered, file.metadata)
    size = len(beginning) + sum(output.nbytes for output in ordered)
    runs = _runs(ordered, len(beginning))
    with ExitStack() as stack:
        target = stack.enter_context(_opened(file.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        sources = {
            path: stack.enter_context(_opened(path, os.O_RDONLY))
            for path in dict.fromkeys(run.file for run in runs)
        }
        os.ftruncate(target, size)
        parts = {run: shared(sources[run.file], target, run) for run in runs}
        if not any(parts.values()):  # or else space would be set aside that sharing saves
            reserve(target, size)
        write(target, beginning, 0)
        file.count(sum(output.nbytes for output in ordered if isinstance(output.content, Zeros)))
        with _calculating(target, _placed(ordered, len(beginning)), file, together):
            for run, part in parts.items():
                file.count(part.length if part else 0)
                for rest in run.without(part):
                    for count in copied(sources[run.file], target, rest):
                        file.count(count)
                        if together.stopped.is_set():
                            return
        if not together.stopped.is_set():
            os.fsync(target)


@contextmanager
def _calculating(
    target: int, placed: Iterable[tuple[Output, int]], file: _File, together: _Together
) -> Iterator[None]:
    """Has the computed tensors of a file made and written beside what its body does, and done at its end."""
    made = [
        together.calculators.submit(_calculate, target, output, offset, file, together)
        for output, offset in placed
        if isinstance(output.content, Computed | Pieces)
    ]
    try:
        yield
        for future in made:
            future.result()
    finally:
        for future in made:
            future.cancel()
        wait(made)  # `target` is closed next, and must be written to no more


def _calculate(target: int, output: Output, offset: int, file: _File, together: _Together) -> None:
    """Makes a tensor and writes it at `offset`; when it fails it stops all other work, too."""
    content = output.content
    assert isinstance(content, Computed | Pieces)
    begun = end = offset
    try:
        with together.whole if isinstance(content, Computed) else nullcontext():
            for piece in content.pieces():
                if together.stopped.is_set():
                    return
                write(target, piece, end)
                end += len(piece)
                file.count(len(piece))
                if end - begun >= _HANDED:
                    begin_writing(target, begun, end - begun)
                    begun = end
        if end > begun:  # a length of nothing would mean all of the file
            begin_writing(target, begun, end - begun)
        assert end - offset == output.nbytes, f"{output.name} was computed with another size"
    except BaseException:
        together.stopped.set()
        raise


def _placed(outputs: Sequence[Output], begin: int) -> Iterator[tuple[Output, int]]:
    """Each output and its offset in the file, one behind the other from `begin`."""
    for output in outputs:
        yield output, begin
        begin += output.nbytes


def _runs(outputs: Sequence[Output], begin: int) -> list[Run]:
    """What is copied into a file whose data begins at `begin`."""
    runs = []
    for output, offset in _placed(outputs, begin):
        content = output.content
        if isinstance(content, TensorInfo):
            assert content.nbytes == output.nbytes, f"{output.name} is copied from a tensor of another size"
            runs.append(Run(content.file, content.start, content.end, offset))
    return joined(runs)


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
