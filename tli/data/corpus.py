"""Documents of a text source: the built-in text, files by glob, Hugging Face datasets.

Nothing is held whole but one row, or one small file: a source may be larger than memory.
"""

from __future__ import annotations

import codecs
import glob
import hashlib
import io
import json
import os
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tli.data.dataset import Source, at_home, dataset_texts, import_extra, need_field, open_dataset, reason
from tli.errors import DataError, Problem
from tli.files import reader

STDLIB = "builtin:stdlib"
SUFFIXES = (".txt", ".md", ".jsonl", ".parquet")
_OTHER_SUFFIXES = frozenset(
    {".csv", ".tsv", ".json", ".html", ".pdf", ".docx", ".zip", ".gz", ".zst", ".bz2", ".tar", ".arrow"}
)

# Distributions leave out or add these; without them the text is nearly the same on every interpreter.
# `encodings` is left out because it holds tables of characters and not text.
_NOT_TEXT = frozenset(
    {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "encodings", "ensurepip"}
)
_HELDOUT_SHARE = 16  # one file in so many is held out
_HELD = 2**20  # bytes of a text file that is held whole; larger ones are read in parts of this size
_LONGEST_ROW = 2**26  # bytes of one row
_SHORTER_ROWS = f"rows of at most {_LONGEST_ROW:,} bytes"


@dataclass(frozen=True)
class Document:
    """One piece of text; windows may cross documents, so an end-of-text token is put between them.

    Attributes:
        name: where it stands, for messages.
        text: of one that is held in memory.
        path: of a text file that is too long for that.
        size: bytes of the source that it takes, or rows of a dataset, for progress.
        start: its first character in `text` or `path`.
        stop: the character behind its last; None for all.
    """

    name: str
    text: str = ""
    path: Path | None = None
    size: float = 0.0
    start: int = 0
    stop: int | None = None

    def chunks(self) -> Iterator[str]:
        """Its text in parts of at most about a million characters, in order; read anew each time."""
        whole = _file_chunks(self.path) if self.path else _text_chunks(self.text)
        position = 0
        for chunk in whole:
            first = max(self.start - position, 0)
            last = None if self.stop is None else max(self.stop - position, 0)
            position += len(chunk)
            if part := chunk[first:last]:
                yield part
            if self.stop is not None and position >= self.stop:
                return

    def digest(self) -> bytes:
        """SHA-256 of its text as UTF-8."""
        digest = hashlib.sha256()
        for chunk in self.chunks():
            digest.update(chunk.encode())
        return digest.digest()


def stdlib_documents(*, heldout: bool) -> Iterator[Document]:
    """Files of the running interpreter's standard library, in name order.

    Which side a file is on depends on its name alone, so a file that the built-in base was not shown is
    held out under every version of Python.
    """
    for name, path in _stdlib_files(heldout=heldout):
        text = path.read_text(encoding="utf-8", errors="replace")
        if text.strip():
            yield Document(name, text, size=path.stat().st_size)


def stdlib_size(*, heldout: bool) -> float:
    """Bytes of one side of the standard library."""
    return float(sum(path.stat().st_size for _, path in _stdlib_files(heldout=heldout)))


def _stdlib_files(*, heldout: bool) -> Iterator[tuple[str, Path]]:
    root = Path(sysconfig.get_paths()["stdlib"])
    for name in _stdlib_names(root):
        digest = hashlib.sha256(f"tli:stdlib:{name.as_posix()}".encode()).digest()
        if (digest[0] % _HELDOUT_SHARE == 0) == heldout:
            yield name.as_posix(), root / name


def _stdlib_names(root: Path) -> list[Path]:
    """Below the root, sorted. Folders that are no text are not gone into: site-packages may hold far more."""
    found: list[Path] = []
    for folder, folders, files in os.walk(root):
        folders[:] = filter(_of_text, folders)
        inside = Path(folder).relative_to(root)
        found += [inside / name for name in filter(_of_text, files) if name.endswith(".py")]
    return sorted(found)


def _of_text(part: str) -> bool:
    return part not in _NOT_TEXT and not part.startswith("config-")


def documents(source: Source) -> Iterator[Document]:
    """Documents of a source that is not the built-in one; rows and files without text are passed over.

    Of txt and md each file is a document, of jsonl, parquet and datasets each row.

    Raises:
        DataError: at the first file or row that cannot be read, is not text, or is too long.
    """
    files = matching_files(source.name)
    if not files:
        for number, text in enumerate(dataset_texts(open_dataset(source), source.text_field)):
            yield from _row(text, source.text_field, f"{source.name}, row {number}", 1)
        return
    for path in files:
        try:
            if path.suffix == ".jsonl":
                yield from _jsonl_documents(path, source.text_field)
            elif path.suffix == ".parquet":
                yield from _parquet_documents(path, source.text_field)
            else:
                yield from _text_file(path)
        except OSError as error:
            got = f"a file that cannot be read ({reason(error)})"
            raise DataError(Problem(str(path), got, "a file of text")) from None


def extent(source: Source) -> float:
    """How much there is to read, in the unit of `Document.size`; of the built-in text, both sides."""
    if source.name == STDLIB:
        return stdlib_size(heldout=False) + stdlib_size(heldout=True)
    files = matching_files(source.name)
    return float(sum(path.stat().st_size for path in files) if files else len(open_dataset(source)))


def matching_files(source: str) -> list[Path]:
    """Files that a source names, sorted; none when it is no file and no glob that matches."""
    return [path for path in matches(source) if path.is_file()]


