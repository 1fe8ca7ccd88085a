"""What this machine has, found without torch and without asking anybody on the network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

_DEVICE = re.compile(r"nvidia\d+")


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus(devices: Path = Path("/dev")) -> int:
    """NVIDIA GPUs of this machine.

    Counted as device files; where a container hides those, as lines of `nvidia-smi -L`.
    """
    found = [each for each in devices.glob("nvidia*") if _DEVICE.fullmatch(each.name)]
    if found or shutil.which("nvidia-smi") is None:
        return len(found)
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def memory() -> int | None:
    """Bytes of main memory, or None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def free_space(path: Path) -> int:
    """Free bytes where a path is or would be."""
    return shutil.disk_usage(existing(path)).free


def writable(path: Path) -> bool:
    """Whether a file can be written to, or new files made in a folder; on a read-only disk neither."""
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return False
    return os.access(path, os.W_OK | (os.X_OK if path.is_dir() else 0))
