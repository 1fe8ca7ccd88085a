"""A short selection of the fault suite; the whole by `make faults SEEDS=10`."""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.kinds import KINDS
from tests.faults.nursery import Nursery
from tests.faults.oracle import survived
from tests.faults.world import Arena, Shape, World


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    arena = Arena(tmp_path_factory.mktemp("faults"))
    yield arena
    arena.close()


# Of damaged states tests/tli/test_state.py has every kind, by default.
SHORT = {"driver-at-write": 41}


@pytest.mark.parametrize(
    ("kind", "seed"),
    [
        *SHORT.items(),
        *(pytest.param(kind, 0, marks=pytest.mark.slow) for kind in KINDS if kind not in SHORT),
    ],
)
def test_a_sweep_ends_as_if_nothing_had_happened(arena: Arena, kind: str, seed: int) -> None:
    KINDS[kind](arena, random.Random(f"{kind} {seed}"), seed)


def _in_mlflow(statement: str) -> Callable[[World], None]:
    return lambda world: _execute(world.mlflow, statement)


def _in_the_ledger(statement: str) -> Callable[[World], None]:
    return lambda world: _execute(world.runs / "study.db", statement)


def _execute(database: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert connection.execute(statement).rowcount > 0
        connection.commit()


def _blank(world: World) -> None:
    for model in world.runs.rglob("model.safetensors"):
        data = bytearray(model.read_bytes())
        data[-4096:] = bytes(4096)
        model.write_bytes(data)


DAMAGES: dict[str, tuple[Callable[[World], None], str]] = {
    "a trial that nobody ended": (
        _in_the_ledger("UPDATE trials SET state = 'RUNNING' WHERE number = 3"),
        "not ended",
    ),
    "a trial too many": (
        _in_the_ledger("INSERT INTO trials (number, study_id, state) VALUES (99, 1, 'FAIL')"),
        "planned",
    ),
    "another loss": (
        _in_the_ledger("UPDATE trial_intermediate_values SET intermediate_value = 1.0 WHERE step = 0"),
        "without the fault",
    ),
    "a point that is missing": (
        _in_mlflow("DELETE FROM metrics WHERE key = 'train_loss' AND step = 1"),
        "other points",
    ),
    "a loss of MLflow's own": (
        _in_mlflow("UPDATE metrics SET value = 1.0 WHERE key = 'eval_loss'"),
        "ledger",
    ),
    "a point that is there twice": (
        _in_mlflow(
            "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) "
            "SELECT key, value + 1, timestamp, run_uuid, step, is_nan FROM metrics WHERE key = 'eval_loss'"
        ),
        "more than once",
    ),
    "a run that goes on": (_in_mlflow("UPDATE runs SET status = 'RUNNING'"), "RUNNING in MLflow"),
    "a run too many": (
        _in_mlflow(
            "INSERT INTO runs (run_uuid, lifecycle_stage, status, experiment_id, artifact_uri) "
            "SELECT 'x', 'active', 'FINISHED', MAX(experiment_id), '' FROM experiments"
        ),
        "runs in MLflow",
    ),
    "a model with other weights": (_blank, "changed since it was written"),
    "a file that is half-written": (lambda world: (world.runs / ".x.tmp-1").touch(), "half-written"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_oracle_sees(arena: Arena, damage: str) -> None:
    reference = arena.reference(Shape())
    with arena.cleared() as world:
        shutil.rmtree(world.runs)
        shutil.copytree(reference.runs, world.runs)
        do, says = DAMAGES[damage]
        do(world)
        with pytest.raises(AssertionError, match=says):
            survived(world, reference)


@pytest.mark.slow
def test_a_process_number_that_comes_again_is_another_child() -> None:
    """A whole run of the suite starts more processes than there are numbers."""
    nursery = Nursery.__new__(Nursery)
    again = ["sh", "-c", "read order; echo ended 7 0; echo started 7; read more"]
    nursery._process = subprocess.Popen(again, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    nursery._ended, nursery._rest = {7: 0}, b""
    try:
        child = nursery.start(["run"], Path(), {}, Path("log"))
        assert child.pid == 7
        assert child.poll() is None
    finally:
        nursery.close()
