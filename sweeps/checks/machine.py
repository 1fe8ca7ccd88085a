"""What this machine has for this process, found without torch and without the network."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from sweeps.environment import for_child

_DEVICE = re.compile(r"nvidia\d+")
_ASKED_SECONDS = 10  # for nvidia-smi to answer
_GROUPS = Path("/sys/fs/cgroup")
_MINE = Path("/proc/self/cgroup")


def cores() -> int:
    """Processor cores that this process may use, where the system says; else all that there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus(devices: Path = Path("/dev")) -> int:
    """NVIDIA GPUs of this machine.

    Counted as device files; where a container hides those, as lines of `nvidia-smi -L`.
    """
    found = [each for each in devices.glob("nvidia*") if _DEVICE.fullmatch(each.name)]
    if found or shutil.which("nvidia-smi") is None:
        return len(found)
    return sum(line.startswith("GPU ") for line in _nvidia_smi("-L"))


def gpu_memory() -> int | None:
    """Bytes of the smallest NVIDIA GPU of this machine, or None where `nvidia-smi` does not say."""
    listed = _nvidia_smi("--query-gpu=memory.total", "--format=csv,noheader,nounits")
    sizes = [int(line) for line in map(str.strip, listed) if line.isdecimal()]
    return min(sizes) * 2**20 if sizes else None


def memory(groups: Path = _GROUPS, mine: Path = _MINE) -> int | None:
    """Bytes of main memory that this process may have: the machine's, or less where a container or a batch
    system limits it; None where the system does not say.

    Args:
        groups: where Linux shows its control groups; elsewhere there are none.
        mine: the file that names this process's own.
    """
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    return min(whole, *_memory_limits(groups, mine), whole)


def missing_compiler(*, gpu: bool) -> str | None:
    """What this machine lacks to compile layers with; None where it has it.

    Args:
        gpu: whether for a GPU, by Triton and a C compiler; else by a C++ compiler.
    """
    variable, names = ("CC", ("gcc", "clang", "cc")) if gpu else ("CXX", ("g++", "clang++", "c++"))
    if gpu and importlib.util.find_spec("triton") is None:
        return "no Triton"
    named = for_child().get(variable)
    if any(shutil.which(name) for name in (named, *names) if name):
        return None
    return f"none of {', '.join(names)}"


def _nvidia_smi(*words: str) -> list[str]:
    """The lines that `nvidia-smi` prints; none where there is no such program or it fails."""
    try:
        asked = subprocess.run(
            ["nvidia-smi", *words],
            env=for_child(),
            capture_output=True,
            text=True,
            timeout=_ASKED_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return asked.stdout.splitlines() if asked.returncode == 0 else []


def _memory_limits(groups: Path, mine: Path) -> Iterator[int]:
    """Limits of a process's control groups, of both generations: its own, and those of the groups above."""
    for line in _text(mine).splitlines():
        number, controllers, group = (*line.split(":", 2), "", "")[:3]
        if number == "0":
            root, file = groups, "memory.max"
        elif "memory" in controllers.split(","):
            root, file = groups / "memory", "memory.limit_in_bytes"
        else:
            continue
        own = root / group.lstrip("/")
        # A container sees its own group as the root, whatever the name that it is shown.
        for folder in (own, *(above for above in own.parents if above.is_relative_to(root))):
            said = _text(folder / file).strip()
            if said.isdecimal():  # else it says max
                yield int(said)


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""


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
