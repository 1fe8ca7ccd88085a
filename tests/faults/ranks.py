"""One of the processes that train a trial together ends, freezes, runs out of memory or is told to go."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.bench.processes import descendants
from tests.faults.cluster import MINUTES, on_nodes
from tests.faults.oracle import LINGERING, endings, opened, survived
from tests.faults.world import APART, Arena, Shape, World, ended

# Two nodes of one CPU each: every trial is spread over both, and one trial runs at a time.
RANKS = replace(APART, trials=3, parallel=1, workers=2)
_RANKS = ("ray::Peer", "ray::ResourceTrainable")
_STEPS = 10  # a rank makes at least eighteen in its first three trials; its faults come before


class _Kept:
    """Keeps nothing open: the world is the result."""

    def __init__(self, world: World) -> None:
        self.world = world

    def close(self) -> None:
        """Nothing to end."""


def _reference(arena: Arena, shape: Shape) -> World:
    """The same sweep without a fault, over as many ranks: sums over ranks round otherwise than one process does."""

    def run() -> _Kept:
        with on_nodes(arena, shape) as world:
            assert ended(world.begin(), 2 * MINUTES) == 0, world.said()
        return _Kept(world)

    return arena.once(f"reference {shape}", run).world


@contextlib.contextmanager
def _faulty(arena: Arena, dice: random.Random, seed: int, do: str, shape: Shape = RANKS) -> Iterator[World]:
    """A sweep over ranks that has come to its end after something was done to rank 0, or to rank 1."""
    reference = _reference(arena, shape)
    with on_nodes(arena, shape) as world:
        world.plan("step", dice.randint(3, _STEPS), do, role="worker", rank=seed % 2)
        assert ended(world.begin(), 2 * MINUTES) == 0, world.said()
        assert world.fired is not None, "the fault's moment did not come"
        _no_rank_left()
        yield world
        assert endings(reference), "the sweep without a fault has trials"


def _no_rank_left() -> None:
    """No process of a trial is left on the nodes, which go on: they are this process's children."""
    deadline = time.monotonic() + LINGERING
    while left := [words for pid in descendants(os.getpid()) if (words := _words(pid)).startswith(_RANKS)]:
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.1)


def _words(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def _retried(world: World, *causes: str) -> None:
    """Some trial was run again for one of these causes."""
    with opened(world) as study:
        retries = [dict(trial.system_attrs.get("sweeps:retries", {})) for trial in study.trials]
    assert any(each.get(cause) for each in retries for cause in causes), retries


def killed(arena: Arena, dice: random.Random, seed: int) -> None:
    """SIGKILL of any rank: the trial is lost, its group goes, and it goes on from its last state."""
    with _faulty(arena, dice, seed, "kill") as world:
        _retried(world, "lost")
        survived(world, _reference(arena, RANKS))


def frozen(arena: Arena, dice: random.Random, seed: int) -> None:
    """SIGSTOP of any rank: those that wait for it end within the watchdog's bound, and it is ended with them."""
    shape = replace(RANKS, silence=5)
    with _faulty(arena, dice, seed, "stop", shape) as world:
        _retried(world, "hung", "lost")
        survived(world, _reference(arena, shape))


def out_of_memory(arena: Arena, dice: random.Random, seed: int) -> None:
    """One rank alone has no memory left: the trial ends by that, whatever the other saw of it."""
    shape = replace(RANKS, halve="false")
    with _faulty(arena, dice, seed, "out of memory", shape) as world:
        failed: dict[int, str] = {
            number: "out of memory" for number, ending in endings(world).items() if ending.state == "FAIL"
        }
        assert len(failed) == 1, endings(world)
        survived(world, _reference(arena, shape), failed=failed)


def preempted(arena: Arena, dice: random.Random, seed: int) -> None:
    """SIGTERM to one rank: all write the state of the same step, and the trial goes on elsewhere."""
    with _faulty(arena, dice, seed, "terminate") as world:
        _retried(world, "preempted")
        survived(world, _reference(arena, RANKS))


KINDS: dict[str, Any] = {
    "rank-killed": killed,
    "rank-frozen": frozen,
    "rank-out-of-memory": out_of_memory,
    "rank-preempted": preempted,
}
