"""The lock of an outbox: one process delivers from it at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from sweeps.tracking.driver_pipe import Driver


def hold(lock: int, driver: Driver) -> None:
    """One process delivers at a time; that of a driver which was killed may still be at it."""
    while not driver.over:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            driver.wait(0.2)


def is_still(lock: int, path: Path) -> bool:
    """Whether the lock is the folder's: another study sets aside, with the folder, what this one left."""
    try:
        return os.path.samestat(os.fstat(lock), path.stat())
    except OSError:
        return False
