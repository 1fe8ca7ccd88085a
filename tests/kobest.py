"""Tiny files of KoBEST's official shape, made up; and where the real ones are, for tests that have them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_FOLDERS = {
    "BoolQ": ("ID\tText\tQuestion\tAnswer", lambda n: f"{n}\t글 {n}.\t질문 {n}?\t{('False', 'TRUE')[n % 2]}"),
    "COPA": (
        "ID\tsentence\tquestion\t1\t2\tAnswer",
        lambda n: f"{n}\t비 {n}.\t{('결과', '원인')[n % 2]}\t젖 {n}.\t마름.\t{1 + n % 2}",
    ),
    "HellaSwag": (
        "context\tchoice1\tchoice2\tchoice3\tchoice4\tlabel",
        lambda n: f"글 {n}.\t가 {n}.\t나.\t다.\t라.\t{n % 4}",
    ),
    "SentiNeg": ("ID\tText\tLabel", lambda n: f"{n}\t글 {n}\t{n % 2}"),
    "WiC": (
        "ID\tTarget\tSENTENCE1\tSENTENCE2\tANSWER",
        lambda n: f"{n}\t철\t[철] {n}.\t[철] 둘.\t{('False', 'True')[n % 2]}",
    ),
}


def write_kobest(root: Path, *, test: int, train: int) -> Path:
    """The five tasks with so many documents and examples."""
    for folder, (header, row) in _FOLDERS.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name, count in (("train", train), ("dev", train), ("test", test)):
            lines = [header, *(row(number) for number in range(count))]
            (root / folder / f"{name}.tsv").write_text("\r\n".join(lines) + "\r\n", encoding="utf-8")
    return root


def real_kobest() -> Path:
    """The folder of the official files, which KOBEST names; the test is skipped without it."""
    folder = os.environ.get("KOBEST")
    if not folder or not Path(folder, "COPA", "test.tsv").is_file():
        pytest.skip("KOBEST does not name the folder of KoBEST's official files")
    return Path(folder)
