from __future__ import annotations

import hashlib
import json
import os
import sysconfig
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tli.data import corpus
from tli.data.corpus import documents, matching_files, names_files, stdlib_documents
from tli.data.dataset import Source
from tli.data.settings import DataSettings
from tli.data.sources import source_problems
from tli.errors import DataError


def read(source: Path | str, **settings: str) -> list[tuple[str, str]]:
    found = documents(Source(str(source), **settings))
    return [(doc.name, "".join(doc.chunks())) for doc in found]


def refused(source: Path, **settings: str) -> str:
    with pytest.raises(DataError) as caught:
        read(source, **settings)
    (problem,) = caught.value.problems
    return str(problem).replace(str(source), "F")


def rows(path: Path, *texts: Any) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def parquet(path: Path, column: Any, name: str = "text") -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    writer = pytest.importorskip("pyarrow.parquet")
    writer.write_table(pyarrow.table({name: column}), path)
    return path


# -- what is read ---------------------------------------------------------------------------------------------


def test_a_text_file_is_one_document(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\r\ntwo\rthree é\n".encode())
    assert read(path) == [(str(path), "one\ntwo\nthree é\n")]


def test_a_row_is_a_document_and_rows_without_text_are_passed_over(tmp_path: Path) -> None:
    path = rows(tmp_path / "a.jsonl", "one", "", " \n", None, "é\u2028two")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"\n  \n")
    assert read(path) == [(f"{path}:1", "one"), (f"{path}:5", "é\u2028two")]


def test_parquet_rows_of_the_named_column(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", ["one", None, "", "two"], "body")
    assert read(path, text_field="body") == [(f"{path}, row 1", "one"), (f"{path}, row 4", "two")]


def test_a_glob_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.txt", "deep/c.md", "a.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "d.txt").mkdir()
    assert [text for _, text in read(f"{tmp_path}/*.txt")] == ["a.txt", "b.txt"]
    assert [text for _, text in read(f"{tmp_path}/**/*.*")] == ["a.txt", "b.txt", "deep/c.md"]


def test_brackets_in_what_exists_are_brackets(tmp_path: Path) -> None:
    folder = tmp_path / "run[1]"
    folder.mkdir()
    for name in ("notes[1].txt", "notes1.txt", "notes2.txt"):
        (folder / name).write_text(name)
    assert [text for _, text in read(folder / "notes[1].txt")] == ["notes[1].txt"]
    assert [path.name for path in matching_files(f"{folder}/notes?.txt")] == ["notes1.txt", "notes2.txt"]
    assert [path.name for path in matching_files(f"{folder}/notes[12].txt")] == ["notes1.txt", "notes2.txt"]
    assert source_problems(DataSettings(source=f"{folder}/notes[1].txt")) == []


def test_a_pattern_is_a_pattern_though_a_folder_has_its_name(tmp_path: Path) -> None:
    for name in ("run[12]", "run1"):
        (tmp_path / name).mkdir()
    (tmp_path / "run1" / "a.txt").write_text("text")
    assert matching_files(f"{tmp_path}/run[12]/*.txt") == [tmp_path / "run1" / "a.txt"]


