"""Several commands at once on one sweep: one of them works, the others say who does."""

from __future__ import annotations

import random

from tests.faults.oracle import survived
from tests.faults.world import Arena, Shape, World, ended

HELD = 1  # the exit code of whoever finds the sweep held


def many_drivers(arena: Arena, dice: random.Random, seed: int) -> None:
    """Two to eight at once; every other time, whichever works is killed, and as many come again."""
    with arena.cleared() as world:
        if seed % 2:
            writes = arena.reference(Shape()).counts()["ledger before"]
            world.plan("ledger", dice.randint(1, writes), "kill", when="after")
        crowd(world, size := dice.randint(2, 8))
        if seed % 2:
            crowd(world, size)
        survived(world, arena.reference(Shape()))


def crowd(world: World, size: int) -> None:
    """Start so many at once, and wait for all; each that did nothing says why."""
    drivers = [world.begin(f"driver-{n}") for n in range(size)]
    codes = [ended(driver) for driver in drivers]
    killed = [code for code in codes if code < 0]
    assert len(killed) <= 1, codes
    assert killed or 0 in codes, codes
    for n, code in enumerate(codes):
        said = world.said(f"driver-{n}")
        assert code in (0, HELD, *killed), f"driver {n} ended with {code}: {said}"
        assert code != HELD or "process" in said.splitlines()[-1], (
            f"driver {n} does not say who works: {said}"
        )
        assert "Traceback" not in said, said
