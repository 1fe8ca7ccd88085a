"""Joins and leaves the group of processes, the ranks, that hold one model together."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from tli.errors import InputError, Problem
from tli.training.ranks import Ranks

TIMEOUT = 600.0  # seconds that one collective may take before gloo raises


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


def join(address: str, ranks: Ranks, device: str = "cpu", *, timeout: float = TIMEOUT) -> Group:
    """Meet the other ranks at an address, `host:port`, that rank 0 listens at.

    Collectives go over gloo on the CPU and NCCL between GPUs. The latter has never been run by the tests of
    this package.

    Raises:
        InputError: a GPU is asked for where torch has none, or no NCCL.
    """
    if problem := device_problem(device):
        raise InputError(problem)
    place = torch.device(device)
    backend = "gloo"
    if place.type == "cuda":
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(place)
    distributed.init_process_group(
        backend,
        init_method=f"tcp://{address}",
        rank=ranks.rank,
        world_size=ranks.size,
        timeout=dt.timedelta(seconds=timeout),
    )
    host_mesh = init_device_mesh("cpu", (ranks.size,))
    mesh = host_mesh if place.type == "cpu" else init_device_mesh(place.type, (ranks.size,))
    return Group(ranks, place, mesh, host_mesh, distributed.new_group(backend="gloo"))


def device_problem(device: str) -> Problem | None:
    """Why ranks cannot compute on a device here; None where they can."""
    if torch.device(device).type != "cuda":
        return None
    if not torch.cuda.is_available():
        return Problem("device", repr(device), "a GPU that torch sees", "cpu")
    if not distributed.is_nccl_available():
        return Problem("device", f"{device!r}, and a torch without NCCL", "a torch that has NCCL", "cpu")
    return None


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
