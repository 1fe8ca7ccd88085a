"""What makes a trial's numbers, its files, the study or the time untrue."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from tests.faults.kills import KILLED, again
from tests.faults.oracle import ended_whole, endings, opened, survived
from tests.faults.world import Arena, Shape, World

ALONE = Shape(sampler="random", rule="none")


def not_a_number(arena: Arena, dice: random.Random, seed: int) -> None:
    """A gradient that is no number, at any step: that trial diverged, and the others know nothing of it."""
    with arena.cleared(ALONE) as world:
        reference = arena.reference(ALONE)
        searched = reference.counts()["step before"]
        world.plan("step", dice.randint(1, searched), "nan")
        again(world)
        fired = world.fired
        assert fired is not None, "the fault's moment did not come"
        number = int(Path(fired["latest"]["curve"]).parent.name)
        if endings(world)[number].role == "replicate":
            failed = endings(world)[number]
            assert failed.state == "FAIL", failed
            assert "at step" in failed.reason, failed
        else:
            survived(world, reference, failed={number: "at step"})


def damaged_state(arena: Arena, dice: random.Random, seed: int) -> None:
    """Killed, and the last training state is cut short or has a bit flipped: an earlier one is gone on from."""
    with arena.cleared() as world:
        states = arena.reference(Shape()).counts()["state before"]
        world.plan("state", dice.randint(1, states), "kill", when="after")
        assert world.run() == KILLED, world.said()
        assert world.fired is not None
        damage(Path(world.fired["latest"]["state"]), dice, cut=seed % 2 == 0)
        again(world)
        survived(world, arena.reference(Shape()))


def damage(state: Path, dice: random.Random, *, cut: bool) -> None:
    """Cut a file anywhere, or flip any of its bits."""
    size = state.stat().st_size
    where = dice.randrange(size)
    with state.open("r+b") as file:
        if cut:
            file.truncate(where)
        else:
            file.seek(where)
            old = file.read(1)[0]
            file.seek(where)
            file.write(bytes([old ^ (1 << dice.randrange(8))]))


def planted_rows(arena: Arena, dice: random.Random, seed: int) -> None:
    """Killed, and plain Optuna elsewhere leaves trials RUNNING in the study: they are left alone, and all others run."""
    with arena.cleared(ALONE) as world:
        _until_it_searches(world, dice)
        with opened(world) as study:
            room = ALONE.trials - sum(e.role != "replicate" for e in endings(world).values())
            planted = [study.ask().number for _ in range(dice.randint(1, room))]  # and never told
        again(world)
        got = endings(world)
        assert {got.pop(number).state for number in planted} == {"RUNNING"}
        planned = Counter(ending.role for ending in endings(arena.reference(ALONE)).values())
        assert Counter(ending.role for ending in got.values()) == planned
        ended_whole(world, got)


def deleted_study(arena: Arena, dice: random.Random, seed: int) -> None:
    """Killed at a state, and the study is deleted: the next sweep of its name uses nothing of the dead one."""
    import optuna

    with arena.cleared(ALONE) as world:
        states = arena.reference(ALONE).counts()["state before"]
        world.plan("state", dice.randint(1, states), "kill", when="after")
        assert world.run() == KILLED, world.said()
        left = {path.name for path in world.runs.rglob("step-*")}
        with opened(world) as study:
            optuna.delete_study(study_name=study.study_name, storage=study._storage)
        again(world)
        (aside,) = world.runs.glob("tiny.before-*")
        assert {path.name for path in aside.rglob("step-*")} == left, "it is set aside whole"
        survived(world, arena.reference(ALONE))


def _until_it_searches(world: World, dice: random.Random) -> None:
    """Kill it when control and baseline are in the ledger, and some of the search is not."""
    world.plan("curve", dice.randint(8, 13), "kill")
    assert world.run() == KILLED, world.said()
    found = len(endings(world))
    assert 2 <= found < world.shape.trials, f"{found} trials at the kill"


def moved_clock(arena: Arena, dice: random.Random, seed: int) -> None:
    """The driver's clock jumps by up to a month, either way; every other time it is killed soon after."""
    with arena.cleared() as world:
        writes = arena.reference(Shape()).counts()["ledger before"]
        moved = dice.choice((-1, 1)) * dice.uniform(60, 30 * 86400)
        kill = {"kill": dice.random() / 2} if seed % 2 else {}
        world.plan("ledger", dice.randint(1, writes // 2), "clock", seconds=moved, **kill)
        if seed % 2:
            assert world.run() == KILLED, world.said()
        again(world)
        assert world.fired is not None, "the clock was not moved"
        survived(world, arena.reference(Shape()))
