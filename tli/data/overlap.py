"""Whether text that losses are measured on is trained on under another name, by the token files alone."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tli.data.portions import Portion
from tli.errors import Problem

if TYPE_CHECKING:
    from tli.data.batches import Tokens

_PROBES = 8  # passages of a held-out side that are looked for
_PASSAGE = 64  # tokens; licences and other set phrases are as long, so half of the passages have to be found
_SEARCHED = 2**28  # bytes of a training side, from its beginning


def overlaps(portions: Sequence[Portion], tokens: Mapping[str, Tokens]) -> Iterator[Problem]:
    """Texts that are the same as another one, or whose held-out text another one trains on.

    Args:
        portions: the texts.
        tokens: token files by name, of those that could be opened.
    """
    known: dict[str, Portion] = {}
    for each in (portion for portion in portions if portion.name in tokens):
        other = known.setdefault(tokens[each.name].digest, each)
        if other is not each:
            yield _problem(each, f"the same text as {other.name!r} ({other.where})")
            continue
        for trained in portions:
            if trained is not each and trained.trained and trained.name in tokens:
                found, asked = _found(tokens[each.name], tokens[trained.name])
                if asked and 2 * found >= asked:
                    yield _problem(each, f"held-out text that {trained.name!r} ({trained.where}) trains on")
                    break


def _problem(portion: Portion, got: str) -> Problem:
    remedy = "other text, or deleting one of the two"
    return Problem(f"{portion.where}.source", got, "text of its own", remedy)


def _found(held: Tokens, trained: Tokens) -> tuple[int, int]:
    """Passages of a held-out side that stand in a training side, and how many were looked for."""
    ids, width = held.heldout, held.heldout.dtype.itemsize
    if len(ids) < _PASSAGE or ids.dtype != trained.train.dtype:
        return 0, 0
    places = {(len(ids) - _PASSAGE) * probe // (_PROBES - 1) for probe in range(_PROBES)}
    passages = [ids[place : place + _PASSAGE].tobytes() for place in sorted(places)]
    file = trained.folder / "train.bin"
    return sum(_stands_in(passage, file, width) for passage in passages), len(passages)


def _stands_in(passage: bytes, file: Path, width: int) -> bool:
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        place = content.find(passage, 0, _SEARCHED)
        while place >= 0 and place % width:  # between two tokens
            place = content.find(passage, place + 1, _SEARCHED)
        return place >= 0
