"""Headers as input from outside: generated, changed at random, and as large as they may be.

`make test ARGS="-m slow -k hostile"` makes over a hundred thousand of them.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize

from tests.fuzz import fuzz_header
from tests.fuzz.fuzz_header import framed, fuzz_one
from tli.checkpoint.header import BITS, HEADER_LIMIT, read_header
from tli.checkpoint.reader import INDEX, Checkpoint
from tli.errors import CheckpointError

ROOT = Path(__file__).parents[2]


def test_the_types_are_those_of_the_reference() -> None:
    with pytest.raises(SafetensorError) as caught:
        deserialize(framed(b'{"a":{"dtype":"?","shape":[],"data_offsets":[0,0]}}', b""))
    named = set(re.findall(r"`(\w+)`", str(caught.value)))
    assert BITS.keys() == named
    for dtype, bits in BITS.items():
        entry = {"dtype": dtype, "shape": [8], "data_offsets": [0, bits]}
        assert fuzz_one(framed(json.dumps({"a": entry}).encode(), bytes(bits)))


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Good files; hypothesis makes them small when one is not accepted."""
    kinds = st.tuples(st.sampled_from(list(BITS)), st.lists(st.integers(0, 5), max_size=4))
    tensors = draw(st.dictionaries(st.text(max_size=8), kinds, max_size=6))
    tensors.pop("__metadata__", None)
    header: dict[str, Any] = {}
    end = 0
    for name, (dtype, given_shape) in tensors.items():
        shape = given_shape if math.prod(given_shape) * BITS[dtype] % 8 == 0 else [*given_shape, 4]
        start, end = end, end + math.prod(shape) * BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    entries = draw(st.permutations(list(header.items())))
    if draw(st.booleans()):
        free = draw(st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=3))
        entries.insert(draw(st.integers(0, len(entries))), ("__metadata__", free))
    text = json.dumps(dict(entries), ensure_ascii=draw(st.booleans())).encode()
    return framed(text + b" " * draw(st.integers(0, 8)), bytes(index % 251 for index in range(end)))


@settings(deadline=None)
@given(files())
def test_every_good_file_is_accepted(data: bytes) -> None:
    assert fuzz_one(data)


@settings(deadline=None)
@given(files(), st.integers(1, 8))
def test_large_headers_are_read_alike(data: bytes, limit: int) -> None:
    """The way of headers over a megabyte, taken by all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tli.checkpoint.header._AT_ONCE", limit)
        assert fuzz_one(data) or data[8:].strip() == b"{}"


@settings(deadline=None)
@given(files(), st.data())
def test_what_is_accepted_is_what_the_reference_reads(data: bytes, draws: st.DataObject) -> None:
    content = bytearray(data)
    for _ in range(draws.draw(st.integers(1, 3))):
        place = draws.draw(st.integers(0, len(content)))
        content[place : place + draws.draw(st.integers(0, 3))] = draws.draw(st.binary(max_size=3))
    fuzz_one(bytes(content))


@pytest.mark.parametrize("at_once", [2**20, 0])
@pytest.mark.parametrize("runs", [2_000, pytest.param(60_000, marks=pytest.mark.slow)])
def test_many_changed_files(runs: int, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tli.checkpoint.header._AT_ONCE", at_once)
    accepted, refused = fuzz_header.run(runs, seed=at_once)
    assert accepted > runs / 20
    assert refused > runs / 2


def test_the_fuzzer_finds_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were sizes not compared with types, it would say so."""
    monkeypatch.setitem(fuzz_header.BITS, "F32", 64)  # the table that ours reads too
    with pytest.raises(AssertionError, match="seed 0, number"):
        fuzz_header.run(500, seed=0)


def test_the_fuzzer_runs_by_itself() -> None:
    program = [sys.executable, "-m", "tests.fuzz.fuzz_header", "--runs", "200", "--seed", "3"]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.match(r"\d+ accepted, \d+ refused in", done.stdout)


def empty(number: int) -> bytes:
    return b'"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % number


