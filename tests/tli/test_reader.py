from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from tli import errors
from tli.checkpoint.reader import Checkpoint, read_header
from tli.errors import CheckpointError

Tiny = Callable[[str], Path]
Save = Callable[..., Path]


def write(path: Path, head: Any, data: bytes = b"", length: int | None = None) -> Path:
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def problem(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    return str(caught.value).replace(str(path), "FILE")


def test_a_good_file_is_read_as_the_reference_reads_it(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(3, 4),
        "b.c": torch.randn(5).to(torch.bfloat16),
        "none": torch.zeros(0, 7),
        "one": torch.tensor(3.0),
        "flag": torch.tensor([True, False]),
    }
    save_file(tensors, tmp_path / "m.safetensors", metadata={"format": "pt"})
    shard = read_header(tmp_path / "m.safetensors")
    assert shard.metadata == {"format": "pt"}
    assert {tensor.name for tensor in shard.tensors} == tensors.keys()
    for tensor in shard.tensors:
        assert tensor.shape == tuple(tensors[tensor.name].shape)
        assert tensor.count == tensors[tensor.name].numel()
        assert bytes(tensor.read()) == tensors[tensor.name].reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize(
    ("head", "data", "message"),
    [
        ({"a": entry(offsets=(0, 8)), "b": entry(offsets=(4, 12))}, 12, "FILE: 'b': got bytes that another tensor has too"),
        ({"a": entry(), "b": entry(offsets=(12, 20))}, 20, "FILE: 'b': got unclaimed bytes before it; expected every byte"),
        ({"a": entry()}, 9, "FILE: got 1 bytes behind the last tensor; expected none"),
        ({"a": entry()}, 7, "bytes (truncated); expected"),
        ({"a": entry(shape=(3,))}, 8, "FILE: 'a': got 8 bytes; expected 12 bytes for F32 of shape [3]"),
        ({"a": entry(shape=(2**62, 2**62))}, 8, "FILE: 'a': got shape [4611686018427387904, 4611686018427387904]; expected a size that can be counted"),
        ({"a": entry(shape=(2**62, 2**62, 0), offsets=(0, 0))}, 0, "FILE: 'a': got shape [4611686018427387904, 4611686018427387904, 0]; expected a size that can be counted"),
        ({"a": entry(shape=(2**64, 0), offsets=(0, 0))}, 0, "FILE: 'a': got shape [18446744073709551616, 0]"),
        ({"a": entry(shape=(-2,))}, 8, "FILE: 'a': got shape [-2]; expected whole numbers from 0"),
        ({"a": entry(shape=(2.0,))}, 8, "FILE: 'a': got shape [2.0]"),
        ({"a": entry(shape=(True, 2))}, 8, "FILE: 'a': got shape [True, 2]"),
        ({"a": entry(offsets=(8, 0))}, 8, "FILE: 'a': got data_offsets [8, 0]; expected where its bytes begin"),
        ({"a": entry(offsets=(-8, 0))}, 8, "FILE: 'a': got data_offsets [-8, 0]"),
        ({"a": entry(offsets=(0, 8, 9))}, 8, "FILE: 'a': got data_offsets [0, 8, 9]"),
        ({"a": entry(dtype="F33")}, 8, "FILE: 'a': got dtype 'F33'; expected one of F4"),
        ({"a": {**entry(), "dtype": ["F32"]}}, 8, "FILE: 'a': got dtype ['F32']"),
        ({"a": [1]}, 8, "FILE: 'a': got [1]; expected dtype, shape and data_offsets"),
        ({"a": {**entry(), "more": 1}}, 8, "expected dtype, shape and data_offsets"),
        ({"\ud800": entry()}, 8, r"FILE: '\ud800': got a name that is no text"),
        ({"__metadata__": {"a": 1}, "a": entry()}, 8, "FILE: __metadata__: got values that are no text"),
        (b'{"a": {}, "a": {}}', 0, "('a' is in it twice); expected a header"),
        (b'{"a": NaN}', 0, "(NaN is no JSON)"),
        (b"[1, 2]", 0, "(it does not begin with a brace)"),
        (b' {"a": 1}', 0, "(it does not begin with a brace)"),
        (b'{"a": ', 0, "FILE: got a header that is no JSON object"),
        (b'{"\xff": 1}', 0, "FILE: got a header that is no JSON object ('utf-8' codec"),
        (b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", 0, "FILE: got a header that is no JSON object"),
        (b'{"a":' + b"9" * 10_000 + b"}", 0, "FILE: got a header that is no JSON object"),
    ],
)  # fmt: skip
def test_a_bad_header_is_refused_by_name(tmp_path: Path, head: Any, data: int, message: str) -> None:
    assert message in problem(write(tmp_path / "m.safetensors", head, bytes(data)))


def test_all_problems_of_a_file_are_told_and_many_are_counted(tmp_path: Path) -> None:
    head = {f"t{number}": entry(dtype="X") for number in range(20)}
    text = problem(write(tmp_path / "m.safetensors", head, bytes(8)))
    assert len(text.splitlines()) == errors.SHOWN + 1
    assert text.endswith("FILE: got 12 more of the kind; expected none")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "FILE: got 0 bytes; expected a safetensors file; try downloading it again"),
        (b"\x01\x00", "FILE: got 2 bytes; expected a safetensors file"),
        ((10**9).to_bytes(8, "little") + b"{}", "FILE: got a header of 1000000000 bytes; expected safetensors; at most"),
        ((500).to_bytes(8, "little") + b"{}", "FILE: got 10 bytes (truncated within its header); expected more than 508"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "FILE: got a git-lfs pointer, not the file it points to; expected safetensors; try git lfs pull"),
        (pickle.dumps({"a": list(range(99))}), "FILE: got a pickle under another name; expected safetensors"),
        (pickle.dumps({"a": list(range(99))}, protocol=2), "FILE: got a pickle under another name"),
        (b"<!DOCTYPE html><html><body>Please log in</body></html>", "FILE: got a web page, not the file"),
        (b"GGUF" + bytes([3, 0, 0, 0]) * 9, "FILE: got a GGUF file"),
    ],
)  # fmt: skip
def test_a_file_that_is_something_else(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    assert problem(path).startswith(message)


def test_a_renamed_torch_pickle_is_known(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(9)}, tmp_path / "m.safetensors")
    assert "a pickle in a zip (torch.save) under another name" in problem(tmp_path / "m.safetensors")


