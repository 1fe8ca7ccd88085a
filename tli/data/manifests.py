"""Manifests of token files: the text they were made of, and its commits on the hub."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tli.data import corpus
from tli.data.corpus import matching_files
from tli.data.dataset import Source, commit, may_be_on_the_hub
from tli.data.sides import SIDES, Side
from tli.errors import DataError, Problem
from tli.files import read_regular

_LARGEST = 1 << 20  # bytes of a manifest


WIDTHS = {"uint16": 2, "uint32": 4}  # bytes of an id
STARTS_WIDTH = 8  # bytes of the place where a document starts


def pinned_commit(source: Source, cache: Path) -> str | None:
    """The commit of a dataset on the hub; of other sources the revision as it stands."""
    if not on_the_hub(source):
        return source.revision
    found = commit(source)
    if found is not None:
        return found
    for manifest in manifests(cache) if source.revision is None else ():
        for known in manifest["sources"]:
            if {**known, "revision": None} == asdict(source):
                return str(known["revision"])
    got = f"{source.shown}, no files here, and the hub cannot be reached"
    raise DataError(Problem(source.where, got, "files, or a dataset on the hub", "the same command later"))


def manifests(cache: Path) -> list[dict[str, Any]]:
    """Those of all whole token files, the newest first."""
    folders = [path.parent for path in cache.glob("*/manifest.json")]
    folders.sort(key=lambda folder: folder.stat().st_mtime, reverse=True)
    return [manifest for folder in folders if (manifest := manifest_of(folder)) is not None]


def manifest_of(folder: Path) -> dict[str, Any] | None:
    """What token files say of themselves; None unless they are as it says. Others are made again."""
    try:
        manifest: dict[str, Any] = json.loads(read_regular(folder / "manifest.json", _LARGEST))
        width = WIDTHS[manifest["dtype"]]
        counts = [*tokens_of(manifest).values(), manifest["heldout_bytes"]]
        sound = all(type(each) is int and each >= 0 for each in counts)
        sound = sound and isinstance(manifest["digest"], str)
        sound = sound and all(isinstance(known["name"], str) for known in manifest["sources"])
        sizes = {f"{side}.bin": count * width for side, count in zip(SIDES, counts, strict=False)}
        if "documents" in manifest:
            sizes |= {starts_file(side): manifest["documents"][side] * STARTS_WIDTH for side in SIDES}
        files = {name: (folder / name).lstat() for name in sizes}
        whole = all(
            stat.S_ISREG(file.st_mode) and file.st_size == sizes[name] for name, file in files.items()
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return manifest if sound and whole else None


def starts_file(side: Side) -> str:
    """The name of the file that says where the documents of a side start, as little-endian uint64."""
    return f"{side}.starts"


def on_the_hub(source: Source) -> bool:
    """Whether a source is a dataset on the hub: neither built in, nor files, nor a folder."""
    name = source.name
    local = name.startswith("builtin:") or matching_files(name) or source.folder or corpus.names_files(name)
    return not local and may_be_on_the_hub(name)


def tokens_of(manifest: Mapping[str, Any]) -> dict[Side, int]:
    """Tokens of each side of the token files that a manifest speaks of."""
    return {side: manifest[f"{side}_tokens"] for side in SIDES}


def token_counts(cache: Path, digest: str) -> dict[Side, int] | None:
    """Tokens of each side, if token files of this digest are in the cache."""
    known = (manifest for manifest in manifests(cache) if manifest["digest"] == digest)
    return next((tokens_of(each) for each in known), None)
