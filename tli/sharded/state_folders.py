"""Folders of sharded training states: what is in them, and what all ranks tell each other of them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from torch import distributed

from tli.files import open_regular
from tli.sharded.processes import Group

MANIFEST = "state.json"


def digest_of(path: Path) -> str:
    """SHA-256 of a file that is no link, in hex."""
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def exchanged(group: Group | None, value: Any) -> list[Any]:
    """Every rank's value, by rank; by the group of what goes on behind the training. None: one process."""
    if group is None:
        return [value]
    values: list[Any] = [None] * group.ranks.size
    distributed.all_gather_object(values, value, group=group.writers)
    return values
