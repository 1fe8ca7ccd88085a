"""Reads the header of one safetensors file: which tensor is where, without loading one.

A header is input from outside and is believed only after it was checked: sizes against the file, every byte
of the data claimed by exactly one tensor, names once, types known. The format: an 8-byte little-endian
length, that many bytes of JSON, then the data (https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tli.errors import ENOUGH, CheckpointError, Problem, Problems
from tli.json_files import no_constant, unique
from tli.terminal import formatted

HEADER_LIMIT = 100_000_000  # bytes, as in the reference implementation
BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8}
BITS |= {"F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16}
BITS |= {"I32": 32, "U32": 32, "F32": 32, "F64": 64, "I64": 64, "U64": 64, "C64": 64}
_AT_ONCE = 2**20  # bytes of a header that is parsed in one go
_ENTRY_LIMIT, _METADATA_LIMIT = 2**13, 10**7  # bytes of one entry of a larger one
FLOATS = ("F16", "BF16", "F32", "F64")  # types that arithmetic is done on

_DISGUISES = (
    (b"version https://git-lfs", "a git-lfs pointer, not the file it points to", "git lfs pull"),
    (b"PK\x03\x04", "a pickle in a zip (torch.save) under another name", "save_pretrained of the model"),
    (b"\x80", "a pickle under another name", "save_pretrained of the model"),
    (b"GGUF", "a GGUF file", "the original model's folder"),
    (b"<", "a web page, not the file", "downloading it again"),
)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor on disk: its bytes are `[start, end)` of `file`."""

    name: str
    dtype: str  # as safetensors writes it: F32, BF16, ...
    shape: tuple[int, ...]
    file: Path
    start: int
    end: int

    @property
    def nbytes(self) -> int:
        """Size on disk."""
        return self.end - self.start

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def read(self) -> bytearray:
        """The tensor's bytes, little-endian and row-major."""
        return bytearray().join(self.pieces(max(self.nbytes, 1)))

    def pieces(self, size: int) -> Iterator[bytes]:
        """The same in pieces of `size` bytes, the last one shorter. Raises CheckpointError when cut short."""
        with self.file.open("rb") as file:
            file.seek(self.start)
            for start in range(self.start, self.end, size):
                piece = file.read(min(size, self.end - start))
                if len(piece) != min(size, self.end - start):
                    raise CheckpointError(
                        Problem(f"{self.file}: {self.name}", "an early end of the file", "all of it")
                    )
                yield piece


@dataclass(frozen=True)
class Shard:
    """One safetensors file: its tensors in the order of their bytes, and the header's free text."""

    file: Path
    tensors: tuple[TensorInfo, ...]
    metadata: Mapping[str, str]
    begin: int  # of the data: the header ends there


def read_header(file: Path) -> Shard:
    """The checked header of one safetensors file. Raises CheckpointError with every problem in it."""
    where = str(file)
    if not file.is_file():
        raise CheckpointError(Problem(where, "no such file", "a safetensors file", "downloading it again"))
    with file.open("rb") as opened:
        size = os.fstat(opened.fileno()).st_size
        head = opened.read(64)
        length = int.from_bytes(head[:8], "little")
        if len(head) < 8 or length > min(HEADER_LIMIT, size - 8):
            raise CheckpointError(_no_header(where, head, size, length))
        opened.seek(8)
        text = opened.read(length)
    tensors: list[TensorInfo] = []
    metadata: Any = {}
    problems = Problems(where)
    try:
        for name, entry in _entries(text):
            if name == "__metadata__":
                metadata = entry
                continue
            wrong = _wrong_with(name, entry)
            if wrong is not None:
                problems.add(Problem(f"{where}: {formatted(name)}", *wrong))
                if problems.count == ENOUGH:
                    break
                continue
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            tensors.append(TensorInfo(name, entry["dtype"], tuple(entry["shape"]), file, start, end))
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            Problem(where, f"a header that is no JSON object ({reason})", "a header")
        ) from None
    if not isinstance(metadata, dict) or not all(
        _is_text(text) for pair in metadata.items() for text in pair
    ):
        problems.add(Problem(f"{where}: __metadata__", "values that are no text", "names and texts"))
    tensors.sort(key=lambda tensor: (tensor.start, tensor.end))
    if not problems.count:
        _find_gaps(problems, tensors, 8 + length, size)
    problems.require()
    return Shard(file, tuple(tensors), metadata, 8 + length)