def test_things_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")  # opening it would wait for ever
    for name in ("pipe.safetensors", "missing.safetensors"):
        assert problem(tmp_path / name).startswith("FILE: got no such file")


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.ones(3), "b": torch.ones(2, 2)}, path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert "FILE" in problem(path)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_is_accepted_is_what_the_reference_accepts(tmp_path: Path, data: st.DataObject) -> None:
    """Bytes of a good file are changed at random; ours must never crash, nor read what the reference refuses."""
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.arange(3.0), "bc": torch.ones(2, 2).half()}, path, metadata={"format": "pt"})
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    path.write_bytes(content)
    try:
        ours = {t.name: (t.dtype, list(t.shape)) for t in read_header(path).tensors}
    except CheckpointError:
        return
    try:
        with safe_open(path, "pt") as reference:
            slices = {name: reference.get_slice(name) for name in reference.keys()}  # noqa: SIM118
            theirs = {name: (s.get_dtype(), s.get_shape()) for name, s in slices.items()}
    except SafetensorError as error:
        pytest.fail(f"accepted what the reference refuses: {error}")
    assert ours == theirs


class TestFolders:
    """Index and shards."""

    @pytest.fixture
    def folder(self, save_model: Save, tmp_path: Path) -> Path:
        return save_model(tmp_path / "model", shard="30KB")

    def edit(self, folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
        path = folder / "model.safetensors.index.json"
        index = json.loads(path.read_text())
        change(index)
        path.write_text(json.dumps(index))

    def problem(self, folder: Path) -> str:
        with pytest.raises(CheckpointError) as caught:
            Checkpoint.open(folder)
        return str(caught.value).replace(str(folder), "F")

    def test_all_shards_are_read(self, folder: Path) -> None:
        checkpoint = Checkpoint.open(folder)
        assert len(checkpoint.shards) == len(list(folder.glob("*.safetensors"))) > 2
        assert checkpoint.nbytes == sum(t.end - t.start for t in checkpoint.tensors.values())
        for shard in checkpoint.shards:
            for name, tensor in load_file(shard.file).items():
                assert checkpoint.tensors[name].read() == tensor.numpy().tobytes()

    def test_a_missing_shard(self, folder: Path) -> None:
        gone = sorted(folder.glob("*.safetensors"))[1]
        gone.unlink()
        expected = f"F/{gone.name}: got no such file; expected a safetensors file; try downloading it again"
        assert self.problem(folder) == expected

    def test_every_bad_shard_is_named(self, folder: Path) -> None:
        files = sorted(folder.glob("*.safetensors"))
        files[0].write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
        files[1].write_bytes(files[1].read_bytes()[:-1])
        lines = self.problem(folder).splitlines()
        assert len(lines) == 2
        assert "git-lfs" in lines[0]
        assert "truncated" in lines[1]

    @pytest.mark.parametrize(
        "name", ["../model.safetensors", "/etc/model.safetensors", "a\\b.safetensors", "c:b.safetensors", "x.bin", 7, "a\0.safetensors"]
    )  # fmt: skip
    def test_paths_that_lead_elsewhere(self, folder: Path, name: Any) -> None:
        self.edit(folder, lambda index: index["weight_map"].update({"model.norm.weight": name}))
        assert f"got {name!r} as a file; expected a safetensors file beside it" in self.problem(folder)

    def test_an_index_that_is_wrong(self, folder: Path) -> None:
        first = min(folder.glob("*.safetensors")).name
        self.edit(folder, lambda index: index["weight_map"].update({"ghost": first}))
        assert f"got 'ghost' in {first}, which lacks it" in self.problem(folder)
        self.edit(folder, lambda index: index["weight_map"].pop("ghost"))
        self.edit(folder, lambda index: index["weight_map"].pop("model.norm.weight"))
        assert "'model.norm.weight': got a tensor that the index does not put there" in self.problem(folder)

    def test_a_tensor_in_two_shards(self, folder: Path) -> None:
        first, second = sorted(folder.glob("*.safetensors"))[:2]
        save_file(load_file(first) | load_file(second), second)
        assert f"a tensor that is in {first.name} too" in self.problem(folder)

    @pytest.mark.parametrize(
        "text", ["", "[]", "{", '{"weight_map": {}}', '{"weight_map": []}', '{"a": 1, "a": 2}']
    )
    def test_an_index_that_is_none(self, folder: Path, text: str) -> None:
        (folder / "model.safetensors.index.json").write_text(text)
        assert self.problem(folder).startswith("F/model.safetensors.index.json: got no ")

    def test_a_link_into_a_store_is_fine(self, folder: Path, tmp_path: Path) -> None:
        """As the hub's cache lays them out."""
        before = Checkpoint.open(folder).tensors.keys()
        for file in folder.glob("*.safetensors"):
            file.rename(tmp_path / file.name)
            file.symlink_to(tmp_path / file.name)
        assert Checkpoint.open(folder).tensors.keys() == before

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            ([], "F: got no weights; expected model.safetensors or model.safetensors.index.json"),
            (["pytorch_model.bin"], "F/pytorch_model.bin: got weights as a pickle; expected safetensors"),
            (["training_args.bin"], "F: got no weights"),
            (["adapter_model.safetensors"], "F: got an adapter; expected a whole model"),
            (
                ["consolidated.safetensors"],
                "F: got only consolidated.safetensors; expected model.safetensors",
            ),
        ],
    )
    def test_a_folder_without_weights(self, tmp_path: Path, names: list[str], message: str) -> None:
        for name in names:
            (tmp_path / name).write_bytes(b"x")
        assert self.problem(tmp_path).startswith(message)


def test_reading_and_writing_need_no_torch(tmp_path: Path, tiny_model: Tiny) -> None:
    code = (
        "import sys; from pathlib import Path; from tli.checkpoint.reader import Checkpoint; from tli.checkpoint.writer import *\n"
        "tensors = Checkpoint.open(Path(sys.argv[1])).tensors.values()\n"
        "out = [Output(t.name, t.dtype, t.shape, t) for t in tensors]\n"
        "write_shards(Path(sys.argv[2]), out, limit=None, metadata={})\n"
        "assert not {'torch', 'transformers', 'numpy', 'safetensors'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tiny_model("llama")), str(tmp_path)], check=True)
    theirs = load_file(tiny_model("llama") / "model.safetensors")
    assert all(torch.equal(t, theirs[name]) for name, t in load_file(tmp_path / "model.safetensors").items())
