from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tli.corpus import documents, matching_files, names_files, stdlib_documents
from tli.data import DataSettings
from tli.dataset import Source
from tli.errors import DataError
from tli.sources import source_problems


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
