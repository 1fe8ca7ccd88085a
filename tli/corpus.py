"""Where text comes from: the built-in text, files by glob, Hugging Face datasets; always as documents."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tli.errors import DataError, Problem

STDLIB = "builtin:stdlib"
SUFFIXES = (".txt", ".md", ".jsonl", ".parquet")
_OTHER_SUFFIXES = (
    ".csv",
    ".tsv",
    ".json",
    ".html",
    ".pdf",
    ".docx",
    ".zip",
    ".gz",
    ".zst",
    ".bz2",
    ".tar",
    ".arrow",
)

# Distributions leave out or add these; without them the text is nearly the same on every interpreter.
# `encodings` is left out because it holds tables of characters and not text.
_NOT_TEXT = frozenset(
    {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "encodings", "ensurepip"}
)
_HELDOUT_SHARE = 16  # one file in so many is held out


@dataclass(frozen=True)
class Document:
    """One piece of text; windows may cross documents, so an end-of-text token is put between them."""

    name: str
    text: str


def stdlib_documents(*, heldout: bool) -> Iterator[Document]:
    """Files of the running interpreter's standard library, in name order.

    Which side a file is on depends on its name alone, so a file that the built-in base was not shown is
    held out under every version of Python.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        if _NOT_TEXT.intersection(name.parts) or any(part.startswith("config-") for part in name.parts):
            continue
        digest = hashlib.sha256(f"tli:stdlib:{name.as_posix()}".encode()).digest()
        if (digest[0] % _HELDOUT_SHARE == 0) == heldout:
            text = path.read_text(encoding="utf-8", errors="replace")
            if text.strip():
                yield Document(name.as_posix(), text)


def documents(source: str, *, text_field: str = "text", split: str = "train") -> Iterator[Document]:
    """Documents of a source that is not the built-in one; rows without text are passed over.

    Args:
        source: a file, a glob of files (txt and md: one document a file; jsonl and parquet: one a row), or a
            Hugging Face dataset, by id or folder.
        text_field: the column or key that holds the text in jsonl, parquet and datasets.
        split: the split of a Hugging Face dataset.

    Raises:
        DataError: at the first file or row that cannot be read, or is not text.
    """
    files = matching_files(source)
    if not files:
        yield from _dataset_documents(source, text_field, split)
        return
    for path in files:
        try:
            if path.suffix == ".jsonl":
                yield from _jsonl_documents(path, text_field)
            elif path.suffix == ".parquet":
                yield from _parquet_documents(path, text_field)
            elif (text := _decoded(path.read_bytes(), str(path))).strip():
                yield Document(str(path), text)
        except OSError as error:
            got = f"a file that cannot be read ({_reason(error)})"
            raise DataError(Problem(str(path), got, "a file of text")) from None


def matching_files(source: str) -> list[Path]:
    """Files that a source names, sorted; none when it is no file and no glob that matches.

    What exists under its literal name is taken by that name, so `[` in it means `[`.
    """
    parts = _expanded(source).parts
    there = 0  # so many leading parts exist by their names
    while there < len(parts) and os.path.lexists(Path(*parts[: there + 1])):
        there += 1
    literal = Path(*map(glob.escape, parts[:there]), *parts[there:])
    found = glob.glob(str(literal), recursive=True) or glob.glob(str(Path(*parts)), recursive=True)
    return sorted({path for path in map(Path, found) if path.is_file()})


def dataset_folder(source: str) -> Path | None:
    """The folder that a source names, if it names one that exists: a dataset that was saved there."""
    folder = _expanded(source)
    return folder if source and folder.is_dir() else None


def _expanded(source: str) -> Path:
    return Path(os.path.expanduser(source))  # noqa: PTH111 - leaves `~nobody` as it stands


def names_files(source: str) -> bool:
    """Whether a source is meant as files: it has the suffix of a file, a wildcard, or a leading path mark."""
    return (
        Path(source).suffix in (*SUFFIXES, *_OTHER_SUFFIXES)
        or any(mark in source for mark in "*?[")
        or source.startswith(("/", "./", "../", "~"))
    )


