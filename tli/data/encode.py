"""Encodes text to token ids, in this process or in several.

What comes out is the same with any number of processes, in the order of what went in.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tli.data.corpus import Document
from tli.data.sides import SIDES, Side

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LONGEST = 1_000_000  # characters that are tokenised as one; longer documents are cut between two words
_GROUP = 900_000  # characters, or a little more, that travel to a process together: no two long pieces
_ALONE = 12  # groups that are made here before other processes are started: they take a second to start
_WAITING = 2  # groups a process that are read ahead
_TAIL = 4096  # characters in which a place to cut is looked for
_BETWEEN_WORDS = re.compile(r"(?<=[^\W\d_]) (?=[^\W\d_])")


@dataclass(frozen=True)
class Piece:
    """Text that is tokenised by itself: a document, or a part of a long one.

    Attributes:
        side: that it is on.
        text: of at most `LONGEST` characters.
        first: whether its document begins with it.
        last: whether its document ends with it.
        size: as that of `Document`.
    """

    side: Side
    text: str
    first: bool = True
    last: bool = True
    size: float = 0.0


@dataclass(frozen=True)
class Encoded:
    """Token ids of some pieces: of each side as bytes, ready to be appended to its file.

    Attributes:
        ids: of each side, little-endian ids of the encoder's width.
        largest: the largest id.
        starts: of each side, the places in `ids` at which documents start.
        heldout_bytes: UTF-8 bytes of the held-out text.
        size: the pieces' together.
    """

    ids: Mapping[Side, bytes]
    starts: Mapping[Side, list[int]]
    largest: int
    heldout_bytes: int
    size: float


class Encoder:
    """Makes ids of pieces, with an end-of-text id behind each document; can be sent to another process."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, folder: Path, dtype: str) -> None:
        """Take over what decides which ids a text has.

        Args:
            tokenizer: of `folder`.
            folder: of the base; another process loads a tokenizer from it that is not a fast one.
            dtype: of the ids, as numpy names it.
        """
        self._folder, self._dtype = folder, dtype
        self._end = tokenizer.eos_token_id
        self._split_special = bool(getattr(tokenizer, "split_special_tokens", False))
        fast = getattr(tokenizer, "backend_tokenizer", None)
        self._fast_json: str | None = None if fast is None else fast.to_str()
        self._loaded: Any = tokenizer if fast is None else self._set_up(fast)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}

    def _set_up(self, fast: Any) -> Any:
        # A tokenizer that was saved with a length to cut or fill to would do so.
        fast.no_truncation()
        fast.no_padding()
        fast.encode_special_tokens = self._split_special
        return fast

    def _tokenizer(self) -> Any:
        if self._loaded is None and self._fast_json is not None:
            from tokenizers import Tokenizer  # alone: transformers would take seconds and 300 MB a process

            self._loaded = self._set_up(Tokenizer.from_str(self._fast_json))
        elif self._loaded is None:
            from tli.models.loading import load_tokenizer

            self._loaded = load_tokenizer(self._folder)
        return self._loaded

    def ids(self, texts: list[str], *, threads: bool = True) -> list[list[int]]:
        """Token ids of each text, nothing added; with `threads`, several texts at once on all cores."""
        tokenizer = self._tokenizer()
        if self._fast_json is None:
            return list(tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"])
        # The same ids without offsets and masks, which would be half of the time.
        batches = [texts] if threads else [[text] for text in texts]
        return [
            encoding.ids
            for batch in batches
            for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        ]

    def __call__(self, pieces: list[Piece], *, threads: bool = True) -> Encoded:
        """The ids of pieces; a document without any gets no end of text either."""
        import numpy as np

        made: dict[Side, bytearray] = {side: bytearray() for side in SIDES}
        starts: dict[Side, list[int]] = {side: [] for side in SIDES}
        width = np.dtype(self._dtype).itemsize
        largest, size, heldout_bytes = -1, 0.0, 0
        texts = [piece.text for piece in pieces]
        for piece, ids in zip(pieces, self.ids(texts, threads=threads), strict=True):
            if self._end is not None and piece.last and (ids or not piece.first):
                ids.append(self._end)
            if piece.first:
                starts[piece.side].append(len(made[piece.side]) // width)
            if ids:
                row = np.asarray(ids, dtype=np.int64)
                largest = max(largest, int(row.max()))
                made[piece.side] += row.astype(self._dtype).tobytes()
            size += piece.size
            heldout_bytes += len(piece.text.encode()) if piece.side == "heldout" else 0
        whole = {side: bytes(content) for side, content in made.items()}
        return Encoded(whole, starts, largest, heldout_bytes, size)


def groups(documents: Iterable[tuple[Side, Document]]) -> Iterator[list[Piece]]:
    """Documents, each with its side, as pieces in groups of about a million characters."""
    group: list[Piece] = []
    held = 0
    for side, document in documents:
        for piece in _pieces(side, document):
            group.append(piece)
            held += len(piece.text)
            if held >= _GROUP:
                yield group
                group, held = [], 0
    if group:
        yield group


def _pieces(side: Side, document: Document) -> Iterator[Piece]:
    """A document, or the parts of a long one; where it is cut depends on its text alone."""
    held, first = "", True
    for chunk in document.chunks():
        held += chunk
        while len(held) > LONGEST:
            cut = _cut(held)
            part, held = held[:cut], held[cut:]
            yield Piece(side, part, first=first, last=False, size=_share(document, part))
            first = False
    yield Piece(side, held, first=first, size=document.size if first else _share(document, held))


def _share(document: Document, part: str) -> float:
    """Of a document's size: bytes of a file, of which all parts together are the whole."""
    return float(len(part.encode())) if document.path else document.size * len(part) / len(document.text)


def _cut(text: str) -> int:
    """Where a piece ends: before a space between two letters, where tokenizers begin a new word anyway."""
    start = LONGEST - _TAIL
    places = [match.start() for match in _BETWEEN_WORDS.finditer(text, start, LONGEST + 1)]
    if places:
        return places[-1]
    return text.rfind("\n", start, LONGEST) + 1 or LONGEST


def processes() -> int:
    """How many processes may work at once: one for each core that this process may use."""
    if multiprocessing.current_process().daemon:  # which may have no children
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def encoded(pieces: Iterable[list[Piece]], encoder: Encoder, workers: int) -> Generator[Encoded, None, None]:
    """The ids of each group, in the order of the groups.

    Args:
        pieces: groups of them, read only a little ahead.
        encoder: of this process; the others get a copy.
        workers: how many processes are started once there is enough to do.
    """
    groups_left = iter(pieces)
    yield from map(encoder, islice(groups_left, _ALONE))
    more = next(groups_left, None)
    if more is None:
        return
    if workers < 2:
        yield from map(encoder, chain([more], groups_left))
        return
    # Spawned, not forked: tokenizers and whatever else this process runs have threads that hold locks.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_start, initargs=(encoder,))
    waiting: deque[tuple[list[Piece], Future[Encoded] | None]] = deque()
    try:
        for group in chain([more], groups_left):
            waiting.append((group, _submitted(pool, group)))
            if len(waiting) > _WAITING * workers:
                yield _result(*waiting.popleft(), encoder)
        while waiting:
            yield _result(*waiting.popleft(), encoder)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _submitted(pool: ProcessPoolExecutor, group: list[Piece]) -> Future[Encoded] | None:
    try:
        return pool.submit(_work, group)
    except BrokenProcessPool:
        return None


def _result(group: list[Piece], future: Future[Encoded] | None, encoder: Encoder) -> Encoded:
    """What a worker made of a group; made here where workers die, as they do below a script whose top level
    is not guarded by `if __name__ == "__main__"`.
    """
    try:
        return encoder(group) if future is None else future.result()
    except BrokenProcessPool:
        return encoder(group)


_of_this_process: list[Encoder] = []  # of a worker: the one it was started with


def _start(encoder: Encoder) -> None:
    """Set a worker up: it is stopped by its parent alone, and goes when that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def go_with_it() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=go_with_it, daemon=True).start()
    _of_this_process.append(encoder)


def _work(group: list[Piece]) -> Encoded:
    return _of_this_process[0](group, threads=False)
