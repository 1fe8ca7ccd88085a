"""A fuzz target for safetensors headers: `python -m tests.fuzz.fuzz_header --runs 100000 --seed 0`.

`fuzz_one(data)` reads `data` as a file and asserts that it is either refused by CheckpointError or what it should
be: by its own account, and by that of the safetensors library, which must accept all that we accept and read the
same from it. It suits drivers that make their own data (`atheris.Setup(sys.argv, fuzz_one)`); the loop here changes
good files at random: values of the header, its text, single bytes, the length, the end.
"""

from __future__ import annotations

import atexit
import json
import math
import random
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, deserialize

from tests.fuzz.command import command
from tli.checkpoint.header import BITS, Shard, read_header
from tli.errors import CheckpointError

ODD = (0, 1, -1, 2, 7, 8, 2**31, 2**32, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30, 1.0, 1e999, True, None,
       "", "0", "F32", "\ud800", "\0", [], [0], [0, 0], [[0]], {}, {"a": 1}, "__metadata__", "../a", "a" * 300)  # fmt: skip
TOKENS = (b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u0041", b"null", b"NaN", b"-Infinity", b"1e5", b"-0", b" ",
          b"\n", b"\0", b"\xff", b'"a":', b'"dtype":', b'"__metadata__":{},', b"[" * 3000, b"9" * 5000)  # fmt: skip


def run(runs: int, seed: int) -> tuple[int, int]:
    """`runs` files made from `seed`; how many were accepted and refused. Raises AssertionError with the data."""
    accepted = 0
    for number in range(runs):
        source = random.Random(f"{seed}/{number}")
        data = mutated(source, built(source))
        try:
            accepted += fuzz_one(data)
        except Exception as error:
            raise AssertionError(f"seed {seed}, number {number}: {data[:2000]!r}") from error
    return accepted, runs - accepted


def fuzz_one(data: bytes) -> bool:
    """Whether `data` is accepted as a safetensors file. AssertionError when it should not have been."""
    path = _file()
    path.write_bytes(data)
    try:
        shard = read_header(path)
    except CheckpointError as error:
        text = str(error)
        assert str(path) in text, "a refusal names the file"
        assert len(text) < 10_000, "a refusal fits the screen"
        return False
    check(shard, data)
    return True


def check(shard: Shard, data: bytes) -> None:
    """What must hold of a header that was accepted."""
    assert shard.begin == 8 + int.from_bytes(data[:8], "little")
    end = shard.begin
    for tensor in shard.tensors:
        assert tensor.start == end, "tensors lie one behind the other"
        assert 8 * tensor.nbytes == math.prod(tensor.shape) * BITS[tensor.dtype]
        end = tensor.end
    assert end == len(data), "every byte belongs to a tensor"
    assert all(isinstance(text, str) for pair in shard.metadata.items() for text in pair)
    ours = {t.name: (t.dtype, list(t.shape), data[t.start : t.end]) for t in shard.tensors}
    assert len(ours) == len(shard.tensors), "names are there once"
    try:
        theirs = {name: (t["dtype"], t["shape"], bytes(t["data"])) for name, t in deserialize(data)}
    except SafetensorError as error:
        raise AssertionError(f"accepted what the reference refuses: {error}") from error
    assert ours == theirs, "read as the reference reads it"


def built(source: random.Random) -> bytes:
    """A good file: tensors of any type and shape in any order, with or without free text and spaces."""
    entries: list[tuple[str, Any]] = []
    end = 0
    for number in range(source.randrange(6)):
        dtype = source.choice(list(BITS))
        shape = [source.randrange(4) for _ in range(source.randrange(4))]
        bits = math.prod(shape) * BITS[dtype]
        if bits % 8:
            shape, bits = [*shape, 4], 4 * bits
        start, end = end, end + bits // 8
        name = source.choice(("layer.{}.weight", "ä{}", "{}", 'a"\\{}', "\U0001f600{}")).format(number)
        entries.append((name, {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}))
    if source.random() < 0.5:
        entries.append(("__metadata__", {"format": "pt", "x{}": "}"}))
    source.shuffle(entries)
    indent = source.choice((None, 1))
    text = json.dumps(dict(entries), ensure_ascii=source.random() < 0.5, indent=indent).encode()
    return framed(text + b" " * source.randrange(9), source.randbytes(end))


def framed(text: bytes, data: bytes) -> bytes:
    """A file of a header and its data."""
    return len(text).to_bytes(8, "little") + text + data


def mutated(source: random.Random, data: bytes) -> bytes:
    """The same with up to three changes of one kind, the length of the header mostly put right."""
    length = int.from_bytes(data[:8], "little")
    text, rest = data[8 : 8 + length], data[8 + length :]
    kind = source.choice((_values, _values, _tokens, _bytes, _bit, _twice, None))
    for _ in range(source.randrange(1, 4) if kind else 0):
        text = kind(source, text) if kind else text
    if source.random() < 0.1:
        rest = rest[: source.randrange(len(rest) + 1)] + source.randbytes(source.randrange(3))
    if source.random() < 0.1:
        length = source.choice((abs(length + source.randrange(-9, 9)), 0, 10**8 + 1, 2**63, 2**64 - 1))
        return length.to_bytes(8, "little") + text + rest
    return framed(text, rest)


def _values(source: random.Random, text: bytes) -> bytes:
    """Another value, key or type somewhere in the header's JSON."""
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        return text
    place = header
    while isinstance(place, dict | list) and place:
        key = source.choice(list(place)) if isinstance(place, dict) else source.randrange(len(place))
        inner = place[key]
        if isinstance(inner, dict | list) and inner and source.random() < 0.8:
            place = inner
            continue
        change = source.randrange(4)
        if change == 0:
            del place[key]
        elif change == 1 and isinstance(place, dict):
            place[str(source.choice(ODD))] = place.pop(key)
        elif change == 2 and isinstance(inner, int):
            place[key] = inner + source.choice((-1, 1, 4, 8))
        else:
            place[key] = source.choice(ODD)
        break
    return json.dumps(header, ensure_ascii=True).encode()


def _tokens(source: random.Random, text: bytes) -> bytes:
    start = source.randrange(len(text) + 1)
    return text[:start] + source.choice(TOKENS) + text[start + source.randrange(3) :]


def _bit(source: random.Random, text: bytes) -> bytes:
    place = source.randrange(len(text)) if text else 0
    return (
        text[:place]
        + bytes(byte ^ 1 << source.randrange(8) for byte in text[place : place + 1])
        + text[place + 1 :]
    )


def _twice(source: random.Random, text: bytes) -> bytes:
    start = source.randrange(len(text) + 1)
    return text[: start + source.randrange(1, 30)] + text[start:]


def _bytes(source: random.Random, text: bytes) -> bytes:
    start = source.randrange(len(text) + 1)
    return text[:start] + source.randbytes(source.randrange(3)) + text[start + source.randrange(3) :]


@cache
def _file() -> Path:
    """One file for all runs of this process; in memory where that can be, as a disk would be most of the time."""
    memory = Path("/dev/shm")
    folder = tempfile.mkdtemp(prefix="fuzz-", dir=memory if memory.is_dir() else None)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder) / "model.safetensors"


if __name__ == "__main__":
    sys.exit(command("the reader of safetensors headers", run))
