"""Fuzzes the reader of safetensors headers: `python -m tests.fuzz.fuzz_header --runs 100000 --seed 0`.

`fuzz_one` takes any bytes as a file, as drivers like libFuzzer and Atheris hand them over. The loop here makes its
own: valid files from a seeded generator, damaged as files get damaged (a bit, a cut, a piece twice) and as somebody
would who means it (offsets, sizes, names, types, nesting, numbers that overflow). Whatever comes, the reader either
refuses with a CheckpointError, or the reference implementation reads the same tensors from the same bytes.
"""

from __future__ import annotations

import copy
import json
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, deserialize

from tests.fuzz.command import command
from tli.errors import CheckpointError
from tli.header import BITS, read_header

_DTYPES = [dtype for dtype, bits in BITS.items() if bits % 8 == 0 and dtype != "C64"]
_NASTY: list[Any] = [
    -1,
    0,
    1,
    2**31,
    2**62,
    2**63 - 1,
    2**63,
    2**64,
    2**70,
    0.5,
    True,
    None,
    "8",
    [],
    {},
    [[1]],
]


def fuzz_one(data: bytes, path: Path) -> bool:
    """Reads `data` as a file at `path`; whether it was accepted. Raises AssertionError for a fault of ours."""
    path.write_bytes(data)
    try:
        shard = read_header(path)
    except CheckpointError as error:
        assert all(str(path) in problem.where for problem in error.problems), "a refusal names the file"
        assert len(str(error)) < 20_000, "a refusal fits a screen"
        return False
    begin = 8 + int.from_bytes(data[:8], "little")
    place = begin
    for tensor in shard.tensors:
        assert tensor.start == place, "every byte belongs to one tensor"
        assert tensor.count * BITS[tensor.dtype] == 8 * tensor.nbytes, "a tensor has the size of its shape"
        place = tensor.end
    assert place == len(data), "no byte belongs to none"
    assert len({tensor.name for tensor in shard.tensors}) == len(shard.tensors)
    try:
        theirs = dict(deserialize(data))
    except SafetensorError as error:
        raise AssertionError(f"accepted, and the reference refuses: {error}") from error
    assert theirs.keys() == {tensor.name for tensor in shard.tensors}
    for tensor in shard.tensors:
        told = theirs[tensor.name]
        assert (told["dtype"], tuple(told["shape"])) == (tensor.dtype, tensor.shape), tensor.name
        assert bytes(told["data"]) == data[tensor.start : tensor.end], tensor.name
    return True


def valid(rng: random.Random) -> tuple[dict[str, Any], bytes]:
    """A header and data that belong together."""
    header: dict[str, Any] = {}
    if rng.random() < 0.5:
        header["__metadata__"] = {"format": "pt"}
    end = 0
    for number in range(rng.randrange(5)):
        dtype = rng.choice(_DTYPES)
        shape = [rng.randrange(4) for _ in range(rng.randrange(4))]
        start = end
        size = BITS[dtype] // 8
        for dim in shape:
            size *= dim
        end += size
        name = rng.choice(["model.layers.{}.w", "a{}", "ü{}", "{}", "a b{}"]).format(number)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    return header, rng.randbytes(end)


def generated(rng: random.Random) -> bytes:
    """A file: whole, damaged, or forged."""
    header, data = valid(rng)
    kind = rng.random()
    if kind < 0.5:
        for _ in range(rng.randrange(1, 4)):
            rng.choice(_FORGERIES)(header, rng)
    text = json.dumps(header, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    if kind < 0.5 and rng.random() < 0.2:
        text = text.replace(b'"a0"', b'"a1"')  # the same name twice
    length = len(text) if rng.random() < 0.95 else rng.choice([0, 1, len(text) + 1, 2**40, 2**63, 2**64 - 1])
    file = length.to_bytes(8, "little") + text + data
    if 0.4 < kind < 0.9:
        for _ in range(rng.randrange(1, 3)):
            file = rng.choice(_DAMAGES)(file, rng)
    return file


def _entry(header: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    entries = [value for name, value in header.items() if name != "__metadata__" and isinstance(value, dict)]
    return rng.choice(entries) if entries else {}


def _offset(header: dict[str, Any], rng: random.Random) -> None:
    offsets = _entry(header, rng).get("data_offsets")
    if isinstance(offsets, list) and offsets:
        place = rng.randrange(len(offsets))
        nudged = offsets[place] + rng.choice([-8, -1, 1, 8]) if isinstance(offsets[place], int) else 0
        offsets[place] = copy.deepcopy(rng.choice([*_NASTY, nudged, nudged]))


def _shape(header: dict[str, Any], rng: random.Random) -> None:
    entry = _entry(header, rng)
    if isinstance(entry.get("shape"), list):
        for _ in range(rng.randrange(1, 4)):
            entry["shape"] = [*entry["shape"], copy.deepcopy(rng.choice(_NASTY))]


def _field(header: dict[str, Any], rng: random.Random) -> None:
    entry = _entry(header, rng)
    if entry:
        entry[rng.choice([*entry, "more"])] = copy.deepcopy(rng.choice([*_NASTY, "F32", "F33"]))


def _missing(header: dict[str, Any], rng: random.Random) -> None:
    entry = _entry(header, rng)
    if entry:
        del entry[rng.choice(list(entry))]


def _replaced(header: dict[str, Any], rng: random.Random) -> None:
    header[rng.choice([*header, "__metadata__", "../x", "\ud800", ""])] = copy.deepcopy(rng.choice(_NASTY))


def _deep(header: dict[str, Any], rng: random.Random) -> None:
    nested: Any = 0
    for _ in range(rng.choice([3, 300])):
        nested = [nested]
    header["deep"] = nested


def _flip(file: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(file))
    return file[:place] + bytes([file[place] ^ 1 << rng.randrange(8)]) + file[place + 1 :]


def _cut(file: bytes, rng: random.Random) -> bytes:
    return file[: rng.randrange(len(file))] or b"\0"


def _twice(file: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(file))
    piece = file[start : start + rng.randrange(1, 30)]
    return file[:start] + piece + file[start:]


_FORGERIES: list[Callable[[dict[str, Any], random.Random], None]] = [_offset, _offset, _shape, _field, _missing, _replaced, _deep]  # fmt: skip
_DAMAGES: list[Callable[[bytes, random.Random], bytes]] = [_flip, _flip, _cut, _twice]


def run(runs: int, seed: int) -> tuple[int, int]:
    """Fuzzes `runs` files; how many were accepted, and how many refused."""
    accepted = 0
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        path = Path(folder) / "fuzz.safetensors"
        for number in range(runs):
            data = generated(random.Random(seed * 1_000_003 + number))
            try:
                accepted += fuzz_one(data, path)
            except BaseException:
                sys.stderr.write(f"run {number} of seed {seed}: {data!r}\n")
                raise
    return accepted, runs - accepted


if __name__ == "__main__":
    sys.exit(command("the reader of safetensors headers", run))
