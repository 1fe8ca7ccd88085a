"""A short selection of the fault suite; the whole by `make faults SEEDS=10`."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.faults.kinds import KINDS
from tests.faults.world import Arena


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    arena = Arena(tmp_path_factory.mktemp("faults"))
    yield arena
    arena.close()


@pytest.mark.parametrize(
    ("kind", "seed"),
    [
        ("driver-at-write", 41),
        *(pytest.param(kind, 0, marks=pytest.mark.slow) for kind in KINDS if kind != "driver-at-write"),
    ],
)
def test_a_sweep_ends_as_if_nothing_had_happened(arena: Arena, kind: str, seed: int) -> None:
    KINDS[kind](arena, random.Random(f"{kind} {seed}"), seed)
