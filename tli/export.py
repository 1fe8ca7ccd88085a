"""A publishable folder: weights, config, tokenizer, and where it all came from. Whole or not there."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tli.aside import new_folder
from tli.config import read_config
from tli.errors import CheckpointError, Problem
from tli.lineage import FILE, read_lineage, write_lineage
from tli.model_files import copy_side_files
from tli.references import brings_code

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def write_model(model: PreTrainedModel, target: Path, *, beside: Path, lineage: Mapping[str, Any]) -> None:
    """Write a model as a folder that plain transformers loads.

    Args:
        model: saved with its own config and dtype.
        target: the folder; must not exist.
        beside: the checked folder of the model that it grew from; what belongs to that one beside its weights
            (`tli.model_files`) is copied.
        lineage: what made the model; the files' digests are added.

    Raises:
        CheckpointError: the target exists, or a file to copy is a link out of its folder.
    """
    with new_folder(target) as folder:
        model.save_pretrained(folder)
        copy_side_files(beside, folder, code=brings_code(beside, read_config(beside)))
        _seal(folder, lineage)


def copy_model(source: Path, target: Path, *, lineage: Mapping[str, Any] | None = None) -> None:
    """Copy a folder that `write_model` wrote, checking every byte against its lineage.

    Args:
        source: the written folder.
        target: must not exist.
        lineage: facts to add to it.

    Raises:
        CheckpointError: the target exists, or the source is not what its lineage says.
    """
    with new_folder(target) as folder:
        recorded = read_lineage(source)
        wrong = [] if recorded.get("files") else [Problem(str(source), "no digests in its lineage", "some")]
        for name, digest in recorded.get("files", {}).items():
            if not (source / name).is_file():
                wrong.append(Problem(str(source / name), "no such file", digest))
                continue
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source / name, folder / name)
            if _digest(folder / name) != digest:
                wrong.append(Problem(str(source / name), "bytes that changed since it was written", digest))
        if wrong:
            raise CheckpointError(*wrong)
        _seal(folder, {**recorded, **(lineage or {})})


def _seal(folder: Path, lineage: Mapping[str, Any]) -> None:
    """Write the lineage, last, with the digest of every other file."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != FILE)
    for path in paths:
        path.chmod(0o644)  # safetensors writes for the owner alone
    digests = {path.relative_to(folder).as_posix(): _digest(path) for path in paths}
    write_lineage(folder, {**lineage, "files": digests})


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