def _entries(text: bytes) -> Iterator[tuple[str, Any]]:
    """Names and values of a header's JSON object. Raises ValueError and RecursionError where it is none.

    A large one is parsed entry by entry, each of a size that entries have: parsed at once, a hundred
    megabytes of brackets would become gigabytes of lists.
    """
    if not text.startswith(b"{"):
        raise ValueError("it does not begin with a brace")
    if len(text) <= _AT_ONCE:
        yield from _DECODER.decode(text.decode("utf-8")).items()
        return
    names = set()
    place, end = 1, b","
    while end == b",":
        found = _ENTRY.match(text, place)
        if found is None:
            raise ValueError(f"byte {place} begins no entry")
        name = _DECODER.decode(found[1].decode("utf-8"))
        if len(found[2]) > (_METADATA_LIMIT if name == "__metadata__" else _ENTRY_LIMIT):
            raise ValueError(f"{formatted(name)} has {len(found[2])} bytes")
        if name in names:
            raise ValueError(f"{formatted(name)} is in it twice")
        names.add(name)
        yield name, _DECODER.decode(found[2].decode("utf-8"))
        place, end = found.end(), found[3]
    if text[place:].strip(b" \t\n\r"):
        raise ValueError(f"more after its end at byte {place}")


_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_SPACE = rb"[ \t\n\r]*+"
_ENTRY = re.compile(
    rb'%b(%b)%b:%b(\{(?:[^{}"]++|%b)*+\})%b([,}])' % (_SPACE, _STRING, _SPACE, _SPACE, _STRING, _SPACE),
    re.DOTALL,
)


def _integer(digits: str) -> int | float:
    return -0.0 if digits == "-0" else int(digits)  # no whole number, as for the reference


_DECODER = json.JSONDecoder(object_pairs_hook=unique, parse_constant=no_constant, parse_int=_integer)


def _wrong_with(name: str, entry: Any) -> tuple[str, str] | None:
    """What is wrong with one entry of a header, as (got, expected)."""
    if not _is_text(name):
        return "a name that is no text", "a name"
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        return f"{_short(entry)}", "dtype, shape and data_offsets"
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        return f"dtype {_short(dtype)}", f"one of {', '.join(BITS)}"
    if not _sizes(shape) or len(shape) > 64:
        return f"shape {_short(shape)}", "whole numbers from 0"
    if not _sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        return f"data_offsets {_short(offsets)}", "where its bytes begin and end"
    if BITS[dtype] * math.prod(size for size in shape if size) >= 2**64:
        return f"shape {_short(shape)}", "a size that can be counted in 64 bits"
    bits = math.prod(shape) * BITS[dtype]
    if bits != 8 * (offsets[1] - offsets[0]):
        return f"{offsets[1] - offsets[0]} bytes", f"{bits / 8:g} bytes for {dtype} of shape {_short(shape)}"
    return None


def _is_text(value: Any) -> bool:
    """Whether it can be written again: JSON can spell halves of characters that UTF-8 cannot."""
    return isinstance(value, str) and value == value.encode("utf-8", "replace").decode("utf-8")


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _find_gaps(problems: Problems, tensors: list[TensorInfo], begin: int, size: int) -> None:
    """Every byte of the data must belong to exactly one tensor."""
    end = max((tensor.end for tensor in tensors), default=begin)
    if end > size:
        truncated = f"{size} bytes (truncated)"
        problems.add(Problem(problems.where, truncated, f"{end}, as its header says", "downloading it again"))
        return
    end = begin
    for tensor in tensors:
        if tensor.start != end:
            kind = "bytes that another tensor has too" if tensor.start < end else "unclaimed bytes before it"
            place = f"{problems.where}: {formatted(tensor.name)}"
            problems.add(Problem(place, kind, "every byte in exactly one tensor"))
        end = max(end, tensor.end)
    if end < size and not problems.count:
        problems.add(Problem(problems.where, f"{size - end} bytes behind the last tensor", "none"))


def _no_header(where: str, head: bytes, size: int, length: int) -> Problem:
    if size < 8:
        return Problem(where, f"{size} bytes", "a safetensors file", "downloading it again")
    if length > HEADER_LIMIT:
        for magic, what, remedy in _DISGUISES:
            if head.startswith(magic):
                return Problem(where, what, "safetensors", remedy)
        return Problem(where, f"a header of {length} bytes", f"safetensors; at most {HEADER_LIMIT}")
    got = f"{size} bytes (truncated within its header)"
    return Problem(where, got, f"more than {8 + length}", "downloading it again")


def _short(value: Any) -> str:
    return formatted(value, 60)
