"""Processes that end in the middle: the driver at any of its writes, and whoever writes a training state."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess

from tests.faults.oracle import survived
from tests.faults.world import Arena, Shape, World, ended

KILLED = -signal.SIGKILL
HELD = 1  # the exit code of whoever finds the sweep driven by another


def again(world: World) -> None:
    """The same command once more, which must do."""
    assert world.run() == 0, world.said()


def killed_at(arena: Arena, point: str, nth: int, do: str = "kill", **more: object) -> None:
    """Kill the whole sweep (driver and trial in one process) at a point; run the same command again."""
    with arena.cleared() as world:
        world.plan(point, nth, do, **more)
        assert world.run() == KILLED, f"no fault at {point} {nth}: {world.said()}"
        again(world)
        survived(world, arena.reference(Shape()))


def driver_at_write(arena: Arena, dice: random.Random, seed: int) -> None:
    """The n-th transaction, before and after its commit; as many seeds as there are writes try them all."""
    writes = arena.reference(Shape()).counts()["ledger before"]
    nth, when = seed // 2 % writes + 1, ("before", "after")[seed % 2]
    killed_at(arena, "ledger", nth, when=when)


def driver_twice(arena: Arena, dice: random.Random, seed: int) -> None:
    """Killed, and the resume killed again."""
    writes = arena.reference(Shape()).counts()["ledger before"]
    with arena.cleared() as world:
        for share in (0.3, 0.5):
            world.plan("ledger", dice.randrange(1, int(writes * share)), "kill", when="after")
            assert world.run() == KILLED, world.said()
        again(world)
        survived(world, arena.reference(Shape()))


def _states(arena: Arena) -> int:
    return arena.reference(Shape()).counts()["state before"]


def before_state(arena: Arena, dice: random.Random, seed: int) -> None:
    """Killed when the file of a training state has just been opened."""
    killed_at(arena, "state", dice.randint(1, _states(arena)), when="before")


def during_state(arena: Arena, dice: random.Random, seed: int) -> None:
    """Killed with a part of a training state written."""
    nth, share = dice.randint(1, _states(arena)), dice.random()
    killed_at(arena, "state", nth, "cut and kill", when="during", share=share)


def after_state(arena: Arena, dice: random.Random, seed: int) -> None:
    """Killed when a training state has just got its name."""
    killed_at(arena, "state", dice.randint(1, _states(arena)), when="after")


def any_moment(arena: Arena, dice: random.Random, seed: int) -> None:
    """Killed some milliseconds after a measurement, wherever that is."""
    curves = arena.reference(Shape()).counts()["curve before"]
    killed_at(arena, "curve", dice.randint(1, curves), "kill soon", seconds=dice.random() * 0.1)


def terminated(arena: Arena, dice: random.Random, seed: int) -> None:
    """SIGTERM, and SIGKILL up to three seconds later, as `ray job stop` does."""
    with arena.cleared() as world:
        steps = arena.reference(Shape()).counts()["step before"]
        world.plan("step", dice.randint(1, steps), "wait")
        process = world.begin()
        world.wait_for_fault(process)
        os.kill(process.pid, signal.SIGTERM)
        world.go()
        try:
            assert process.wait(dice.choice((0.1, 1.0, 3.0))) == 143, world.said()
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        again(world)
        survived(world, arena.reference(Shape()))


def frozen(arena: Arena, dice: random.Random, seed: int) -> None:
    """SIGSTOP past the lease; who comes meanwhile is told who drives it, and SIGCONT is all it takes."""
    with arena.cleared() as world:
        writes = arena.reference(Shape()).counts()["ledger before"]
        world.plan("ledger", dice.randint(1, writes), "stop", when="after")
        first = world.begin()
        stopped = world.wait_for_fault(first)["pid"]
        _expire(world)
        assert world.run("second") == HELD, world.said("second")
        assert f"process {stopped}" in world.said("second"), world.said("second")
        os.kill(stopped, signal.SIGCONT)
        assert ended(first) == 0, world.said()
        survived(world, arena.reference(Shape()))


def _expire(world: World) -> None:
    """Have twenty seconds of silence behind us; at the first writes there is no lease yet."""
    file = world.url.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(file, timeout=30)) as connection:
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'sweeps_lease'").fetchone():
            connection.execute("UPDATE sweeps_lease SET expires = 0")
            connection.commit()
