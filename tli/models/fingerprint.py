"""The fingerprint of a base model: a digest of its content, the same wherever it lies."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from tli.checkpoint.header import Shard, TensorInfo
from tli.checkpoint.reader import Checkpoint
from tli.models.model_files import tokenizer_files

_WHOLE = 2**20  # bytes; smaller tensors are read to the end
_BLOCKS, _BLOCK = 32, 2**14  # of a larger one: how many blocks, and bytes of each


def fingerprint(checkpoint: Checkpoint) -> str:
    """SHA-256 over configuration, tokenizer and weights, as 64 hexadecimal digits.

    Configuration, every file that the tokenizer may be made of, and the headers of the weights (names, types,
    shapes, places) go in whole, with names and sizes of the files. So does every tensor of up to 1 MiB; of a
    larger one it is a sample: 32 blocks of 16 KiB, evenly spread, the first and the last bytes among them.
    What transformers does not load the model from is left out. It is a check against mistakes,
    not against malice: a training step, a merge, a conversion or another file changes nearly all numbers of a
    tensor and shows; a hand that changes a few rows of a large tensor, between the blocks, does not. `tli
    verify` compares every byte besides. Costs half a megabyte of reading a tensor, whatever the model's size.
    """
    digest = hashlib.sha256()
    config = checkpoint.folder / "config.json"
    for path in (*([config] if config.is_file() else []), *tokenizer_files(checkpoint.folder)):
        add_file(digest, path)
    for shard in checkpoint.shards:
        for piece in _sampled(shard):
            digest.update(piece)
    return digest.hexdigest()


def add_file(digest: hashlib._Hash, path: Path) -> None:
    """Takes name, size and content of a file into a digest, in pieces: it may have any size."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(_framed(path, size))
        for start in range(0, size, _WHOLE):
            digest.update(file.read(min(_WHOLE, size - start)))


def _framed(path: Path, size: int) -> bytes:
    """What stands before the content of a file, so that no two folders make one text."""
    return path.name.encode() + b"\0" + size.to_bytes(8, "little")


def _sampled(shard: Shard) -> Iterator[bytes]:
    with shard.file.open("rb", buffering=0) as file:
        descriptor = file.fileno()
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # what lies between is not needed
        yield _framed(shard.file, os.fstat(descriptor).st_size)
        yield os.pread(descriptor, shard.begin, 0)
        for tensor in shard.tensors:
            for start, end in _places(tensor):
                yield os.pread(descriptor, end - start, start)


def _places(tensor: TensorInfo) -> Iterator[tuple[int, int]]:
    """The ranges of bytes of the file that stand for a tensor."""
    if tensor.nbytes <= _WHOLE:
        yield tensor.start, tensor.end
        return
    for number in range(_BLOCKS):
        start = tensor.start + (tensor.nbytes - _BLOCK) * number // (_BLOCKS - 1)
        yield start, start + _BLOCK
