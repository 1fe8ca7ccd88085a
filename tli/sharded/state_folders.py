"""Folders of sharded training states: names, digests, and what all ranks tell each other of them."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from torch import distributed

from tli.files import open_regular
from tli.sharded.processes import Group
from tli.training.state import owner_tag

STATE = re.compile(r"step-(\d{8})-([0-9a-f]{8})-([0-9a-f]{16})")  # step, owner, content
MANIFEST = "state.json"
MOMENTS = ("exp_avg", "exp_avg_sq")


def digest_of(path: Path) -> str:
    """SHA-256 of a file that is no link, in hex."""
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def exchanged(group: Group, value: Any) -> list[Any]:
    """Every rank's value, by rank; by the group of what goes on behind the training."""
    values: list[Any] = [None] * group.ranks.size
    distributed.all_gather_object(values, value, group=group.writers)
    return values


def states_of(folder: Path, owner: str) -> list[Path]:
    """States of a folder that are an owner's by their names, newest first."""
    found = [
        path
        for path in folder.glob("step-*")
        if (match := STATE.fullmatch(path.name)) and match[2] == owner_tag(owner)
    ]
    return sorted(found, reverse=True)
