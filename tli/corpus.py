"""Where text comes from: the built-in text, files by glob, Hugging Face datasets; always as documents."""

from __future__ import annotations

import glob
import hashlib
import json
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
    """Documents of a source that is not the built-in one.

    Args:
        source: a file, a glob of files (txt and md: one document a file; jsonl and parquet: one a row), or a
            Hugging Face dataset, by id or folder.
        text_field: the column or key that holds the text in jsonl, parquet and datasets.
        split: the split of a Hugging Face dataset.

    Raises:
        DataError: with every problem met while reading.
    """
    files = matching_files(source)
    if not files:
        yield from _dataset_documents(source, text_field, split)
        return
    for path in files:
        if path.suffix == ".jsonl":
            yield from _jsonl_documents(path, text_field)
        elif path.suffix == ".parquet":
            yield from _parquet_documents(path, text_field)
        else:
            yield Document(str(path), _read(path))


def matching_files(source: str) -> list[Path]:
    """Files that a source names, sorted; none when it is no file and no glob that matches."""
    expanded = str(Path(source).expanduser())
    return sorted(path for path in map(Path, glob.glob(expanded, recursive=True)) if path.is_file())


def names_files(source: str) -> bool:
    """Whether a source is meant as files: it has the suffix of a file, a wildcard, or a leading path mark."""
    return (
        Path(source).suffix in (*SUFFIXES, *_OTHER_SUFFIXES)
        or any(mark in source for mark in "*?[")
        or source.startswith(("/", "./", "../", "~"))
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            Problem(f"{path}, byte {error.start}", "bytes that are not UTF-8", "UTF-8 text", "iconv -t utf-8")
        ) from None


def _jsonl_documents(path: Path, text_field: str) -> Iterator[Document]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(Problem(where, f"no JSON ({error.msg})", "one JSON object a line")) from None
            yield Document(where, _field(row, text_field, where))


def _parquet_documents(path: Path, text_field: str) -> Iterator[Document]:
    parquet = _import("pyarrow.parquet", f"{path}")
    table = parquet.ParquetFile(path)
    if text_field not in table.schema_arrow.names:
        raise DataError(_no_field(str(path), text_field, table.schema_arrow.names))
    row = 0
    for batch in table.iter_batches(columns=[text_field]):
        for text in batch.column(0).to_pylist():
            row += 1
            if text:
                yield Document(f"{path}, row {row}", text)


def _dataset_documents(source: str, text_field: str, split: str) -> Iterator[Document]:
    datasets = _import("datasets", source)
    folder = Path(source).expanduser()
    try:
        if (folder / "dataset_info.json").is_file() or (folder / "dataset_dict.json").is_file():
            rows = datasets.load_from_disk(str(folder))
            rows = rows[split] if hasattr(rows, "keys") else rows
        else:
            rows = datasets.load_dataset(source, split=split)
    except Exception as error:  # noqa: BLE001 - the library raises a dozen kinds for one mistake
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            Problem(
                "data.source", f"{source!r} ({reason})", "files, or a Hugging Face dataset", "sweeps plan -h"
            )
        ) from None
    if text_field not in rows.column_names:
        raise DataError(_no_field(source, text_field, rows.column_names))
    for number, row in enumerate(rows):
        if row[text_field]:
            yield Document(f"{source}, row {number}", row[text_field])


def _field(row: Any, text_field: str, where: str) -> str:
    text = row.get(text_field) if isinstance(row, dict) else None
    if not isinstance(text, str):
        raise DataError(_no_field(where, text_field, list(row) if isinstance(row, dict) else []))
    return text


def _no_field(where: str, text_field: str, names: list[str]) -> Problem:
    found = ", ".join(map(str, names)) or "nothing"
    return Problem(where, f"fields {found}", f"text in the field {text_field!r}", "data.text_field: NAME")


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
