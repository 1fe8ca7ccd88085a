"""Token files and seeded batches, the same for every trial.

Each side of the split is kept as a flat token file. A batch is a pure function of (seed, step), so resuming
needs no state and two trials that name the same seed see the same text in the same order.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sys
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from tli.data import corpus
from tli.data.manifests import manifest_of, starts_file, tokens_of
from tli.data.packing import windows_at
from tli.data.settings import DataSettings
from tli.data.sides import SIDES, Side
from tli.data.sources import source_problems
from tli.data.tokenise import OnProgress, build, vocabulary
from tli.errors import DataError, Problem
from tli.files import open_regular
from tli.models.fingerprint import add_file
from tli.models.model_files import tokenizer_files

if TYPE_CHECKING:
    import numpy as np

    from tli.models.base import Base


_FORMAT = b"tokens 5"  # of the token files; another one makes them anew


class Tokens:
    """The token files of one source under one tokenizer, opened for reading.

    Attributes:
        train: token ids of the training side, shape [tokens].
        heldout: token ids of the held-out side, shape [tokens].
        test: token ids of the test side, shape [tokens].
        bytes_per_token: UTF-8 bytes of a held-out token on average, for bits per byte.
        digest: SHA-256 of all sides, in hex: the same text under the same tokenizer, wherever it lies.
        starts: where documents start on each side, where windows are packed; else None for each.
    """

    def __init__(self, folder: Path) -> None:
        import numpy as np

        self.folder = folder
        manifest = manifest_of(folder)
        if manifest is None:
            raise DataError(Problem(str(folder), "token files that are not whole", "those of one text"))
        dtype = np.dtype(manifest["dtype"])
        self.train, self.heldout, self.test = (
            np.memmap(folder / f"{side}.bin", dtype=dtype, mode="r") for side in SIDES
        )
        self.starts: dict[Side, np.ndarray | None] = {
            side: np.memmap(folder / starts_file(side), dtype=np.uint64, mode="r")
            if "documents" in manifest
            else None
            for side in SIDES
        }
        self.bytes_per_token: float = manifest["heldout_bytes"] / max(1, len(self.heldout))
        self.digest: str = manifest["digest"]

    def batches(self, *, sequence_length: int, batch_tokens: int, seed: int) -> Batches:
        """Training batches of `batch_tokens` predicted tokens each.

        Raises:
            DataError: the training side is shorter than one batch.
        """
        rows = batch_tokens // sequence_length
        return Batches(self.train, sequence_length, rows, seed, self.starts["train"])

    def heldout_windows(self, *, sequence_length: int, eval_tokens: int) -> np.ndarray:
        """Windows spread evenly over the held-out side, shape [windows, sequence_length + 1], or packed.

        Raises:
            DataError: the held-out side is shorter than one window.
        """
        return _windows(self.heldout, sequence_length, eval_tokens, self.starts["heldout"])

    def test_windows(self, *, sequence_length: int, test_tokens: int) -> np.ndarray:
        """Windows spread evenly over the test side, shape [windows, sequence_length + 1], or packed.

        Raises:
            DataError: the test side is shorter than one window.
        """
        return _windows(self.test, sequence_length, test_tokens, self.starts["test"])


def _windows(ids: np.ndarray, sequence_length: int, tokens: int, starts: np.ndarray | None) -> np.ndarray:
    import numpy as np

    available = (len(ids) - 1) // sequence_length
    if available < 1:
        raise DataError(_too_short("data.heldout", len(ids), sequence_length + 1))
    count = min(max(1, tokens // sequence_length), available)
    begins = np.linspace(0, available - 1, count).astype(np.int64) * sequence_length
    return windows_at(ids, begins.tolist(), sequence_length + 1, starts)


class Batches:
    """Batches by step: every window once an epoch, in an order drawn from (seed, epoch).

    With `starts`, where documents start in the tokens, windows are packed (`tli.data.packing`).
    """

    def __init__(
        self,
        tokens: np.ndarray,
        sequence_length: int,
        rows: int,
        seed: int,
        starts: np.ndarray | None = None,
    ) -> None:
        self._tokens = tokens
        self._starts = starts
        self._windows = (len(tokens) - 1) // sequence_length
        self.sequence_length = sequence_length
        self.rows = rows
        self.seed = seed
        if self._windows < rows:
            raise DataError(_too_short("data.source", len(tokens), rows * sequence_length + 1))
        self._order = lru_cache(maxsize=2)(self._draw_order)

    @property
    def packed(self) -> bool:
        """Whether windows know where documents start."""
        return self._starts is not None

    def _draw_order(self, epoch: int) -> np.ndarray:
        import numpy as np

        return np.random.default_rng([self.seed, epoch]).permutation(self._windows)

    def __getitem__(self, step: int) -> np.ndarray:
        """The batch of one step (counted from 0), shape [rows, sequence_length + 1], or packed."""
        places = range(step * self.rows, (step + 1) * self.rows)
        begins = [
            int(self._order(p // self._windows)[p % self._windows]) * self.sequence_length for p in places
        ]
        return windows_at(self._tokens, begins, self.sequence_length + 1, self._starts)


def tokens_ready(settings: DataSettings, base: Base, cache: Path) -> bool:
    """Whether the token files of these settings are in the cache already."""
    return ready_counts(settings.pinned(cache), base, cache) is not None


def ready_counts(settings: DataSettings, base: Base, cache: Path) -> dict[Side, int] | None:
    """Tokens of each side, if the token files of pinned settings are there."""
    manifest = manifest_of(cache / _cache_key(settings, base))
    return None if manifest is None else tokens_of(manifest)


def open_tokens(
    settings: DataSettings,
    base: Base,
    cache: Path,
    *,
    on_progress: OnProgress = lambda _progress: None,
    workers: int | None = None,
) -> Tokens:
    """The token files for these settings and this base's tokenizer, made now if they are not in the cache.

    The cache key covers the sources' content (by place, size and time for files and for what is in a folder,
    by commit for datasets on the hub), the split, the tokenizer and the model's vocabulary.

    Args:
        settings: what text.
        base: whose tokenizer.
        cache: the folder of all token files.
        on_progress: called while they are made; what it raises ends that.
        workers: processes that make them; None for as many as this process may use cores.

    Raises:
        DataError: a source is missing, empty, unreadable, or the same text is trained on and held out.
        CheckpointError: the base has no tokenizer, or one that is not the model's.
    """
    if problems := source_problems(settings):
        raise DataError(*problems)
    if cache.is_symlink():  # what is written there would go wherever it leads
        raise DataError(Problem(str(cache), "a link", "a folder", "removing it"))
    settings = settings.pinned(cache)
    folder = cache / _cache_key(settings, base)
    if manifest_of(folder) is None:
        cache.mkdir(parents=True, exist_ok=True)
        with os.fdopen(open_regular(cache / ".lock", os.O_WRONLY | os.O_CREAT), "wb") as lock:
            # Workers that start together wait for the one that builds, with all cores, and then share.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if manifest_of(folder) is None:
                shutil.rmtree(folder, ignore_errors=True)
                build(settings, base, folder, on_progress=on_progress, workers=workers)
    return Tokens(folder)


def _cache_key(settings: DataSettings, base: Base) -> str:
    """The name of the token files of pinned settings."""
    digest = hashlib.sha256(_FORMAT)
    what = asdict(
        replace(settings, sequence_length=0, eval_tokens=0, test_tokens=0)
    )  # of batches, not of token files
    if what["packing"] == "stream":  # as before there was another: files that are there stay good
        del what["packing"]
    for source in settings.sources:
        field = source.where.rpartition(".")[2]
        digest.update(f"{field}\n".encode())
        if source.name == corpus.STDLIB:
            digest.update(sys.version.encode())
            continue
        paths = corpus.matching_files(source.name)
        if source.folder is not None and not paths:
            paths = sorted(path for path in source.folder.rglob("*") if path.is_file())
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
