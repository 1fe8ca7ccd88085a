"""Several commands at once on one sweep: one of them works, the others say who does."""

from __future__ import annotations

import os
import random

from tests.faults.kills import HELD
from tests.faults.oracle import survived
from tests.faults.world import Arena, Shape, World, ended, environment
from tests.servers import LocalCluster


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


def many_submissions(arena: Arena, dice: random.Random, seed: int) -> None:
    """Twenty at once to a cluster's jobs server, under one id: one job, and all follow it to its end."""
    cluster = arena.once(
        "jobs", lambda: LocalCluster(arena.root, {**environment(), "SWEEPS_FAULTS": os.devnull})
    )
    with arena.cleared(environment=cluster.environment) as world:
        identity = f"tiny-{seed}-{dice.randrange(10**6)}"
        words = ("submit", "tiny.yaml", "--runs", str(world.runs), "--submission-id", identity)
        submitted = [world.start(*words, name=f"submit-{n}") for n in range(20)]
        said = [(ended(process), world.said(f"submit-{n}")) for n, process in enumerate(submitted)]
        assert [code for code, _ in said] == [0] * 20, said
        assert sum(f"{identity}: submitted" in text for _, text in said) == 1, said
        world.environment = {}
        survived(world, arena.reference(world.shape))
