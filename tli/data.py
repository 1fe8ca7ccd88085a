"""Text to tokens once, then seeded batches that are the same for every trial.

Both sides of the split are kept as flat token files. A batch is a pure function of (seed, step), so resuming
needs no state and two trials that name the same seed see the same text in the same order.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tli import corpus
from tli.aside import new_folder
from tli.corpus import Document
from tli.errors import CheckpointError, DataError, Problem

if TYPE_CHECKING:
    import numpy as np

    from tli.base import Base


@dataclass(frozen=True)
class DataSettings:
    """What text is trained on and what is held out.

    Without `heldout`, a fixed share of the documents is held out, chosen by a hash of their text; a source
    of one single document is cut, and its end is held out.
    """

    source: str = corpus.STDLIB
    heldout: str | None = None
    heldout_fraction: float = 0.05
    text_field: str = "text"
    split: str = "train"
    sequence_length: int = 128
    eval_tokens: int = 16_384


def source_problems(settings: DataSettings, where: str = "data") -> list[Problem]:
    """What is wrong with the sources, as far as names and sizes tell; nothing is read."""
    problems = []
    for field in ("source", "heldout"):
        source = getattr(settings, field)
        if source is None or source == corpus.STDLIB:
            continue
        place = f"{where}.{field}"
        if source.startswith("builtin:"):
            problems.append(Problem(place, repr(source), f"a built-in text: {corpus.STDLIB}", corpus.STDLIB))
            continue
        files = corpus.matching_files(source)
        if not files and corpus.names_files(source):
            problems.append(
                Problem(place, f"{source!r}, which matches no file", "files that exist", f"ls {source}")
            )
        problems += [
            Problem(place, f"{str(file)!r}", f"one of {', '.join(corpus.SUFFIXES)}", "convert it to jsonl")
            for file in files
            if file.suffix not in corpus.SUFFIXES
        ]
        if files and all(_is_blank(file) for file in files):
            problems.append(Problem(place, f"{source!r}, which is empty", "text", "another file"))
    problems += _overlap(settings, where)
    return problems


def _is_blank(path: Path) -> bool:
    """Whether a file holds nothing but white space; only small ones are looked into."""
    size = path.stat().st_size
    return size == 0 or (size < 65_536 and not path.read_bytes().strip())


def _overlap(settings: DataSettings, where: str) -> list[Problem]:
    if settings.heldout is None or corpus.STDLIB in (settings.source, settings.heldout):
        return []
    shared = {path.resolve() for path in corpus.matching_files(settings.source)}
    shared &= {path.resolve() for path in corpus.matching_files(settings.heldout)}
    return [
        Problem(
            f"{where}.heldout", f"{str(path)!r}, which is also trained on", "text of its own", "another file"
        )
        for path in sorted(shared)
    ]


_FORMAT = b"tokens 2"  # of the token files; another one makes them anew


class Tokens:
    """The token files of one source under one tokenizer, opened for reading.

    Attributes:
        train: token ids of the training side, shape [tokens].
        heldout: token ids of the held-out side, shape [tokens].
        bytes_per_token: UTF-8 bytes of a held-out token on average, for bits per byte.
        digest: SHA-256 of both sides, in hex: the same text under the same tokenizer, wherever it lies.
    """

    def __init__(self, folder: Path) -> None:
        import numpy as np

        self.folder = folder
        manifest = json.loads((folder / "manifest.json").read_text())
        dtype = np.dtype(manifest["dtype"])
        self.train: np.ndarray = np.memmap(folder / "train.bin", dtype=dtype, mode="r")
        self.heldout: np.ndarray = np.memmap(folder / "heldout.bin", dtype=dtype, mode="r")
        self.bytes_per_token: float = manifest["heldout_bytes"] / max(1, len(self.heldout))
        self.digest: str = manifest["digest"]

    def batches(self, *, sequence_length: int, batch_tokens: int, seed: int) -> Batches:
        """Training batches of `batch_tokens` predicted tokens each.

        Raises:
            DataError: the training side is shorter than one batch.
        """
        return Batches(self.train, sequence_length, batch_tokens // sequence_length, seed)

    def heldout_windows(self, *, sequence_length: int, eval_tokens: int) -> np.ndarray:
        """Windows spread evenly over the held-out side, shape [windows, sequence_length + 1].

        Raises:
            DataError: the held-out side is shorter than one window.
        """
        import numpy as np

        available = (len(self.heldout) - 1) // sequence_length
        if available < 1:
            raise DataError(_too_short("data.heldout", len(self.heldout), sequence_length + 1))
        count = min(max(1, eval_tokens // sequence_length), available)
        starts = np.linspace(0, available - 1, count).astype(np.int64) * sequence_length
        return np.stack([self.heldout[s : s + sequence_length + 1] for s in starts]).astype(np.int64)


class Batches:
    """Batches by step: every window once an epoch, in an order drawn from (seed, epoch)."""

    def __init__(self, tokens: np.ndarray, sequence_length: int, rows: int, seed: int) -> None:
        self._tokens = tokens
        self._windows = (len(tokens) - 1) // sequence_length
        self.sequence_length = sequence_length
        self.rows = rows
        self.seed = seed
        if self._windows < rows:
            raise DataError(_too_short("data.source", len(tokens), rows * sequence_length + 1))
        self._order = lru_cache(maxsize=2)(self._draw_order)

    def _draw_order(self, epoch: int) -> np.ndarray:
        import numpy as np

        return np.random.default_rng([self.seed, epoch]).permutation(self._windows)

    def __getitem__(self, step: int) -> np.ndarray:
        """The batch of one step (counted from 0), shape [rows, sequence_length + 1]."""
        import numpy as np

        places = range(step * self.rows, (step + 1) * self.rows)
        starts = [
            int(self._order(p // self._windows)[p % self._windows]) * self.sequence_length for p in places
        ]
        return np.stack([self._tokens[s : s + self.sequence_length + 1] for s in starts]).astype(np.int64)


def tokens_ready(settings: DataSettings, base: Base, cache: Path) -> bool:
    """Whether the token files of these settings are in the cache already."""
    return (cache / _cache_key(settings, base) / "manifest.json").is_file()


def open_tokens(settings: DataSettings, base: Base, cache: Path) -> Tokens:
    """The token files for these settings and this base's tokenizer, made now if they are not in the cache.

    The cache key covers the sources' content (by size and time for files), the split and the tokenizer.

    Raises:
        DataError: a source is missing, empty, unreadable, or the same text is on both sides.
    """
    folder = cache / _cache_key(settings, base)
    if not (folder / "manifest.json").is_file():
        problems = source_problems(settings)
        if problems:
            raise DataError(*problems)
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / ".lock").open("w") as lock:
            # Workers that start together wait for the one that builds, with all cores, and then share.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / "manifest.json").is_file():
                _build(settings, base, folder)
    return Tokens(folder)


def _cache_key(settings: DataSettings, base: Base) -> str:
    digest = hashlib.sha256(_FORMAT)
    what = asdict(settings)
    for batching in ("sequence_length", "eval_tokens"):
        del what[batching]
    digest.update(json.dumps(what, sort_keys=True).encode())
    for source in (settings.source, settings.heldout):
        if source == corpus.STDLIB:
            import sys

            digest.update(sys.version.encode())
        elif source is not None:
            for path in corpus.matching_files(source) or _files_below(source):
                status = path.stat()
                digest.update(f"{path.resolve()} {status.st_size} {status.st_mtime_ns}".encode())
    for name in ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "tokenizer_config.json"):
        path = base.folder / name
        if path.is_file():
            digest.update(name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _files_below(source: str) -> list[Path]:
    """Every file of a folder that a source names, such as a dataset that was saved there."""
    folder = Path(source).expanduser()
    return sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []


def _build(settings: DataSettings, base: Base, folder: Path) -> None:
    import numpy as np

    from tli.loading import load_tokenizer

    try:
        tokenizer = load_tokenizer(base.folder)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:120]
        got = f"no tokenizer that can be loaded ({reason})"
        raise CheckpointError(
            Problem(str(base.folder), got, "the model's tokenizer beside its weights")
        ) from None
    dtype = np.dtype(np.uint16 if len(tokenizer) <= 2**16 else np.uint32)
    train, heldout = _two_sides(settings)
    with new_folder(folder) as aside:
        written = {
            side: _write_tokens(docs, tokenizer, dtype, aside / f"{side}.bin")
            for side, docs in (("train", train), ("heldout", heldout))
        }
        places = {"train": "data.source", "heldout": "data.heldout"}
        empty = [places[side] for side, counted in written.items() if counted.tokens == 0]
        if empty:
            raise DataError(*(Problem(place, "no text", "text", "another source") for place in empty))
        largest = max(counted.largest for counted in written.values())
        if largest >= base.facts.vocabulary:
            got = f"a tokenizer that gives the id {largest}"
            expected = f"ids below {base.facts.vocabulary}, the model's vocabulary"
            raise CheckpointError(
                Problem(str(base.folder), got, expected, "the tokenizer that the model was made with")
            )
        digest = hashlib.sha256()
        for side in written:
            digest.update((aside / f"{side}.bin").read_bytes())
        manifest = {
            "settings": asdict(settings),
            "dtype": dtype.name,
            "digest": digest.hexdigest(),
            "train_tokens": written["train"].tokens,
            "heldout_tokens": written["heldout"].tokens,
            "heldout_bytes": written["heldout"].bytes,
        }
        (aside / "manifest.json").write_text(json.dumps(manifest, indent=1))


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
    if len(docs) == 1:
        text = docs[0].text
        cut = len(text) - int(len(text) * fraction)
        return [Document(docs[0].name, text[:cut])], [Document(docs[0].name, text[cut:])]

    def draw(doc: Document) -> float:
        # By text, so that equal documents land on one side.
        return int.from_bytes(hashlib.sha256(doc.text.encode()).digest()[:8], "big") / 2**64

    ranked = sorted(docs, key=draw)
    count = max(1, round(len(docs) * fraction))
    boundary = draw(ranked[count - 1]) if ranked else 0.0
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


@dataclass(frozen=True)
class _Written:
    """What one side holds: tokens, UTF-8 bytes of its text, and the largest token id."""

    tokens: int
    bytes: int
    largest: int


def _write_tokens(docs: Iterable[Document], tokenizer: Any, dtype: np.dtype, path: Path) -> _Written:
    import numpy as np

    end = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    tokens = size = largest = 0
    with path.open("wb") as out:
        for group in _groups(docs):
            for ids in _encode(tokenizer, [doc.text for doc in group]):
                if ids:
                    # Through a wider type: an id that does not fit is told of, and not wrapped around.
                    row = np.asarray([*ids, *end], dtype=np.int64)
                    largest = max(largest, int(row.max()))
                    row.astype(dtype).tofile(out)
                    tokens += len(row)
            size += sum(len(doc.text.encode()) for doc in group)
    return _Written(tokens, size, largest)


def _encode(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Token ids of each text, nothing added."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:
        return list(tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"])
    # The same ids without offsets and masks, which would be half of the time.
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


def _too_short(where: str, found: int, needed: int) -> Problem:
    return Problem(where, f"{found:,} tokens", f"at least {needed:,}", "more text, or smaller batches")