def _decoded(raw: bytes, where: str) -> str:
    """Text of UTF-8 bytes, without a byte order mark, its line ends as they are read everywhere: `\\n`."""
    try:
        text = raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        place = f"{where}, byte {error.start}"
        raise DataError(Problem(place, "bytes that are not UTF-8", "UTF-8 text", "iconv -t utf-8")) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _jsonl_documents(path: Path, text_field: str) -> Iterator[Document]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{path}:{number}"
            written = _decoded(line, where)
            if not written.strip():
                continue
            try:
                row = json.loads(written)
            except (ValueError, RecursionError) as error:
                reason = error.msg if isinstance(error, json.JSONDecodeError) else _reason(error)
                raise DataError(Problem(where, f"no JSON ({reason})", "one JSON object a line")) from None
            _need_field(text_field, list(row) if isinstance(row, dict) else [], where)
            yield from _row(row[text_field], text_field, where)


def _parquet_documents(path: Path, text_field: str) -> Iterator[Document]:
    parquet = _import("pyarrow.parquet", f"{path}")
    try:
        table = parquet.ParquetFile(path)
        _need_field(text_field, table.schema_arrow.names, str(path))
        row = 0
        for batch in table.iter_batches(columns=[text_field]):
            for text in batch.column(0).to_pylist():
                row += 1
                yield from _row(text, text_field, f"{path}, row {row}")
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - pyarrow raises kinds of its own and plain ones for one mistake
        got = f"no Parquet that can be read ({_reason(error)})"
        raise DataError(Problem(str(path), got, "a Parquet file", "writing it again")) from None


def _dataset_documents(source: str, text_field: str, split: str) -> Iterator[Document]:
    datasets = _import("datasets", source)
    folder = _expanded(source)
    try:
        if (folder / "dataset_info.json").is_file() or (folder / "dataset_dict.json").is_file():
            rows = datasets.load_from_disk(str(folder))
            rows = rows[split] if hasattr(rows, "keys") else rows
        else:
            rows = datasets.load_dataset(source, split=split)
    except Exception as error:  # noqa: BLE001 - the library raises a dozen kinds for one mistake
        got = f"no dataset that can be read ({_reason(error)})"
        raise DataError(
            Problem(repr(source), got, "files, or a Hugging Face dataset by id or folder")
        ) from None
    _need_field(text_field, rows.column_names, source)
    for number, row in enumerate(rows):
        yield from _row(row[text_field], text_field, f"{source}, row {number}")


def _row(text: Any, text_field: str, where: str) -> Iterator[Document]:
    """The document of one row: none when its field is null or blank."""
    if text is None:
        return
    if not isinstance(text, str):
        got = f"{type(text).__name__} in the field {text_field!r}"
        raise DataError(Problem(where, got, "text", "data.text_field: NAME"))
    try:
        text.encode()
    except UnicodeEncodeError as error:
        got = f"half of a surrogate pair (U+{ord(text[error.start]):04X}) at character {error.start}"
        raise DataError(
            Problem(where, got, "Unicode text", "writing the row anew, with U+FFFD instead")
        ) from None
    if text.strip():
        yield Document(where, text)


def _need_field(text_field: str, names: list[str], where: str) -> None:
    if text_field not in names:
        got = f"fields {', '.join(map(str, names)) or 'nothing'}"
        raise DataError(Problem(where, got, f"text in the field {text_field!r}", "data.text_field: NAME"))


def _reason(error: Exception) -> str:
    """What a library said, in one line."""
    return " ".join((str(error) or type(error).__name__).split())[:200]


def _import(module: str, where: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        raise DataError(
            Problem(
                where,
                "a source that needs the `eval` extra",
                "it installed",
                "pip install 'tli-sweeps[eval]'",
            )
        ) from None
