"""Names of training states: the step, whose they are, and the digest of their content.

One process writes a file (`tli.training.state`), several a folder (`tli.sharded`); either takes up both.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

_NAME = re.compile(r"step-(\d{8})-([0-9a-f]{8})-([0-9a-f]{16})(\.safetensors)?")  # step, owner, content
_KEPT = 2


def name_of(step: int, owner: str, digest: str) -> str:
    """Of the folder of a state; that of a file ends in `.safetensors`. `digest` in hex, of any length."""
    return f"step-{step:08d}-{owner_tag(owner)}-{digest[:16]}"


def step_and_digest(path: Path) -> tuple[int, str]:
    """What the name of a state says: its step, and the first half of its digest."""
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1]), match[3]


def by_ranks(path: Path) -> bool:
    """Whether a state is of several processes, by its name."""
    return path.suffix != ".safetensors"


def owner_tag(owner: str) -> str:
    """What the names of an owner's states have in common; the state itself says the whole of it."""
    return hashlib.sha256(owner.encode()).hexdigest()[:8]


def states_of(folder: Path, owner: str) -> list[Path]:
    """States of a folder that are an owner's by their names, newest first."""
    found = [path for path in folder.glob("step-*") if (match := _NAME.fullmatch(path.name))
             and match[2] == owner_tag(owner)]  # fmt: skip
    return sorted(found, reverse=True)


def drop_older(written: Path, owner: str) -> None:
    """Keep of an owner's states the one that was just written, and the newest of the others.

    Where a trial began afresh those others may be of later steps, and none of them good.
    """
    others = [path for path in states_of(written.parent, owner) if path != written]
    for old in others[_KEPT - 1 :]:
        if by_ranks(old):
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.unlink(missing_ok=True)
