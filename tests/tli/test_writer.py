from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tli.checkpoint import copying, header
from tli.checkpoint.reader import Checkpoint, read_header
from tli.checkpoint.writer import Computed, Output, Pieces, Zeros, split, write_shards


def planned(source: Path) -> list[Output]:
    tensors = {t.name: t for t in read_header(source).tensors}
    return [
        Output("copied", tensors["half"].dtype, tensors["half"].shape, tensors["half"]),
        Output("zeros", "F32", (3, 5), Zeros()),
        Output("made", "F16", (2,), Computed(lambda: torch.tensor([1.0, 2.0]).half().numpy().data.cast("B"))),
        Output("empty", "F32", (0,), Zeros()),
        Output("pieces", "U8", (60,), Pieces(lambda: (bytes([number] * 20) for number in range(3)))),
        Output("again", tensors["full"].dtype, tensors["full"].shape, tensors["full"]),
    ]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_file({"half": torch.randn(3).half(), "full": torch.randn(7, 11)}, tmp_path / "source.safetensors")
    return tmp_path / "source.safetensors"


@pytest.mark.parametrize("ways", [2, 1, 0])
def test_by_each_way_of_copying(
    source: Path, tmp_path: Path, ways: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "_WAYS", copying._WAYS[2 - ways :])
    monkeypatch.setattr(copying, "_PIECE", 10)
    told: list[tuple[int, int]] = []
    outputs = planned(source)
    write_shards(
        tmp_path, outputs, limit=None, metadata={"format": "pt"}, progress=lambda *at: told.append(at)
    )
    written, before = load_file(tmp_path / "model.safetensors"), load_file(source)
    assert written.keys() == {output.name for output in outputs}
    assert torch.equal(written["copied"], before["half"])
    assert torch.equal(written["again"], before["full"])
    assert torch.equal(written["zeros"], torch.zeros(3, 5))
    assert torch.equal(written["made"], torch.tensor([1.0, 2.0]).half())
    assert torch.equal(written["pieces"], torch.arange(3, dtype=torch.uint8).repeat_interleave(20))
    total = sum(output.nbytes for output in outputs)
    assert told[-1] == (total, total)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_wide_types_first_so_that_all_are_aligned(source: Path, tmp_path: Path) -> None:
    write_shards(tmp_path, planned(source), limit=None, metadata={})
    for tensor in read_header(tmp_path / "model.safetensors").tensors:
        assert tensor.start % (header.BITS[tensor.dtype] // 8) == 0


def test_shards_and_their_index(source: Path, tmp_path: Path) -> None:
    outputs = planned(source)
    write_shards(tmp_path, outputs, limit=66, metadata={"format": "pt"})
    source.unlink()
    checkpoint = Checkpoint.open(tmp_path)
    assert [shard.file.name for shard in checkpoint.shards] == [
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
    ]
    assert checkpoint.tensors.keys() == {output.name for output in outputs}
    assert json.loads((tmp_path / "model.safetensors.index.json").read_text())["metadata"] == {
        "total_size": sum(output.nbytes for output in outputs)
    }


@given(sizes=st.lists(st.integers(0, 50), max_size=30), limit=st.integers(1, 100))
def test_splitting_keeps_order_and_limit(sizes: list[int], limit: int) -> None:
    outputs = [Output(str(i), "U8", (size,), Zeros()) for i, size in enumerate(sizes)]
    parts = split(outputs, limit)
    assert [output for part in parts for output in part] == outputs
    for part in parts:
        assert sum(output.nbytes for output in part) <= limit or len([o for o in part if o.nbytes]) == 1


def test_an_existing_file_is_never_overwritten(source: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("mine")
    with pytest.raises(FileExistsError):
        write_shards(tmp_path, planned(source), limit=None, metadata={})
    assert (tmp_path / "model.safetensors").read_text() == "mine"


def test_a_source_that_shrinks_is_noticed(source: Path, tmp_path: Path) -> None:
    outputs = planned(source)
    os.truncate(source, 200)
    with pytest.raises(OSError, match="shorter while it was copied"):
        write_shards(tmp_path, outputs, limit=None, metadata={})


@pytest.mark.parametrize("limit", [None, 3])
def test_what_fails_while_it_is_computed_stops_the_rest(tmp_path: Path, limit: int | None) -> None:
    """The other tensor would never end; what was opened is closed."""
    turns = []

    def endless() -> Iterator[bytes]:
        while True:
            turns.append(1)
            time.sleep(0.001)
            yield b""

    def failing() -> Iterator[bytes]:
        yield b"ab"
        raise OSError("no more")

    outputs = [Output("bad", "U8", (3,), Pieces(failing)), Output("endless", "U8", (3,), Pieces(endless))]
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match="no more"):
        write_shards(tmp_path, outputs, limit=limit, metadata={})
    ended = len(turns)
    time.sleep(0.02)
    assert len(turns) == ended
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    "content", [Pieces(lambda: iter([b"ab"])), Computed(lambda: b"ab")], ids=["pieces", "whole"]
)
def test_what_is_computed_with_another_size_is_noticed(tmp_path: Path, content: Pieces | Computed) -> None:
    with pytest.raises(AssertionError, match="x was computed with another size"):
        write_shards(tmp_path, [Output("x", "U8", (3,), content)], limit=None, metadata={})


def test_a_caller_who_ends_it_ends_what_is_computed(tmp_path: Path) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            time.sleep(0.001)
            yield b""

    def enough(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    outputs = [Output("endless", "U8", (3,), Pieces(endless))]
    with pytest.raises(KeyboardInterrupt):
        write_shards(tmp_path, outputs, limit=None, metadata={}, progress=enough)
