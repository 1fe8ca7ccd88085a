"""Text to tokens once, then seeded batches that are the same for every trial.

Both sides of the split are kept as flat token files. A batch is a pure function of (seed, step), so resuming
needs no state and two trials that name the same seed see the same text in the same order.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import stat
import sys
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tli import corpus
from tli.errors import DataError, Problem
from tli.files import open_regular, read_regular
from tli.fingerprint import add_file
from tli.model_files import tokenizer_files
from tli.tokenise import build, vocabulary

if TYPE_CHECKING:
    import numpy as np

    from tli.base import Base

_SIZES = {"uint16": 2, "uint32": 4}  # bytes of a token id, by the type that a manifest names
_LARGEST = 1 << 20  # bytes of a manifest


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
        if not files and corpus.names_files(source) and not corpus.dataset_folder(source):
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
    try:
        size = path.stat().st_size
        return size == 0 or (size < 65_536 and not path.read_bytes().strip())
    except OSError:
        return False  # told of when it is read


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


_FORMAT = b"tokens 3"  # of the token files; another one makes them anew


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
        manifest = _manifest(folder)
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
    return _whole(cache / _cache_key(settings, base))


def open_tokens(settings: DataSettings, base: Base, cache: Path) -> Tokens:
    """The token files for these settings and this base's tokenizer, made now if they are not in the cache.

    The cache key covers the sources' content (by place, size and time for files and for what is in a folder),
    the split, the tokenizer and the model's vocabulary.

    Raises:
        DataError: a source is missing, empty, unreadable, or the same text is on both sides.
        CheckpointError: the base has no tokenizer, or one that is not the model's.
    """
    folder = cache / _cache_key(settings, base)
    if not _whole(folder):
        problems = source_problems(settings)
        if problems:
            raise DataError(*problems)
        cache.mkdir(parents=True, exist_ok=True)
        with os.fdopen(open_regular(cache / ".lock", os.O_WRONLY | os.O_CREAT), "wb") as lock:
            # Workers that start together wait for the one that builds, with all cores, and then share.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _whole(folder):
                shutil.rmtree(folder, ignore_errors=True)
                build(settings, base, folder)
    return Tokens(folder)


def _whole(folder: Path) -> bool:
    """Whether token files are there, as long as their manifest says; what is not is made again."""
    try:
        manifest = _manifest(folder)
        size = _SIZES[manifest["dtype"]]
        files = {side: (folder / f"{side}.bin").lstat() for side in ("train", "heldout")}
        return all(
            stat.S_ISREG(file.st_mode) and file.st_size == manifest[f"{side}_tokens"] * size
            for side, file in files.items()
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _manifest(folder: Path) -> dict[str, Any]:
    """What was written beside token files.

    Raises:
        OSError, ValueError, KeyError, TypeError, RecursionError: it cannot be read, or is not that.
    """
    manifest: dict[str, Any] = json.loads(read_regular(folder / "manifest.json", _LARGEST))
    counts = [manifest[name] for name in ("train_tokens", "heldout_tokens", "heldout_bytes")]
    if not all(isinstance(each, int) and not isinstance(each, bool) and each >= 0 for each in counts):
        raise ValueError("counts are whole numbers")
    if not isinstance(manifest["digest"], str) or manifest["dtype"] not in _SIZES:
        raise ValueError("not what is written")
    return manifest


def _cache_key(settings: DataSettings, base: Base) -> str:
    digest = hashlib.sha256(_FORMAT)
    what = asdict(replace(settings, sequence_length=0, eval_tokens=0))  # of batches, not of token files
    for field in ("source", "heldout"):
        source = what[field]
        digest.update(f"{field}\n".encode())
        if source == corpus.STDLIB:
            digest.update(sys.version.encode())
        elif source is not None:
            paths = corpus.matching_files(source)
            folder = corpus.dataset_folder(source)
            if folder is not None and not paths:
                paths = sorted(path for path in folder.rglob("*") if path.is_file())
            if paths:
                what[field] = "paths"  # however they are written
            for path in paths:
                status = path.stat()
                digest.update(os.fsencode(path.resolve()))
                digest.update(f" {status.st_size} {status.st_mtime_ns}\n".encode())
    digest.update(json.dumps([what, vocabulary(base)], sort_keys=True).encode())
    for path in tokenizer_files(base.folder):
        add_file(digest, path)
    return digest.hexdigest()[:16]


def _too_short(where: str, found: int, needed: int) -> Problem:
    return Problem(where, f"{found:,} tokens", f"at least {needed:,}", "more text, or smaller batches")
