"""Token counts of a text: exact where that is quick, else estimated from its beginning."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tli.data import corpus
from tli.data.dataset import Source
from tli.data.encode import groups
from tli.data.sides import SIDES, Side
from tli.data.split import stretches
from tli.errors import InputError
from tli.models.base import Base

if TYPE_CHECKING:
    from tli.data.settings import DataSettings

_COUNTED = 512 * 1024  # bytes of text that are tokenised whole: a fraction of a second
_SAMPLE = 128 * 1024  # characters of a larger one
_CONFIGURATION = ("tokenizer_config.json", "special_tokens_map.json")


@dataclass(frozen=True)
class Amounts:
    """Tokens of each side; `counted`: exactly, as they will be in the token files."""

    train: int
    heldout: int
    test: int
    counted: bool


def amounts(settings: DataSettings, base: Base) -> Amounts | None:
    """How many tokens the token files of these settings will have; loads neither torch nor transformers.

    None where that cannot be said without a download or a slow tokenizer, and for text that cannot be read.
    """
    source, heldout = settings.train_source, settings.heldout_source
    try:
        sizes = [_bytes(each, heldout=each is heldout) for each in settings.sources]
        if None in sizes or not (base.folder / "tokenizer.json").is_file():
            return None
        tokenizer = _Tokenizer(base.folder)
        total = sum(size for size in sizes if size)
        if total <= _COUNTED and corpus.STDLIB not in (source.name, settings.heldout):
            return _counted(settings, tokenizer)
        train = (sizes[0] or 0) * tokenizer.rate(source)
        if heldout is not None:
            return _capped(settings, train, (sizes[1] or 0) * tokenizer.rate(heldout))
        if source.name == corpus.STDLIB:
            return _capped(settings, train, corpus.stdlib_size(heldout=True) * tokenizer.rate(source))
        share = settings.heldout_fraction
        return _capped(settings, train * (1 - share), train * share, mixed=True)
    except (OSError, InputError):
        return None  # told where it is read


def _bytes(source: Source, *, heldout: bool) -> float | None:
    """Bytes of a source's files; None for datasets, which would be downloaded or opened first."""
    if source.name == corpus.STDLIB:
        return corpus.stdlib_size(heldout=heldout)
    return corpus.extent(source) if corpus.matching_files(source.name) else None


def _counted(settings: DataSettings, tokenizer: _Tokenizer) -> Amounts:
    tokens: dict[Side, int] = dict.fromkeys(SIDES, 0)
    for stretch in stretches(settings, compare=False):
        for group in groups(stretch.documents):
            counts = tokenizer.counts([piece.text for piece in group])
            for piece, count in zip(group, counts, strict=True):
                ends = tokenizer.ends and piece.last and (count or not piece.first)
                tokens[piece.side] += count + bool(ends)
    train = min(tokens["train"], settings.max_tokens or tokens["train"])
    return Amounts(train, tokens["heldout"], tokens["test"], counted=True)


def _capped(settings: DataSettings, train: float, untrained: float, *, mixed: bool = False) -> Amounts:
    """Estimates, with as much left out as `max_tokens` leaves unread."""
    read = min(1.0, settings.max_tokens / train) if settings.max_tokens and train else 1.0
    half = round(untrained * (read if mixed else 1.0) / 2)
    return Amounts(round(train * read), half, half, counted=False)


class _Tokenizer:
    """The tokenizer of a folder by its tokenizer.json alone."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        try:
            self._fast = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # noqa: BLE001 - the library raises bare Exceptions
            raise OSError(str(error)) from None
        self._fast.no_truncation()
        self._fast.no_padding()
        self.ends = any(_setting(folder / name, "eos_token") for name in _CONFIGURATION)

    def counts(self, texts: list[str]) -> list[int]:
        """How many tokens each text has."""
        return [len(each) for each in self._fast.encode_batch_fast(texts, add_special_tokens=False)]

    def rate(self, source: Source) -> float:
        """Tokens for each byte of a source, at its beginning."""
        built_in = source.name == corpus.STDLIB
        found = corpus.stdlib_documents(heldout=False) if built_in else corpus.documents(source)
        tokens, size = 0, 0.0
        for document in found:
            text = next(document.chunks())
            part = text[:_SAMPLE]
            tokens += self.counts([part])[0] + self.ends
            size += len(part.encode()) if document.path else document.size * len(part) / len(text)
            if size >= _SAMPLE:
                break
        return tokens / size if size else 0.0


def _setting(path: Path, name: str) -> Any:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content.get(name) if isinstance(content, dict) else None
