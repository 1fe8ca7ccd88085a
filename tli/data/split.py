"""The split into training, held-out and test documents, decided document by document in a stream.

What is chosen on held-out text is claimed on test text, which is as large and shares no document with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from tli.data import corpus
from tli.data.corpus import Document
from tli.data.dataset import Source
from tli.data.sides import Side
from tli.errors import DataError, Problem

if TYPE_CHECKING:
    import numpy as np

    from tli.data.settings import DataSettings

MOST = 100_000  # different texts of which an exact share is held out; of more, each by its own hash
_DIGEST = 16  # bytes that tell a held-out document from those that are trained on
_NAMED = 1000  # shared documents whose names are kept for the message

Documents = Callable[[], Iterable[Document]]  # each call reads them anew
Watched = Callable[[Iterator[Document]], Iterator[Document]]


@dataclass(frozen=True)
class Stretch:
    """Documents to be tokenised in this order, each with its side.

    `trained`: whether all of them are trained on, or none; None where all sides come from one source.
    """

    documents: Iterator[tuple[Side, Document]]
    trained: bool | None


def stretches(settings: DataSettings, watched: Watched = iter, *, compare: bool = True) -> list[Stretch]:
    """The text of all sides, in the order in which it is read.

    Args:
        settings: what text.
        watched: wraps every reading of a source.
        compare: refuse documents that are on both sides, which reads held-out text of its own once more.

    Raises:
        DataError: now or while it is read: a source cannot be read, holds nothing but one text many times, or
            the same text is on both sides.
    """
    source, heldout = settings.train_source, settings.heldout_source

    def read(source: Source, *, side: bool) -> Iterator[Document]:
        if source.name == corpus.STDLIB:
            return watched(corpus.stdlib_documents(heldout=side))
        return watched(corpus.documents(source))

    if heldout is None and source.name != corpus.STDLIB:
        documents = partial(read, source, side=False)
        return [Stretch(three_sides(documents, settings.heldout_fraction), None)]
    trained, held = read(source, side=False), partial(read, heldout or source, side=True)
    if heldout is not None and compare:
        trained = _apart(trained, held)
    return [
        Stretch((("train", document) for document in trained), trained=True),
        Stretch(_halves(held), trained=False),
    ]


def three_sides(documents: Documents, fraction: float) -> Iterator[tuple[Side, Document]]:
    """All documents in their order, each with its side.

    No text is on two sides, and which side it is on does not depend on the order of documents. The smallest
    hashes are not trained on: as many as make up the share, and two at least, where there are at most `MOST`
    different texts; of more, those below the share. The smaller half of these is test text. The documents, or
    the first of them, are read twice: first for their hashes.

    Args:
        documents: reads them; of one single document the end is held out, and the end of that is test text.
        fraction: the share that is held out or test text.

    Raises:
        DataError: many documents, all of the same text.
    """
    draws = _draws(documents())
    if draws is not None and draws.total() == 1:
        (document,) = documents()
        length = sum(map(len, document.chunks()))
        cut = length - max(min(2, length - 1), int(length * fraction))
        yield "train", replace(document, stop=cut)
        yield from _half(replace(document, start=cut, size=0.0), 0.0, None)
        return
    boundary = _boundary(draws, fraction, least=2)  # one held out, one of test text
    if draws is not None:
        draws = Counter({draw: count for draw, count in draws.items() if draw <= boundary})
    middle = _middle(draws, boundary)
    for document in documents():
        draw = _draw(document)
        if draw > boundary:
            yield "train", document
        else:
            yield from _half(document, draw, middle)


def _halves(documents: Documents) -> Iterator[tuple[Side, Document]]:
    """Text that is not trained on: half of its documents held out, half of them test text."""
    middle = _middle(_draws(documents()), 1.0)
    for document in documents():
        yield from _half(document, _draw(document), middle)


def _middle(draws: Counter[float] | None, largest: float) -> float | None:
    """The largest number of the test side; None for a single text, which is cut in two.

    Args:
        draws: of all documents that are not trained on; None where there are more than `MOST`.
        largest: that they may have drawn.
    """
    if draws is None:
        return largest / 2
    return _boundary(draws, 0.5) if len(draws) > 1 else None


def _half(document: Document, draw: float, middle: float | None) -> Iterator[tuple[Side, Document]]:
    """A document that is not trained on, on its side or cut in two."""
    if middle is not None:
        yield ("test" if draw <= middle else "heldout"), document
        return
    cut = document.start + sum(map(len, document.chunks())) // 2
    yield "heldout", replace(document, stop=cut)
    yield "test", replace(document, start=cut, size=0.0)


def always_trained(source: Source) -> Iterator[Document]:
    """Documents that no split of a source by a share of up to one half holds out, in their order.

    What is measured on them says nothing of held-out text, and is the same whatever the share is.
    """
    if source.name == corpus.STDLIB:
        yield from corpus.stdlib_documents(heldout=False)
        return
    draws = _draws(corpus.documents(source))
    if draws is not None and len(draws) == 1 < draws.total():
        yield from corpus.documents(source)  # cannot be split at all
        return
    for side, document in three_sides(lambda: corpus.documents(source), 0.5):
        if side == "train":
            yield document


def _draw(document: Document) -> float:
    """A number from 0 to 1 by text, so that equal documents land on one side."""
    return int.from_bytes(document.digest()[:8], "big") / 2**64


def _draws(documents: Iterable[Document]) -> Counter[float] | None:
    """How often each number was drawn; None where there are more than `MOST` different ones."""
    drawn: Counter[float] = Counter()
    for document in documents:
        drawn[_draw(document)] += 1
        if len(drawn) > MOST:
            return None
    return drawn


def _boundary(draws: Counter[float] | None, fraction: float, least: int = 1) -> float:
    """The largest number of the smallest ones that make up a share, or `least` where there are more texts."""
    if draws is None:
        return fraction
    if not draws:
        return 0.0
    ranked = sorted(draws)
    if len(ranked) == 1:
        got = f"{draws.total()} documents that are all the same"
        raise DataError(Problem("data.source", got, "documents that differ", "data.heldout: TEXT OF ITS OWN"))
    left = max(least if len(ranked) > least else 1, round(draws.total() * fraction))
    for draw in ranked[:-1]:
        left -= draws[draw]
        if left <= 0:
            return draw
    return ranked[-2]  # one text must be left to train on


def _apart(train: Iterable[Document], heldout: Documents) -> Iterator[Document]:
    """The training documents, refused at the first that is held out, too."""
    import numpy as np

    digests = bytearray()
    for document in heldout():
        digests += document.digest()[:_DIGEST]
    known = np.unique(np.frombuffer(bytes(digests), f"S{_DIGEST}")) if digests else np.empty(0, f"S{_DIGEST}")
    documents = iter(train)
    for document in documents:
        if _place(document, known) is not None:
            raise DataError(_shared(chain([document], documents), heldout, known))
        yield document


def _place(document: Document, known: np.ndarray) -> int | None:
    """Where its digest is in a sorted array of them, if it is there."""
    digest = document.digest()[:_DIGEST].rstrip(b"\0")  # as numpy gives them back
    place = int(known.searchsorted(digest))
    return place if place < len(known) and known[place] == digest else None


def _shared(train: Iterable[Document], heldout: Documents, known: np.ndarray) -> Problem:
    """How many held-out documents are trained on, too; reads the rest of both sides for that."""
    trained: dict[int, str] = {}
    for document in train:
        place = _place(document, known)
        if place is not None:
            trained[place] = document.name if len(trained) < _NAMED else trained.get(place, "")
    count, example = 0, ""
    for document in heldout():
        place = _place(document, known)
        if place in trained:
            count += 1
            example = example or f"{document.name!r} = {trained[place] or 'one of them'!r}"
    return Problem(
        "data.heldout",
        f"{count:,} documents that are also trained on, first {example}",
        "text of its own",
        "remove them from one side",
    )
