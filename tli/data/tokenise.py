"""Makes token files from text sources in one stream of bounded memory."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from tli.checkpoint.atomic import new_folder
from tli.data.corpus import Document, extent
from tli.data.dataset import reason
from tli.data.encode import Encoded, Encoder, encoded, groups, processes
from tli.data.manifests import starts_file
from tli.data.sides import SIDES, Side
from tli.data.split import Stretch, stretches
from tli.data.starts import Starts
from tli.errors import CheckpointError, DataError, Problem
from tli.models.config_checks import vocabulary_of

if TYPE_CHECKING:
    from tli.data.settings import DataSettings
    from tli.models.base import Base

_PLACES: Mapping[Side, str] = {"train": "data.source", "heldout": "data.heldout", "test": "data.heldout"}
_OFTEN = 0.2  # seconds between two calls of `on_progress`


@dataclass(frozen=True)
class Progress:
    """How far the making of token files is: tokens written, and the share of the text read if it is known."""

    tokens: int
    share: float | None


OnProgress = Callable[[Progress], None]


def build(
    settings: DataSettings,
    base: Base,
    folder: Path,
    *,
    on_progress: OnProgress = lambda _progress: None,
    workers: int | None = None,
) -> None:
    """Write a file of flat token ids for each side and manifest.json into a folder that becomes `folder`.

    Args:
        settings: what text.
        base: whose tokenizer.
        folder: to be made.
        on_progress: called a few times a second; what it raises ends the work, and nothing is left of it.
        workers: processes that tokenise; None for as many as this process may use cores.

    Raises:
        DataError: a source cannot be read or is empty, or the same text is on both sides.
        CheckpointError: the base has no tokenizer, or one that is not the model's.
    """
    import numpy as np

    from tli.models.loading import load_tokenizer

    tokenizer = load_tokenizer(base.folder)
    known = vocabulary(base)
    dtype = np.dtype(np.uint16 if (known or len(tokenizer)) <= 2**16 else np.uint32)
    encoder = Encoder(tokenizer, base.folder, dtype.name)
    workers = processes() if workers is None else workers
    with new_folder(folder) as aside:
        with _Sides(aside, dtype.itemsize, settings) as sides:
            watch = _Watch(settings, sides, on_progress)
            for stretch in stretches(settings, watch.documents):
                with closing(encoded(groups(stretch.documents), encoder, workers)) as made:
                    for each in made:
                        if known is not None and each.largest >= known:
                            raise CheckpointError(foreign_tokenizer(base, each.largest, known))
                        sides.add(each)
                        watch.read(each.size)
                        if sides.enough(stretch):
                            break
            tokens = sides.tokens
            documents = sides.finish_starts()
        empty = dict.fromkeys(_PLACES[side] for side, count in tokens.items() if count == 0)
        if empty:
            raise DataError(*(Problem(place, "no text", "text", "another source") for place in empty))
        manifest = {
            "sources": [asdict(source) for source in settings.sources],
            "settings": asdict(settings),
            "dtype": dtype.name,
            "digest": _digest(aside),
            **{f"{side}_tokens": count for side, count in tokens.items()},
            "heldout_bytes": sides.heldout_bytes,
            **({"documents": documents} if documents else {}),
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


def _digest(folder: Path) -> str:
    """SHA-256 of all sides, the training side first."""
    digest = hashlib.sha256()
    for side in SIDES:
        with (folder / f"{side}.bin").open("rb") as file:
            while part := file.read(2**20):
                digest.update(part)
    return digest.hexdigest()


class _Sides:
    """The token files while they are written."""

    def __init__(self, folder: Path, width: int, settings: DataSettings) -> None:
        self._width, self._most = width, settings.max_tokens
        share = settings.heldout_fraction
        # Of all sides as much is read as would be read without the limit, in proportion.
        self._least_untrained = (self._most or 0) * share / (1 - share)
        self._files: dict[Side, BinaryIO] = {side: (folder / f"{side}.bin").open("wb") for side in SIDES}
        self._starts: dict[Side, Starts] = {}
        if settings.packing == "documents":
            self._starts = {side: Starts(folder / starts_file(side)) for side in SIDES}
        self.tokens = dict.fromkeys(SIDES, 0)
        self.heldout_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()
        for starts in self._starts.values():
            starts.close()

    def add(self, made: Encoded) -> None:
        """Write what was made; of the training side no more than is wanted."""
        for side, ids in made.ids.items():
            limited = side == "train" and self._most is not None
            left = max(0, (self._most or 0) - self.tokens["train"]) * self._width
            content = ids[:left] if limited else ids
            try:
                self._files[side].write(content)
            except OSError as error:
                raise DataError(Problem(self._files[side].name, reason(error), "room to write to")) from None
            if self._starts:
                cut = len(content) if len(content) < len(ids) else None
                places = (each for each in made.starts[side] if cut is None or each * self._width < cut)
                self._starts[side].add(self.tokens[side] + each for each in places)
            self.tokens[side] += len(content) // self._width
        self.heldout_bytes += made.heldout_bytes

    def finish_starts(self) -> dict[Side, int]:
        """How many documents each side has, where that is wanted; what starts at its end is none."""
        return {side: starts.finish(self.tokens[side]) for side, starts in self._starts.items()}

    def enough(self, stretch: Stretch) -> bool:
        """Whether the rest of a stretch need not be read: the training side is full."""
        if self._most is None or self.tokens["train"] < self._most:
            return False
        if stretch.trained is None:
            untrained = self.tokens["heldout"], self.tokens["test"]
            return min(untrained) >= 1 and sum(untrained) >= self._least_untrained
        return stretch.trained


class _Watch:
    """Says how far the work is, a few times a second."""

    def __init__(self, settings: DataSettings, sides: _Sides, on_progress: OnProgress) -> None:
        self._all = sum(extent(source) for source in settings.sources)
        self._most, self._sides, self._on_progress = settings.max_tokens, sides, on_progress
        self._read, self._next = 0.0, 0.0

    def documents(self, found: Iterator[Document]) -> Iterator[Document]:
        """Documents, watched while they are read."""
        for each in found:
            self._tick()
            yield each

    def read(self, size: float) -> None:
        """So much more of the text is done."""
        self._read += size
        self._tick()

    def _tick(self) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _OFTEN
        tokens = self._sides.tokens
        shares = [min(1.0, self._read / self._all)] if self._all else []
        if self._most is not None:
            shares.append(min(1.0, tokens["train"] / self._most))
        self._on_progress(Progress(sum(tokens.values()), max(shares, default=None)))
