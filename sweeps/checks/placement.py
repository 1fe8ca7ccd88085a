"""Trials that fit on a cluster at once, counted as Ray places them: one node after the other.

Ray counts resources in ten-thousandths. A rank stands on one node, with all its CPUs; a share of a GPU is a
share of one GPU, so what is left of two GPUs is not added up. The ranks of a trial are on one node where that
has room for them, else on several.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweeps.checks import machine
from sweeps.errors import Problem
from sweeps.text import counted

if TYPE_CHECKING:
    from sweeps.spec import Spec

_UNITS = 10_000  # of one CPU or GPU: the finest share that Ray counts


@dataclass(frozen=True)
class Node:
    """What one node has for trials: CPUs, and whole GPUs."""

    cpus: float
    gpus: float = 0.0


def this_machine() -> Node:
    """This machine."""
    return Node(machine.cores(), machine.gpus())


def slots(spec: Spec, nodes: Iterable[Node]) -> int:
    """How many trials run at once on nodes, within what the spec allows; at least 1."""
    wanted = spec.resources
    fits = fitting(nodes, wanted.cpus, wanted.gpus, wanted.workers)
    return max(1, min(fits, wanted.parallel or fits))


def fitting(nodes: Iterable[Node], cpus: float, gpus: float, workers: int = 1) -> int:
    """How many trials these nodes hold at once; 0 where they do not hold one.

    Args:
        nodes: as if nothing else ran on them.
        cpus: of one rank.
        gpus: of one rank: none, a share of one, or whole ones.
        workers: ranks of one trial.
    """
    return sum(_on(node, cpus, gpus) for node in nodes) // workers


def placement_problem(spec: Spec, nodes: Sequence[Node]) -> Problem | None:
    """Why no trial of a sweep could ever be placed on these nodes; None where one could."""
    wanted = spec.resources
    if fitting(nodes, wanted.cpus, wanted.gpus, wanted.workers):
        return None
    have = ", ".join(f"{counted(node.cpus, 'CPU')} and {counted(node.gpus, 'GPU')}" for node in nodes)
    asked = f"{counted(wanted.cpus, 'CPU')} and {counted(wanted.gpus, 'GPU')} for "
    asked += "one trial" if wanted.workers == 1 else f"each of {wanted.workers} ranks"
    most = "one node has" if wanted.workers == 1 else "the nodes together hold"
    ranks = fitting(nodes, wanted.cpus, wanted.gpus)
    remedy = f"resources.workers: {ranks}" if ranks else "smaller trials"
    return Problem(spec.where("resources"), asked, f"no more than {most} ({have})", remedy)


def on_one_gpu(gpus: float) -> int:
    """How many trials share one GPU; at least 1."""
    return max(1, _UNITS // _units(gpus))


def _on(node: Node, cpus: float, gpus: float) -> int:
    fits = _units(node.cpus) // _units(cpus)
    if not gpus:
        return fits
    whole = _units(node.gpus) // _UNITS
    shares = _UNITS // _units(gpus)  # of one GPU; 0 where a trial has several
    return min(fits, whole * shares if shares else whole // (_units(gpus) // _UNITS))


def _units(amount: float) -> int:
    """As Ray rounds it. What is asked for is at least the finest share; the spec's check refuses less."""
    return max(1, round(amount * _UNITS)) if amount else 0
