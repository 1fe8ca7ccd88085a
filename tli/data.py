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
from tli.dataset import Source, commit
from tli.errors import DataError, Problem
from tli.files import open_regular, read_regular
from tli.fingerprint import add_file
from tli.model_files import tokenizer_files
from tli.sources import on_the_hub, source_problems
from tli.tokenise import OnProgress, build, vocabulary

if TYPE_CHECKING:
    import numpy as np

    from tli.base import Base

_LARGEST = 1 << 20  # bytes of a manifest


@dataclass(frozen=True)
class DataSettings:
    """What text is trained on and what is held out.

    Without `heldout`, a fixed share of the documents is held out, chosen by a hash of their text; a source
    of one single document is cut, and its end is held out.

    Split, configuration and revision are those of a Hugging Face dataset. Where those of `heldout` are left
    out, they are those of `source` if it is the same dataset; of another one the same split, the only
    configuration and the main branch. `max_tokens` ends the training side; no more is read than that takes.
    """

    source: str = corpus.STDLIB
    heldout: str | None = None
    heldout_fraction: float = 0.05
    text_field: str = "text"
    split: str = "train"
    configuration: str | None = None
    revision: str | None = None
    heldout_split: str | None = None
    heldout_configuration: str | None = None
    heldout_revision: str | None = None
    max_tokens: int | None = None
    sequence_length: int = 128
    eval_tokens: int = 16_384

    @property
    def train_source(self) -> Source:
        """Where the training text is read from."""
        return Source(self.source, self.text_field, self.split, self.configuration, self.revision)

    @property
    def heldout_source(self) -> Source | None:
        """Where the held-out text is read from, if it is another place."""
        if self.heldout is None:
            return None
        same = self.heldout == self.source
        return Source(
            self.heldout,
            self.text_field,
            self.heldout_split or self.split,
            self.heldout_configuration or (self.configuration if same else None),
            self.heldout_revision or (self.revision if same else None),
            where="data.heldout",
        )

    @property
    def sources(self) -> tuple[Source, ...]:
        """The one or two of them."""
        return (self.train_source, *([self.heldout_source] if self.heldout_source else []))

    def pinned(self, cache: Path) -> DataSettings:
        """The same text for good: datasets on the hub at the commits that they are at now.

        Where the hub cannot be reached, those of which token files are in the cache.

        Raises:
            DataError: there is no such dataset or revision, or neither the hub nor token files.
        """
        commits = tuple(_pinned(source, cache) for source in self.sources)
        return replace(self, revision=commits[0], heldout_revision=commits[1] if commits[1:] else None)


_FORMAT = b"tokens 4"  # of the token files; another one makes them anew
_WIDTHS = {"uint16": 2, "uint32": 4}  # bytes of an id


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
        if manifest is None:
            raise DataError(Problem(str(folder), "token files that are not whole", "those of one text"))
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
    return ready_counts(settings.pinned(cache), base, cache) is not None


def ready_counts(settings: DataSettings, base: Base, cache: Path) -> tuple[int, int] | None:
    """Tokens of the training and of the held-out side, if the token files of pinned settings are there."""
    manifest = _manifest(cache / _cache_key(settings, base))
    return None if manifest is None else (manifest["train_tokens"], manifest["heldout_tokens"])


def token_counts(cache: Path, digest: str) -> tuple[int, int] | None:
    """Tokens of the training and of the held-out side, if token files of this digest are in the cache."""
    known = (manifest for manifest in _manifests(cache) if manifest["digest"] == digest)
    return next(((each["train_tokens"], each["heldout_tokens"]) for each in known), None)


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
        DataError: a source is missing, empty, unreadable, or the same text is on both sides.
        CheckpointError: the base has no tokenizer, or one that is not the model's.
    """
    if problems := source_problems(settings):
        raise DataError(*problems)
    if cache.is_symlink():  # what is written there would go wherever it leads
        raise DataError(Problem(str(cache), "a link", "a folder", "removing it"))
    settings = settings.pinned(cache)
    folder = cache / _cache_key(settings, base)
    if _manifest(folder) is None:
        cache.mkdir(parents=True, exist_ok=True)
        with os.fdopen(open_regular(cache / ".lock", os.O_WRONLY | os.O_CREAT), "wb") as lock:
            # Workers that start together wait for the one that builds, with all cores, and then share.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _manifest(folder) is None:
                shutil.rmtree(folder, ignore_errors=True)
                build(settings, base, folder, on_progress=on_progress, workers=workers)
    return Tokens(folder)


def _pinned(source: Source, cache: Path) -> str | None:
    """The commit of a dataset on the hub; of other sources the revision as it stands."""
    if not on_the_hub(source):
        return source.revision
    found = commit(source)
    if found is not None:
        return found
    for manifest in _manifests(cache) if source.revision is None else ():
        for known in manifest["sources"]:
            if {**known, "revision": None} == asdict(source):
                return str(known["revision"])
    got = f"{source.shown}, no files here, and the hub cannot be reached"
    raise DataError(Problem(source.where, got, "files, or a dataset on the hub", "the same command later"))


def _manifests(cache: Path) -> list[dict[str, Any]]:
    """Those of all whole token files, the newest first."""
    folders = [path.parent for path in cache.glob("*/manifest.json")]
    folders.sort(key=lambda folder: folder.stat().st_mtime, reverse=True)
    return [manifest for folder in folders if (manifest := _manifest(folder)) is not None]


def _manifest(folder: Path) -> dict[str, Any] | None:
    """What token files say of themselves; None unless they are as it says. Others are made again."""
    try:
        manifest: dict[str, Any] = json.loads(read_regular(folder / "manifest.json", _LARGEST))
        width = _WIDTHS[manifest["dtype"]]
        counts = [manifest[name] for name in ("train_tokens", "heldout_tokens", "heldout_bytes")]
        sound = all(type(each) is int and each >= 0 for each in counts)
        sound = sound and isinstance(manifest["digest"], str)
        sound = sound and all(isinstance(known["name"], str) for known in manifest["sources"])
        files = [(folder / f"{side}.bin").lstat() for side in ("train", "heldout")]
        whole = all(
            stat.S_ISREG(file.st_mode) and file.st_size == count * width
            for file, count in zip(files, counts, strict=False)
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return manifest if sound and whole else None


def _cache_key(settings: DataSettings, base: Base) -> str:
    """The name of the token files of pinned settings."""
    digest = hashlib.sha256(_FORMAT)
    what = asdict(replace(settings, sequence_length=0, eval_tokens=0))  # of batches, not of token files
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
