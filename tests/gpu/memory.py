"""How much memory a piece of work takes at most, and how much is held."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass
class Peak:
    """Bytes at the highest point, once the work is done: of a GPU its tensors, of the CPU the whole process."""

    bytes: float = 0.0


@contextmanager
def peak_of(device: torch.device) -> Iterator[Peak]:
    """The peak of what is done within."""
    found = Peak()
    release(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        _reset_process_peak()
    yield found
    found.bytes = torch.cuda.max_memory_allocated() if device.type == "cuda" else _of_process("VmHWM")


def held(device: torch.device) -> int:
    """Bytes of tensors that are not let go: on a GPU as its allocator counts them, on the CPU by their storages.

    What only the garbage collector would find counts: no trial waits for it.
    """
    if device.type == "cuda":
        return torch.cuda.memory_allocated()
    storages = {}
    for thing in gc.get_objects():
        if type(thing) in (torch.Tensor, torch.nn.Parameter) and thing.device.type == "cpu":
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def release(device: torch.device) -> None:
    """Give a GPU's memory back that nothing refers to. On a CPU that happens by itself, and collecting takes long."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()


def of_this_process() -> int:
    """Bytes of this process now, without what is on a GPU; 0 where the system does not say."""
    return _of_process("VmRSS")


def _of_process(name: str) -> int:
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)


def _reset_process_peak() -> None:
    switch = Path("/proc/self/clear_refs")
    if switch.exists():
        switch.write_text("5")
