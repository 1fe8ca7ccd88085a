"""Writes a publishable model folder atomically: weights, config, tokenizer, lineage."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tli.architectures.config import read_config
from tli.checkpoint.atomic import new_folder
from tli.errors import CheckpointError, Problem
from tli.files import open_regular
from tli.models.halved import halved_weights
from tli.models.licence import CARD
from tli.models.lineage import FILE, read_lineage, write_lineage
from tli.models.model_files import copy_side_files
from tli.models.references import brings_code
from tli.training.frozen import whole_state

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PART = re.compile(r"[^/\\:\x00-\x1f\ud800-\udfff]{1,255}")  # of a file's name
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PIECE = 1 << 22  # bytes copied at once
_SHOWN = 10  # problems of one lineage


def write_model(model: PreTrainedModel, target: Path, *, beside: Path, lineage: Mapping[str, Any]) -> None:
    """Write a model as a folder that plain transformers loads.

    Args:
        model: saved with its own config and dtype.
        target: the folder; must not exist.
        beside: the checked folder of the model that it grew from; what belongs to that one beside its weights
            (`tli.models.model_files`) is copied.
        lineage: what made the model; the files' digests are added.

    Raises:
        CheckpointError: the target exists, or a file to copy is a link out of its folder.
    """
    with model_folder(target, beside=beside, lineage=lineage) as folder:
        halved = any(halved_weights(model))
        model.save_pretrained(folder, state_dict=whole_state(model) if halved else None)
        if halved:
            save_as_float32(model, folder)


def save_as_float32(model: PreTrainedModel, folder: Path) -> None:
    """Have the configuration in a folder name float32, the type of its weights: transformers names the type
    of the first parameter, which may be kept in bfloat16, and would load all of them so.
    """
    model.config.dtype = "float32"
    model.config.save_pretrained(folder)


@contextmanager
def model_folder(target: Path, *, beside: Path, lineage: Mapping[str, Any]) -> Iterator[Path]:
    """Yields an empty folder for weights and configuration; what else belongs to a model is added after."""
    with new_folder(target) as folder:
        yield folder
        copy_side_files(beside, folder, code=brings_code(beside, read_config(beside)))
        _seal(folder, lineage)


def copy_model(
    source: Path, target: Path, *, lineage: Mapping[str, Any] | None = None, card: str | None = None
) -> None:
    """Copy a folder that `write_model` wrote, checking every byte against its lineage.

    Args:
        source: the written folder.
        target: must not exist.
        lineage: facts to add to it.
        card: the model card, written as README.md in place of one that is there.

    Raises:
        CheckpointError: the target exists, or the source is not what its lineage says. Nothing is written
            before that is known.
    """
    recorded = read_lineage(source)
    files = _files(source, recorded)
    wrong = [problem for name, digest in files.items() if (problem := _changed(source / name, digest))]
    if wrong:
        raise CheckpointError(*wrong)
    with new_folder(target) as folder:
        for name, digest in files.items():
            _copy(source / name, folder / name)
            if _digest(folder / name) != digest:  # it was changed in between
                raise CheckpointError(_other_bytes(source / name, digest))
        if card is not None:
            (folder / CARD).write_text(card, encoding="utf-8")
        _seal(folder, {**recorded, **(lineage or {})})


def _files(source: Path, recorded: Mapping[str, Any]) -> dict[str, str]:
    """The digests that a lineage has by the names of its folder's files, none of which leads out of it.

    Raises:
        CheckpointError: it has none, or they are not that.
    """
    files = recorded.get("files")
    where, expected = f"{source / FILE}: files", "digests by the names of the files in its folder"
    if not isinstance(files, dict) or not files:
        raise CheckpointError(Problem(where, "no digests in its lineage", expected))
    wrong = [
        Problem(where, f"{name[:80]!r}: {str(digest)[:80]!r}", expected)
        for name, digest in files.items()
        if not (_is_plain(name) and isinstance(digest, str) and _DIGEST.fullmatch(digest))
    ]
    if wrong:
        raise CheckpointError(*wrong[:_SHOWN])
    return files


def _is_plain(name: str) -> bool:
    """Whether a name is that of a file in a folder, or right below it, on every system; not the lineage's."""
    parts = name.split("/")
    plain = all(_PART.fullmatch(part) and part not in (".", "..") for part in parts)
    return plain and len(parts) <= 2 and name != FILE


def _changed(path: Path, digest: str) -> Problem | None:
    """What is wrong with a file that has a digest."""
    if path.parent.is_symlink():
        return Problem(str(path.parent), "a link", "a folder of its own")
    try:
        return None if _digest(path) == digest else _other_bytes(path, digest)
    except FileNotFoundError:
        return Problem(str(path), "no such file", digest)
    except OSError as error:  # a link, a folder, a pipe
        return Problem(str(path), f"no file of its own ({(error.strerror or '').lower()})", digest)


def _other_bytes(path: Path, digest: str) -> Problem:
    return Problem(str(path), "bytes that changed since it was written", digest)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    with (
        os.fdopen(open_regular(source, os.O_RDONLY), "rb") as file,
        os.fdopen(open_regular(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as out,
    ):
        shutil.copyfileobj(file, out, _PIECE)


def _seal(folder: Path, lineage: Mapping[str, Any]) -> None:
    """Write the lineage, last, with the digest of every other file."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / FILE)
    for path in paths:
        path.chmod(0o644)  # safetensors writes for the owner alone
    digests = {path.relative_to(folder).as_posix(): _digest(path) for path in paths}
    write_lineage(folder, {**lineage, "files": digests})


def _digest(path: Path) -> str:
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