LARGE: dict[str, Callable[[int], bytes]] = {
    "brackets": lambda size: b'{"a":[' + b"[]," * (size // 3) + b"[]]}",
    "nesting": lambda size: b'{"a":' * (size // 5),
    "a number": lambda size: b'{"a":' + b"9" * size + b"}",
    "a name": lambda size: b'{"' + b"a" * size + b'":1}',
    "no end of a name": lambda size: b'{"' + b'a\\"' * (size // 3),
    "spaces": lambda size: b'{"a"' + b" " * size + b"}",
    "a long entry": lambda size: b'{"a":{' + b'"b":1,' * (size // 6) + b'"c":1}}',
    "free text": lambda size: b'{"__metadata__":{"a":"' + b"b" * size + b'"}}',
    "wrong entries": lambda size: b"{" + b",".join(b'"%d":{}' % n for n in range(size // 14)) + b"}",
    "a name twice": lambda size: b"{" + b",".join(map(empty, [*range(size // 60), 0])) + b"}",
}


@pytest.mark.parametrize("kind", LARGE)
@pytest.mark.parametrize(
    "size", [11_000_000, pytest.param(HEADER_LIMIT - 1000, marks=pytest.mark.slow, id="the-limit")]
)
def test_a_large_header_costs_little(tmp_path: Path, kind: str, size: int) -> None:
    """Refused by name, in no more memory than a few times its size (of a small interpreter, asked by itself)."""
    path = tmp_path / "model.safetensors"
    text = LARGE[kind](size)
    path.write_bytes(framed(text, b""))
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom tli.errors import CheckpointError\n"
        "from tli.checkpoint.header import read_header\n"
        "try: read_header(Path(sys.argv[1]))\n"
        "except CheckpointError as error: print(error)\n"
        "print([line for line in open('/proc/self/status') if 'VmHWM' in line][0].split()[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    *refusal, peak = done.stdout.splitlines()
    assert refusal[0].startswith(f"{path}: "), refusal
    assert len(done.stdout) < 5000
    assert int(peak) * 1024 < 40e6 + 10 * len(text)


def test_a_large_header_that_is_good(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(framed(b"{" + b",".join(map(empty, range(40_000))) + b"}", b""))
    assert [tensor.name for tensor in read_header(path).tensors] == [str(number) for number in range(40_000)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"__metadata__":{"a":"\\ud800"}}', "__metadata__: got values that are no text"),
        (b'{"a":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}', "'a': got shape [-0.0]; expected whole"),
        (b'{"__metadata__":[]}', "__metadata__: got values that are no text"),
        (b'{"__metadata__":null}', "__metadata__: got values that are no text"),
        (
            b'{"a":{"dtype":"F32","shape":[4611686018427387904,4,0],"data_offsets":[0,0]}}',
            "got shape [4611686018427387904, 4, 0]; expected a size that can be counted in 64 bits",
        ),
    ],
)
def test_what_a_plain_reader_would_take(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(framed(text, b""))
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    assert message in str(caught.value)


def test_a_long_name_is_not_shown_at_length(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(framed(b'{"' + b"a" * 100_000 + b'":{}}', b""))
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    assert len(str(caught.value)) < 400 + len(str(path))


class TestIndex:
    """An index that would fill the screen or the memory."""

    def problem(self, folder: Path, index: Any) -> str:
        (folder / INDEX).write_text(json.dumps(index))
        with pytest.raises(CheckpointError) as caught:
            Checkpoint.open(folder)
        return str(caught.value)

    def test_many_missing_files_are_counted(self, tmp_path: Path) -> None:
        names = {f"t{number}": f"{number:04}.safetensors" for number in range(500)}
        text = self.problem(tmp_path, {"weight_map": names})
        assert len(text.splitlines()) == 9
        assert text.startswith(f"{tmp_path}/0000.safetensors: got no such file")
        assert text.endswith("got 492 more of the kind; expected none")

    def test_many_paths_elsewhere_are_counted(self, tmp_path: Path) -> None:
        names = {f"t{number}": f"../{number}.safetensors" for number in range(500)}
        text = self.problem(tmp_path, {"weight_map": names})
        assert "got '../0.safetensors' as a file; expected a safetensors file beside it" in text
        assert len(text.splitlines()) == 9

    def test_too_large(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tli.checkpoint.reader._LIMIT", 10)
        assert "no index (a file of 26 bytes, larger than 10)" in self.problem(
            tmp_path, {"weight_map": {"a": "b"}}
        )

    def test_a_name_that_draws_on_the_screen(self, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        text = b'{"\\u001b[2J":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
        path.write_bytes(framed(text, b""))
        with pytest.raises(CheckpointError) as caught:
            read_header(path)
        assert "\x1b" not in str(caught.value)
