"""Fuzzes plans: `python -m tests.fuzz.fuzz_plan --runs 100000 --seed 0`.

Settings of an injection, sound and unsound, for stacks of any depth. Either PlanError says what is wrong, or the plan
keeps every old layer once and in order, makes new ones from layers that are there, survives JSON, and is refused when
somebody changed it there.
"""

from __future__ import annotations

import json
import random
import sys
from typing import Any

from tests.fuzz.command import command
from tli.errors import PlanError
from tli.planning.checks import injection_problems
from tli.planning.experts import Experts
from tli.planning.injection import IDENTITIES, INITS, METHODS, PLACES, RULES, SOURCES, Injection
from tli.planning.plan import Plan, plan_for

_NASTY: list[Any] = [
    None,
    -1,
    0,
    2**70,
    0.5,
    float("nan"),
    float("inf"),
    True,
    "",
    "x",
    "1:",
    ":",
    "9:2",
    "1,1",
    [],
    {},
]


def injection(rng: random.Random, depth: int) -> Injection:
    """Settings that fit a stack of `depth` layers, mostly; now and then some that fit none."""
    start = rng.randrange(depth)
    told: dict[str, Any] = {
        "method": rng.choice(METHODS),
        "k": rng.randint(1, depth),
        "place": rng.choice(PLACES),
        "layers": rng.choice(
            [None, f"{start}:", f":{start + 1}", f"{start}:{rng.randint(start + 1, depth)}"]
        ),
        "after": rng.choice(
            [None, None, ",".join(map(str, sorted(rng.sample(range(depth), min(depth, 3)))))]
        ),
        "least_important_sets": rng.choice([None, None, rng.randint(1, 3)]),
        "block": rng.choice([1, 1, rng.randint(1, depth)]),
        "m": rng.choice([None, rng.randint(0, max((depth - 1) // 2, 0))]),
        "g": rng.randint(2, 4),
        "init": rng.choice([None, *INITS]),
        "scale": rng.choice([None, rng.random(), *RULES]),
        "source": rng.choice(SOURCES),
        "noise": rng.choice([0.0, rng.random()]),
        "identity": rng.choice(IDENTITIES),
        "experts": Experts(rng.choice([None, None, 4]), rng.randint(1, 3), granularity=rng.randint(1, 4)),
    }
    for _ in range(rng.choice([0, 0, 1, 2])):
        told[rng.choice([name for name in told if name != "experts"])] = rng.choice(_NASTY)
    return Injection(**told)


def fuzz_one(rng: random.Random) -> bool:
    """One injection; whether it was accepted. Raises AssertionError for a fault of ours."""
    depth = rng.choice([1, 2, 3, rng.randint(1, 40), rng.randint(1, 130)])
    wanted = injection(rng, depth)
    change = [rng.random() for _ in range(depth)]
    try:
        decided = plan_for(wanted, depth, block_influence=change)
    except PlanError as error:
        assert injection_problems(wanted, depth), str(error)
        return False
    assert not injection_problems(wanted, depth)
    new = set(decided.injected)
    assert [source for i, source in enumerate(decided.sources) if i not in new] == list(range(depth))
    assert (len(new) > 0) == decided.injection.deepens
    for position in decided.injected:
        below, above = decided.neighbours(position)
        assert 0 <= below <= above < depth
        assert 0 <= decided.scale(position) <= 1
    assert str(decided).startswith(f"{depth} ")
    told = json.loads(json.dumps(decided.to_json()))
    assert Plan.from_json(told) == decided
    assert plan_for(decided.injection, depth, block_influence=decided.block_influence) == decided, (
        "what is resolved stays so"
    )
    _refuses_changes(told, decided, rng)
    return True


def _refuses_changes(told: dict[str, Any], decided: Plan, rng: random.Random) -> None:
    name = rng.choice(list(told))
    told[name] = rng.choice(_NASTY)
    try:
        assert Plan.from_json(told) == decided or name in ("injection", "block_influence", "new_depth")
    except PlanError:
        return


def run(runs: int, seed: int) -> tuple[int, int]:
    """Fuzzes `runs` injections; how many were accepted, and how many refused."""
    accepted = 0
    for number in range(runs):
        try:
            accepted += fuzz_one(random.Random(seed * 1_000_003 + number))
        except BaseException:
            sys.stderr.write(f"run {number} of seed {seed}\n")
            raise
    return accepted, runs - accepted


if __name__ == "__main__":
    sys.exit(command("plans of injections", run))
