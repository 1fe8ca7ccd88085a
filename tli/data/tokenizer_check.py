"""Checks that the tokenizer beside a base is the base's own, on the beginning of the text."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tli.data import corpus
from tli.data.dataset import Source
from tli.data.tokenise import foreign_tokenizer, vocabulary
from tli.errors import DataError, Problem
from tli.models.base import Base

if TYPE_CHECKING:
    from tli.data.settings import DataSettings

_FILE, _SETTINGS = "tokenizer.json", "tokenizer_config.json"
_CHARACTERS = 2**16  # of each source


def tokenizer_problems(base: Base, settings: DataSettings) -> list[Problem]:
    """What stands against a base's tokenizer: that it cannot be read, or gives ids that the model has not.

    Tries a tokenizer in one file, `tokenizer.json`, on the beginning of sources that are files or built in;
    of others the same is found when all of the text is tokenised. Needs neither torch nor transformers.
    """
    path, known = base.folder / _FILE, vocabulary(base)
    if known is None or not path.is_file():
        return []
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001 - the library raises bare exceptions
        reason = " ".join(str(error).split())[:120]
        return [Problem(str(path), f"no tokenizer ({reason})", "the tokenizer of the model", "another copy")]
    tokenizer.no_truncation()
    tokenizer.no_padding()
    ids = [_largest(tokenizer, text) for text in _beginnings(settings)]
    largest = max([*ids, _end(base, tokenizer)])
    return [foreign_tokenizer(base, largest, known)] if largest >= known else []


def _largest(tokenizer: Any, text: str) -> int:
    """The largest token id of a text; -1 where it has none."""
    return max(tokenizer.encode(text, add_special_tokens=False).ids, default=-1)


def _end(base: Base, tokenizer: Any) -> int:
    """The id that ends a text, which is put behind each document; -1 where there is none."""
    try:
        told = json.loads((base.folder / _SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return -1
    end = told.get("eos_token") if isinstance(told, dict) else None
    text = end.get("content") if isinstance(end, dict) else end
    found = tokenizer.token_to_id(text) if isinstance(text, str) else None
    return -1 if found is None else int(found)


def _beginnings(settings: DataSettings) -> Iterator[str]:
    for source in settings.sources:
        if source.name == corpus.STDLIB:
            yield from (_start(next(corpus.stdlib_documents(heldout=side))) for side in (False, True))
        else:
            yield from (_beginning(path, source) for path in corpus.matching_files(source.name)[:1])


def _start(document: corpus.Document) -> str:
    return next(document.chunks(), "")[:_CHARACTERS]


def _beginning(path: Path, source: Source) -> str:
    """The first text of a file; nothing of one that cannot be read, which other checks name."""
    if path.suffix in (".jsonl", ".parquet"):
        try:
            row = next(corpus.documents(replace(source, name=glob.escape(str(path)))), None)
        except DataError:
            return ""
        return _start(row) if row is not None else ""
    try:
        with path.open("rb") as file:
            return file.read(_CHARACTERS).decode(errors="ignore")
    except OSError:
        return ""
