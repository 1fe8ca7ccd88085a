"""A publishable folder: weights, config, tokenizer, and where it all came from. Whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tli.errors import CheckpointError, Problem

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LINEAGE = "lineage.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
)


def write_model(model: PreTrainedModel, target: Path, *, tokenizer: Path, lineage: Mapping[str, Any]) -> None:
    """Write a model as a folder that plain transformers loads; a folder of that name is replaced.

    Args:
        model: saved with its own config and dtype.
        target: the folder.
        tokenizer: a folder whose tokenizer files are copied.
        lineage: what made the model; the files' digests are added.
    """
    aside = _aside(target)
    model.save_pretrained(aside)
    for name in TOKENIZER_FILES:
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, aside / name)
    _seal(aside, lineage)
    shutil.rmtree(target, ignore_errors=True)
    aside.rename(target)


def copy_model(source: Path, target: Path, *, lineage: Mapping[str, Any] | None = None) -> None:
    """Copy a folder that `write_model` wrote, checking every byte against its lineage.

    Args:
        source: the written folder.
        target: must not exist.
        lineage: facts to add to it.

    Raises:
        CheckpointError: the target exists, or the source is not what its lineage says.
    """
    if target.exists():
        raise CheckpointError(Problem("--out", f"{target}, which exists", "a new folder", f"{target}-2"))
    recorded = json.loads((source / LINEAGE).read_text())
    aside = _aside(target)
    try:
        wrong = []
        for name, digest in recorded["files"].items():
            shutil.copyfile(source / name, aside / name)
            if _digest(aside / name) != digest:
                wrong.append(Problem(str(source / name), "bytes that changed since it was written", digest))
        if wrong:
            raise CheckpointError(*wrong)
        _seal(aside, {**recorded, **(lineage or {})})
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _aside(target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".{target.name}.tmp-*"):
        shutil.rmtree(left, ignore_errors=True)
    aside = target.parent / f".{target.name}.tmp-{os.getpid()}"
    aside.mkdir()
    return aside


def _seal(folder: Path, lineage: Mapping[str, Any]) -> None:
    """Write the lineage last and see everything on the disk."""
    names = sorted(path.name for path in folder.iterdir() if path.name != LINEAGE)
    files = {name: _digest(folder / name) for name in names}
    (folder / LINEAGE).write_text(json.dumps({**lineage, "files": files}, indent=1, sort_keys=True) + "\n")
    for path in [*folder.iterdir(), folder]:
        path.chmod(0o755 if path.is_dir() else 0o644)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
