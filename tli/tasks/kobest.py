"""KoBEST's five tasks from their official TSV files, in the columns that lm-evaluation-harness reads."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tli.errors import SHOWN, DataError, Problem
from tli.json_files import read_bounded, reason_of

Row = Mapping[str, str]
SPLITS = ("train", "validation", "test")
_FILES = {"train": "train", "validation": "dev", "test": "test"}
_LIMIT = 100_000_000  # bytes of a file; the largest has two million
# A cell is quoted where its quotes are doubled within; a sentence may begin or end with one, too.
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')


@dataclass(frozen=True)
class OfficialTask:
    """One task: the folder of its files, the columns that are read, its labels, a row as the hub has it."""

    folder: str
    columns: tuple[str, ...]
    label: str  # its column
    labels: Mapping[str, int]  # as they are written, in lower case
    make: Callable[[Row, int], dict[str, Any]]


_TRUTH = {"false": 0, "true": 1}


def _boolq(row: Row, label: int) -> dict[str, Any]:
    return {"paragraph": row["Text"], "question": row["Question"], "label": label}


def _copa(row: Row, label: int) -> dict[str, Any]:
    choices = {"alternative_1": row["1"], "alternative_2": row["2"]}
    return {"premise": row["sentence"], "question": row["question"], **choices, "label": label}


def _wic(row: Row, label: int) -> dict[str, Any]:
    contexts = {"context_1": row["SENTENCE1"], "context_2": row["SENTENCE2"]}
    return {"word": row["Target"], **contexts, "label": label}


def _hellaswag(row: Row, label: int) -> dict[str, Any]:
    endings = {f"ending_{i}": row[f"choice{i}"] for i in range(1, 5)}
    return {"context": row["context"], **endings, "label": label}


def _sentineg(row: Row, label: int) -> dict[str, Any]:
    return {"sentence": row["Text"], "label": label}


KOBEST: Mapping[str, OfficialTask] = {
    "kobest_boolq": OfficialTask("BoolQ", ("Text", "Question"), "Answer", _TRUTH, _boolq),
    "kobest_copa": OfficialTask(
        "COPA", ("sentence", "question", "1", "2"), "Answer", {"1": 0, "2": 1}, _copa
    ),
    "kobest_hellaswag": OfficialTask(
        "HellaSwag",
        ("context", "choice1", "choice2", "choice3", "choice4"),
        "label",
        {str(index): index for index in range(4)},
        _hellaswag,
    ),
    "kobest_sentineg": OfficialTask("SentiNeg", ("Text",), "Label", {"0": 0, "1": 1}, _sentineg),
    "kobest_wic": OfficialTask("WiC", ("Target", "SENTENCE1", "SENTENCE2"), "ANSWER", _TRUTH, _wic),
}


def files_of(name: str, root: Path) -> dict[str, Path]:
    """The files of a task that are there, by split; training examples may be the beginning of the whole file.

    Args:
        name: of the task.
        root: the folder that holds `BoolQ/`, `COPA/`, ...
    """
    folder = root / KOBEST[name].folder
    found = {}
    for split, stem in _FILES.items():
        path = folder / f"{stem}.tsv"
        if not path.is_file() and split == "train":
            path = next(iter(sorted(folder.glob("train_*.tsv"))), path)
        if path.is_file():
            found[split] = path
    return found


def documents(name: str, path: Path) -> list[dict[str, Any]]:
    """The rows of one file, as the hub has them.

    Raises:
        DataError: it cannot be read, lacks a column, or has a row or a label of another kind.
    """
    task = KOBEST[name]
    made: list[dict[str, Any]] = []
    problems: list[Problem] = []
    for line, row in _rows(path, (*task.columns, task.label)):
        label = None if row is None else task.labels.get(row[task.label].strip().lower())
        if row is not None and label is not None:
            made.append(task.make(row, label))
        elif len(problems) < SHOWN:
            got = (
                "another number of cells than the header" if row is None else f"the label {row[task.label]!r}"
            )
            expected = "as many" if row is None else f"one of {', '.join(task.labels)}"
            problems.append(Problem(f"{path}:{line}:1", got, expected, "the official file"))
    if problems:
        raise DataError(*problems)
    if not made:
        raise DataError(Problem(str(path), "no rows", "the official file"))
    return made


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, Row | None]]:
    """Line numbers and rows by column; None for a line with more or fewer cells.

    Raises:
        DataError: the file cannot be read, or lacks a column.
    """
    try:
        text = read_bounded(path, _LIMIT).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(Problem(str(path), reason_of(error), "a TSV file in UTF-8")) from None
    lines = text.replace("\r\n", "\n").split("\n")
    header = [_cell(each) for each in lines[0].split("\t")]
    if missing := [column for column in columns if column not in header]:
        got = f"no column {', '.join(map(repr, missing))} among {', '.join(map(repr, header))}"
        raise DataError(Problem(f"{path}:1:1", got, f"the columns {', '.join(columns)}", "the official file"))
    for number, line in enumerate(lines[1:], start=2):
        if line.strip():
            cells = [_cell(each) for each in line.split("\t")]
            yield number, dict(zip(header, cells, strict=True)) if len(cells) == len(header) else None


def _cell(text: str) -> str:
    quoted = _QUOTED.fullmatch(text)
    return quoted[1].replace('""', '"') if quoted else text