def matches(source: str) -> list[Path]:
    """Everything that a source names, sorted: files, folders, pipes, links to nothing.

    What exists under its literal name is taken by that name, so `[` in it means `[`.
    """
    parts = at_home(source).parts
    there = 0  # so many leading parts exist by their names
    while there < len(parts) and os.path.lexists(Path(*parts[: there + 1])):
        there += 1
    literal = Path(*map(glob.escape, parts[:there]), *parts[there:])
    found = glob.glob(str(literal), recursive=True) or glob.glob(str(Path(*parts)), recursive=True)
    return sorted(set(map(Path, found)))


def names_files(source: str) -> bool:
    """Whether a source is meant as files: it has the suffix of a file, a wildcard, or a leading path mark."""
    return (
        Path(source).suffix in {*SUFFIXES, *_OTHER_SUFFIXES}
        or any(mark in source for mark in "*?[")
        or source.startswith(("/", "./", "../", "~"))
    )


def _text_file(path: Path) -> Iterator[Document]:
    size = path.stat().st_size
    if size > _HELD:
        if any(chunk.strip() for chunk in _file_chunks(path)):
            yield Document(str(path), path=path, size=size)
    elif (text := "".join(_file_chunks(path))).strip():
        yield Document(str(path), text, size=size)


def _text_chunks(text: str) -> Iterator[str]:
    for start in range(0, len(text), _HELD):
        yield text[start : start + _HELD]


def _file_chunks(path: Path) -> Iterator[str]:
    """Text of a UTF-8 file, without a byte order mark, its line ends as they are read everywhere: `\\n`."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    with reader(path) as file:
        # What is appended meanwhile is not waited for. Some file systems tell no sizes: there, one part.
        left = os.fstat(file.fileno()).st_size or _HELD
        position, begun = 0, False
        while left >= 0:
            raw = file.read(min(left, _HELD))
            pending = len(decoder.getstate()[0])
            final = len(raw) in (0, left)
            try:
                text = decoder.decode(raw, final=final)
            except UnicodeDecodeError as error:
                raise DataError(_no_utf8(str(path), position - pending + error.start)) from None
            if text and not begun:
                text, begun = text.removeprefix("\ufeff"), True
            position += len(raw)
            left -= len(raw)
            if text := newlines.decode(text, final=final):
                yield text
            if final:
                return


def _no_utf8(where: str, byte: int) -> Problem:
    return Problem(f"{where}, byte {byte}", "bytes that are not UTF-8", "UTF-8 text", "iconv -t utf-8")


def _jsonl_documents(path: Path, text_field: str) -> Iterator[Document]:
    with reader(path) as lines:
        number = 0
        while line := lines.readline(_LONGEST_ROW + 1):
            number += 1
            where = f"{path}:{number}"
            if len(line) > _LONGEST_ROW:
                raise DataError(Problem(where, "a longer line", _SHORTER_ROWS, "one document a row"))
            try:
                written = line.decode("utf-8").removeprefix("\ufeff")
            except UnicodeDecodeError as error:
                raise DataError(_no_utf8(where, error.start)) from None
            if not written.strip():
                continue
            try:
                row = json.loads(written)
            except (ValueError, RecursionError) as error:
                told = error.msg if isinstance(error, json.JSONDecodeError) else reason(error)
                raise DataError(Problem(where, f"no JSON ({told})", "one JSON object a line")) from None
            need_field(text_field, list(row) if isinstance(row, dict) else [], where)
            yield from _row(row[text_field], text_field, where, len(line))


def _parquet_documents(path: Path, text_field: str) -> Iterator[Document]:
    parquet = import_extra("pyarrow.parquet", f"{path}")
    try:
        with reader(path) as file:
            table = parquet.ParquetFile(file, buffer_size=2**20)
            need_field(text_field, table.schema_arrow.names, str(path))
            size = path.stat().st_size / max(1, table.metadata.num_rows)
            row = 0
            for batch in table.iter_batches(batch_size=64, columns=[text_field]):
                for value in batch.column(0):
                    row += 1
                    where = f"{path}, row {row}"
                    yield from _row(_short_enough(value, where), text_field, where, size)
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - pyarrow raises kinds of its own and plain ones for one mistake
        got = f"no Parquet that can be read ({reason(error)})"
        raise DataError(Problem(str(path), got, "a Parquet file", "writing it again")) from None


def _short_enough(value: Any, where: str) -> Any:
    """The Python value of one of pyarrow, which is not copied where it is too long."""
    if hasattr(value, "as_buffer") and len(value.as_buffer() or b"") > _LONGEST_ROW:
        raise DataError(Problem(where, "a longer row", _SHORTER_ROWS, "one document a row"))
    return value.as_py()


def _row(text: Any, text_field: str, where: str, size: float) -> Iterator[Document]:
    """The document of one row: none when its field is null or blank."""
    if text is None:
        return
    if not isinstance(text, str):
        got = f"{type(text).__name__} in the field {text_field!r}"
        raise DataError(Problem(where, got, "text", "data.text_field: NAME"))
    if len(text) > _LONGEST_ROW:
        raise DataError(Problem(where, f"{len(text):,} characters", _SHORTER_ROWS, "one document a row"))
    try:
        text.encode()
    except UnicodeEncodeError as error:
        got = f"half of a surrogate pair (U+{ord(text[error.start]):04X}) at character {error.start}"
        raise DataError(
            Problem(where, got, "Unicode text", "writing the row anew, with U+FFFD instead")
        ) from None
    if text.strip():
        yield Document(where, text, size=size)
