"""The row that says which process holds the lease on a study, and whether that process still runs."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TABLE = "sweeps_lease"
NOW = {
    "sqlite": "((julianday('now') - 2440587.5) * 86400.0)",
    "postgresql": "EXTRACT(EPOCH FROM clock_timestamp())",
}  # seconds since the epoch; never the driver's own clock, which may be another one or be moved


@dataclass(frozen=True)
class Row:
    """A study's lease as it stands; times are seconds of the store's clock."""

    fence: int
    owner: str  # JSON; empty once it was given back
    expires: float
    now: float

    @property
    def alive(self) -> bool:
        """Whether a process holds it, as far as this machine can know."""
        return bool(self.owner) and self.expires > self.now and not _is_dead(self.owner)

    @property
    def holder(self) -> str:
        """The process that holds it, in words."""
        known = _known(self.owner)
        return f"process {known.get('pid', '?')} on {known.get('host', 'a machine that is not known')}"


def query(dialect: str) -> str:
    """SQL for the columns of `Row` under `:study`, the id of the study."""
    return f"SELECT fence, owner, expires, {NOW[dialect]} FROM {TABLE} WHERE study_id = :study"  # noqa: S608


def this_process() -> str:
    """What a lease of this process has as its owner."""
    return json.dumps(
        {"host": socket.gethostname(), "pid": os.getpid(), "place": _place(), "born": _born(os.getpid())}
    )


def _is_dead(owner: str) -> bool:
    """Whether the owner is a process of this machine that has ended; one of another may be alive."""
    known = _known(owner)
    local = known.get("place") is not None and known["place"] == _place()
    return local and _born(known.get("pid")) != known.get("born")


def _known(owner: str) -> dict[str, Any]:
    """What an owner says of itself; nothing where it is not what this program writes."""
    try:
        known = json.loads(owner or "{}")
    except (ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}


def _place() -> str | None:
    """What tells the processes that we can see from others: this boot and this namespace of process ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{socket.gethostname()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _born(pid: Any) -> str | None:
    """When a process was started, in ticks since the boot: an id alone may belong to another one by now."""
    if type(pid) is not int:
        return None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]  # a zombie has ended