def test_paths_relative_and_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a[1].txt").write_text("text")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert matching_files("a[1].txt") == matching_files("./*.txt") == [Path("a[1].txt")]
    assert matching_files("~/*.txt") == [tmp_path / "a[1].txt"]
    assert matching_files("~nobody-of-this-name/*.txt") == []
    assert matching_files("a\0.txt") == []
    assert matching_files("") == []


@pytest.mark.parametrize(
    ("source", "files"),
    [("a.txt", True), ("parts/*", True), ("./a", True), ("~/a", True), ("owner/name", False), ("c4", False)],
)
def test_what_is_meant_as_files(source: str, files: bool) -> None:
    assert names_files(source) == files


# -- the built-in text ----------------------------------------------------------------------------------------


def test_the_side_of_a_library_file_depends_on_its_name_alone() -> None:
    """The built-in base was not shown these; on another side they would no longer be held out for it."""
    sides = {
        side: {doc.name: doc.text for doc in stdlib_documents(heldout=heldout)}
        for side, heldout in (("train", False), ("heldout", True))
    }
    assert not sides["train"].keys() & sides["heldout"].keys()
    assert {"asyncio/tasks.py", "json/decoder.py", "logging/__init__.py"} <= sides["train"].keys()
    assert {"gzip.py", "json/encoder.py", "uuid.py", "zoneinfo/__init__.py"} <= sides["heldout"].keys()
    assert 8 < len(sides["train"]) / len(sides["heldout"]) < 32
    names = list(sides["train"])
    assert names == sorted(names, key=lambda name: Path(name).parts)
    assert not [name for name in names if name.startswith(("test/", "site-packages/", "encodings/"))]


def test_what_others_installed_beside_the_library_is_not_gone_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checked spec asks for the built-in text some dozens of times; site-packages holds ten times as many files."""
    for name in (
        "asyncio/tasks.py",
        "site-packages/torch/nn.py",
        "test/test_os.py",
        "config-3.11-x/a.py",
        "gzip.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    seen, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: seen.append(Path(path)) or scandir(path))
    found = [doc.name for heldout in (False, True) for doc in stdlib_documents(heldout=heldout)]
    assert found == ["asyncio/tasks.py", "gzip.py"]
    assert set(seen) == {tmp_path, tmp_path / "asyncio"}


# -- what is refused ------------------------------------------------------------------------------------------


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"abc\xff\xfe")
    assert refused(path) == (
        "F, byte 3: got bytes that are not UTF-8; expected UTF-8 text; try iconv -t utf-8"
    )


@pytest.mark.parametrize("line", [1, 3])
def test_rows_that_are_not_utf8(tmp_path: Path, line: int) -> None:
    lines = [b'{"text": "fine"}'] * 4
    lines[line - 1] = '{"text": "é"}'.encode("latin-1")
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(lines))
    assert refused(path) == (
        f"F:{line}, byte 10: got bytes that are not UTF-8; expected UTF-8 text; try iconv -t utf-8"
    )


def test_half_of_a_surrogate_pair(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "\\ud83d\\ude00"}\n{"text": "ab\\ud800c"}\n')
    assert refused(path) == (
        "F:2: got half of a surrogate pair (U+D800) at character 2; expected Unicode text; "
        "try writing the row anew, with U+FFFD instead"
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("some text", "no JSON (Expecting value); expected one JSON object a line"),
        ("[" * 100_000, "no JSON (maximum recursion depth exceeded"),
        ('{"text": ' + "9" * 5000 + "}", "no JSON (Exceeds the limit"),
        ('["text"]', "fields nothing; expected text in the field 'text'"),
        ('{"body": "text", "id": 1}', "fields body, id; expected text in the field 'text'"),
        ('{"text": 7}', "int in the field 'text'; expected text"),
        ('{"text": ["a"]}', "list in the field 'text'; expected text"),
    ],
)
def test_rows_without_text(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n' + line + "\n")
    assert refused(path).startswith(f"F:2: got {message}")


@pytest.mark.parametrize("content", [b"", b"hello", b"PAR1" + b"\0" * 300 + b"PAR1"])
def test_parquet_that_is_none(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    message = refused(path)
    assert message.startswith("F: got no Parquet that can be read (")
    assert message.endswith("); expected a Parquet file; try writing it again")


def test_parquet_that_was_cut_in_the_middle_or_altered(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", [f"text {number}" for number in range(5000)])
    content = bytearray(path.read_bytes())
    content[4:2000] = bytes(1996)
    path.write_bytes(content)
    assert refused(path).startswith("F: got no Parquet that can be read (")


@pytest.mark.parametrize(
    ("column", "row", "kind"), [([1, 2], 1, "int"), ([None, [1.5]], 2, "list"), ([b"text"], 1, "bytes")]
)
def test_a_parquet_column_that_is_not_text(tmp_path: Path, column: Any, row: int, kind: str) -> None:
    path = parquet(tmp_path / "a.parquet", column)
    assert refused(path) == (
        f"F, row {row}: got {kind} in the field 'text'; expected text; try data.text_field: NAME"
    )


def test_parquet_without_the_column(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", ["text"], "body")
    assert refused(path) == (
        "F: got fields body; expected text in the field 'text'; try data.text_field: NAME"
    )


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.symlink_to("/proc/self/mem")  # a file that opens and does not read, for root too
    if not path.is_file():
        pytest.skip("no /proc")
    assert refused(path).startswith("F: got a file that cannot be read (")


# -- datasets -------------------------------------------------------------------------------------------------


def test_a_dataset_that_was_saved_to_a_folder(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    folder = tmp_path / "saved"
    datasets.Dataset.from_dict({"text": ["one", None, "two"], "n": [1, 2, 3]}).save_to_disk(str(folder))
    assert Source(str(folder)).folder == folder
    assert source_problems(DataSettings(source=str(folder))) == []
    assert read(folder) == [(f"{folder}, row 0", "one"), (f"{folder}, row 2", "two")]
    assert refused(folder, text_field="n").startswith("F, row 0: got int in the field 'n'; expected text")
    assert refused(folder, text_field="x").startswith("F: got fields text, n; expected text in the field 'x'")


def test_a_dataset_without_the_split(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    folder = tmp_path / "saved"
    train = datasets.Dataset.from_dict({"text": ["one"]})
    datasets.DatasetDict({"train": train}).save_to_disk(str(folder))
    assert [text for _, text in read(folder)] == ["one"]
    assert refused(folder, split="dev").startswith("'F': got no dataset that can be read (")


def test_a_folder_that_is_no_dataset(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    assert refused(tmp_path).startswith("'F': got no dataset that can be read (")


# -- what is too long, or has no end --------------------------------------------------------------------------


def test_a_long_text_file_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Letters of two to four bytes and both halves of a line end fall on the borders of parts."""
    written = "".join(f"é{number}\r\n\U0001f600\r" for number in range(500))
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf" + written.encode())
    whole = written.replace("\r\n", "\n").replace("\r", "\n")
    for size in (1, 2, 3, 5, 64):
        monkeypatch.setattr(corpus, "_HELD", size)
        (document,) = documents(Source(str(path)))
        assert document.path == path
        assert "".join(document.chunks()) == whole
        assert document.digest() == hashlib.sha256(whole.encode()).digest()
        part = replace(document, start=7, stop=1003)
        assert (
            "".join(part.chunks()) == "".join(replace(part, path=None, text=whole).chunks()) == whole[7:1003]
        )


def test_a_long_text_file_that_is_not_utf8_or_blank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "_HELD", 4)
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xc3\xa9" * 9 + b"\xc3(" + b"a" * 9)
    assert refused(path).startswith("F, byte 18: got bytes that are not UTF-8")
    path.write_bytes(b"a" * 9 + b"\xc3")
    assert refused(path).startswith("F, byte 9: got bytes that are not UTF-8")
    path.write_bytes(b" \n" * 9)
    assert read(path) == []


def test_a_row_that_is_too_long_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n')
    os.truncate(path, 1_500_000_000)  # a line of zeros, of which the disk holds none
    tracemalloc.start()
    message = refused(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert message == (
        "F:2: got a longer line; expected rows of at most 67,108,864 bytes; try one document a row"
    )
    assert peak < 200e6


def test_a_parquet_row_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet(tmp_path / "a.parquet", ["one", "long" * 9])
    monkeypatch.setattr(corpus, "_LONGEST_ROW", 8)
    assert refused(path).startswith("F, row 2: got a longer row")


@pytest.mark.parametrize("kind", ["pipe", "device", "link to a device", "folder of pipes"])
def test_a_source_without_an_end_is_refused(tmp_path: Path, kind: str) -> None:
    place = {"device": Path("/dev/zero"), "folder of pipes": tmp_path / "*.txt"}.get(kind, tmp_path / "a.txt")
    if kind == "link to a device":
        place.symlink_to("/dev/zero")
    elif kind != "device":
        os.mkfifo(tmp_path / "a.txt")
        (tmp_path / "b.txt").write_text("text")
    for field in ("source", "heldout"):
        first, *_ = source_problems(DataSettings(**{field: str(place)}))
        assert first.where == f"data.{field}"
        assert "a device" in first.got or "a pipe" in first.got
        assert first.expected == "a regular file"


def test_a_file_that_turns_into_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("text")
    (document,) = documents(Source(str(path)))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match="not a file"):
        list(replace(document, path=path, text="").chunks())


def test_an_address_is_refused_without_its_password() -> None:
    (problem,) = source_problems(DataSettings(source="https://user:CANARY@host/text.jsonl"))
    assert "CANARY" not in str(problem)
    assert problem.where == "data.source"
    assert "an address" in problem.got


@pytest.mark.parametrize("word", ["none", "null", "None"])
def test_a_word_for_nothing_is_no_name(word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (problem,) = source_problems(DataSettings(heldout=word))
    assert (problem.where, problem.remedy) == ("data.heldout", "null")
    (problem,) = source_problems(DataSettings(source=word))
    assert (problem.where, problem.remedy) == ("data.source", "builtin:stdlib")
    (tmp_path / word).mkdir()
    assert source_problems(DataSettings(source=f"./{word}")) == []


def test_settings_of_datasets_for_what_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    settings = DataSettings(
        source=str(tmp_path / "a.txt"), configuration="en", revision="main", heldout_split="test"
    )
    assert [problem.where for problem in source_problems(settings)] == [
        "data.configuration",
        "data.revision",
        "data.heldout_split",
    ]
    assert source_problems(DataSettings(source="owner/name", configuration="en", revision="main")) == []


def test_a_dataset_folder_with_brackets_in_its_name(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    folder = tmp_path / "run[1]"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"text": "one"}\n')
    assert refused(folder).startswith(
        "data.source: got 'F', which the reader of datasets takes for a pattern"
    )
    datasets.Dataset.from_dict({"text": ["one"]}).save_to_disk(str(folder))
    assert [text for _, text in read(folder)] == ["one"]
