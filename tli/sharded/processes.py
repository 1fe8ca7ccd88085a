"""Joins and leaves the group of processes, the ranks, that hold one model together."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed
from torch._C._distributed_c10d import TCPStore
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from tli.errors import InputError, Problem
from tli.training.ranks import Ranks

TIMEOUT = 600.0  # seconds that one collective may take before gloo raises
MEETING = 300.0  # seconds for all ranks to come


@dataclass(frozen=True)
class Group:
    """This process among the ranks.

    Attributes:
        ranks: its number, and how many there are.
        device: where this rank computes.
        mesh: all ranks in a row, of that device.
        host_mesh: the same for tensors on the CPU.
        writers: a second group over the CPU, for what a thread does while the ranks train.
    """

    ranks: Ranks
    device: torch.device
    mesh: DeviceMesh
    host_mesh: DeviceMesh
    writers: distributed.ProcessGroup


def meeting(host: str) -> TCPStore:
    """Where ranks meet, on a free port of this machine; for rank 0, which is here before the others."""
    return TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=_seconds(MEETING))


def join(place: str | TCPStore, ranks: Ranks, device: str = "cpu", *, timeout: float = TIMEOUT) -> Group:
    """Meet the other ranks.

    Collectives go over gloo on the CPU and NCCL between GPUs. The latter has never been run by the tests of
    this package.

    Args:
        place: `host:port`, where rank 0 listens; for that one perhaps the meeting itself.
        ranks: which this one is.
        device: where this rank computes.
        timeout: seconds that a collective may take before it raises.

    Raises:
        InputError: a GPU is asked for where torch has none, or no NCCL.
    """
    if problem := device_problem(device):
        raise InputError(problem)
    where, backend = torch.device(device), "gloo"
    if where.type == "cuda":
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(where)
    if isinstance(place, str):
        host, _, port = place.rpartition(":")
        store = TCPStore(host, int(port), is_master=ranks.rank == 0, timeout=_seconds(MEETING))
    else:
        store = place
    distributed.init_process_group(
        backend, store=store, rank=ranks.rank, world_size=ranks.size, timeout=_seconds(timeout)
    )
    host_mesh = init_device_mesh("cpu", (ranks.size,))
    mesh = host_mesh if where.type == "cpu" else init_device_mesh(where.type, (ranks.size,))
    return Group(ranks, where, mesh, host_mesh, distributed.new_group(backend="gloo"))


def _seconds(number: float) -> dt.timedelta:
    return dt.timedelta(seconds=number)


def device_problem(device: str) -> Problem | None:
    """Why ranks cannot compute on a device here; None where they can."""
    if torch.device(device).type != "cuda":
        return None
    if not torch.cuda.is_available():
        return Problem("device", repr(device), "a GPU that torch sees", "cpu")
    if not distributed.is_nccl_available():
        return Problem("device", f"{device!r}, and a torch without NCCL", "a torch that has NCCL", "cpu")
    return None


def largest(number: int) -> int:
    """The largest number of all ranks; called by each."""
    found = torch.tensor(number)
    distributed.all_reduce(found, op=distributed.ReduceOp.MAX)
    return int(found)


def leave() -> None:
    """Leave the group, whatever state the others are in."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


@contextmanager
def joined(address: str, ranks: Ranks, device: str = "cpu", *, timeout: float = TIMEOUT) -> Iterator[Group]:
    """The group, left at the end of the block."""
    try:
        yield join(address, ranks, device, timeout=timeout)
    finally:
        leave()
