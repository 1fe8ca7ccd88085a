"""Sources to token files: which documents are on which side, and what their tokens are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tli import corpus
from tli.aside import new_folder
from tli.base import vocabulary_of
from tli.corpus import Document
from tli.errors import CheckpointError, DataError, Problem

if TYPE_CHECKING:
    from tli.base import Base
    from tli.data import DataSettings

_PLACES = {"train": "data.source", "heldout": "data.heldout"}


def build(settings: DataSettings, base: Base, folder: Path) -> None:
    """Write train.bin, heldout.bin (flat token ids) and manifest.json into a folder that becomes `folder`.

    Raises:
        DataError: a source cannot be read or is empty, or the same text is on both sides.
        CheckpointError: the base has no tokenizer, or one that is not the model's.
    """
    import numpy as np

    from tli.loading import load_tokenizer

    tokenizer = load_tokenizer(base.folder)
    known = vocabulary(base)
    end = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    dtype = np.dtype(np.uint16 if (known or len(tokenizer)) <= 2**16 else np.uint32)
    train, heldout = _two_sides(settings)
    with new_folder(folder) as aside:
        digest = hashlib.sha256()
        written = {}
        for side, docs in (("train", train), ("heldout", heldout)):
            size = _Counted()
            with (aside / f"{side}.bin").open("wb") as out:
                for ids in _token_lists(docs, tokenizer, size):
                    row = np.asarray([*ids, *end], dtype=np.int64)
                    if known is not None and row.max() >= known:
                        raise CheckpointError(foreign_tokenizer(base, int(row.max()), known))
                    content = row.astype(dtype).tobytes()
                    out.write(content)
                    digest.update(content)
                    size.tokens += len(row)
            written[side] = size
        empty = [_PLACES[side] for side, size in written.items() if size.tokens == 0]
        if empty:
            raise DataError(*(Problem(place, "no text", "text", "another source") for place in empty))
        manifest = {
            "settings": asdict(settings),
            "dtype": dtype.name,
            "digest": digest.hexdigest(),
            **{f"{side}_tokens": size.tokens for side, size in written.items()},
            "heldout_bytes": written["heldout"].bytes,
        }
        (aside / "manifest.json").write_text(json.dumps(manifest, indent=1, allow_nan=False))


def vocabulary(base: Base) -> int | None:
    """How many token ids the model knows; None for a base that has nothing but a tokenizer yet."""
    if not (base.folder / "config.json").is_file():
        return None
    known = vocabulary_of(base.config)
    return known if isinstance(known, int) else None


def foreign_tokenizer(base: Base, largest: int, known: int) -> Problem:
    """That a base's tokenizer gives the id `largest`, where the model's vocabulary has `known` ids."""
    return Problem(
        str(base.folder),
        f"a tokenizer that gives the id {largest}",
        f"ids below {known}, the model's vocabulary",
        "the tokenizer that the model was made with",
    )


def _two_sides(settings: DataSettings) -> tuple[Iterable[Document], Iterable[Document]]:
    fields = {"text_field": settings.text_field, "split": settings.split}

    def side(source: str, *, heldout: bool) -> Iterator[Document]:
        if source == corpus.STDLIB:
            return corpus.stdlib_documents(heldout=heldout)
        return corpus.documents(source, **fields)

    if settings.heldout is not None:
        train = list(side(settings.source, heldout=False))
        heldout = list(side(settings.heldout, heldout=True))
        _refuse_shared(train, heldout)
        return train, heldout
    if settings.source == corpus.STDLIB:
        return side(corpus.STDLIB, heldout=False), side(corpus.STDLIB, heldout=True)
    return _split(list(side(settings.source, heldout=False)), settings.heldout_fraction)


def _split(docs: list[Document], fraction: float) -> tuple[list[Document], list[Document]]:
    """Two sides without a document in common, the same ones whatever the order.

    Raises:
        DataError: many documents, all of the same text.
    """
    if len(docs) == 1:
        text = docs[0].text
        cut = len(text) - int(len(text) * fraction)
        return [Document(docs[0].name, text[:cut])], [Document(docs[0].name, text[cut:])]

    def draw(doc: Document) -> float:
        # By text, so that equal documents land on one side.
        return int.from_bytes(hashlib.sha256(doc.text.encode()).digest()[:8], "big") / 2**64

    ranked = sorted(map(draw, docs))
    below = [place for place in ranked if place < ranked[-1]]
    if docs and not below:
        got = f"{len(docs)} documents that are all the same"
        raise DataError(Problem("data.source", got, "documents that differ", "data.heldout: TEXT OF ITS OWN"))
    count = max(1, round(len(docs) * fraction))
    boundary = below[min(count, len(below)) - 1] if docs else 0.0
    return [d for d in docs if draw(d) > boundary], [d for d in docs if draw(d) <= boundary]


def _refuse_shared(train: list[Document], heldout: list[Document]) -> None:
    trained = {hashlib.sha256(doc.text.encode()).digest(): doc.name for doc in train}
    shared = [
        doc for doc in heldout if doc.text.strip() and hashlib.sha256(doc.text.encode()).digest() in trained
    ]
    if shared:
        name = trained[hashlib.sha256(shared[0].text.encode()).digest()]
        raise DataError(
            Problem(
                "data.heldout",
                f"{len(shared)} documents that are also trained on, first {shared[0].name!r} = {name!r}",
                "text of its own",
                "remove them from one side",
            )
        )


@dataclass
class _Counted:
    """What was written of one side: tokens, and UTF-8 bytes of its text."""

    tokens: int = 0
    bytes: int = 0


def _token_lists(docs: Iterable[Document], tokenizer: Any, size: _Counted) -> Iterator[list[int]]:
    """Token ids of each document that has any; counts the text's bytes."""
    for group in _groups(docs):
        yield from filter(None, _encode(tokenizer, [doc.text for doc in group]))
        size.bytes += sum(len(doc.text.encode()) for doc in group)


def _encode(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Token ids of each text, nothing added."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:
        return list(tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"])
    # The same ids without offsets and masks, which would be half of the time. A tokenizer that was saved with
    # a length to cut or fill to would do so.
    fast.no_truncation()
    fast.no_padding()
    fast.encode_special_tokens = getattr(tokenizer, "split_special_tokens", False)
    return [encoding.ids for encoding in fast.encode_batch_fast(texts, add_special_tokens=False)]


def _groups(docs: Iterable[Document], characters: int = 4_000_000) -> Iterator[list[Document]]:
    """Documents in groups of some millions of characters: enough to tokenise in parallel, little to hold."""
    group: list[Document] = []
    held = 0
    for doc in docs:
        group.append(doc)
        held += len(doc.text)
        if held >= characters:
            yield group
            group, held = [], 0
    if group:
        yield group
