"""What must hold after every fault: the sweep ended as if nothing had happened, and nothing is left of it."""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.world import World, ended

LINGERING = 20.0  # seconds for what a killed driver leaves to see that it is gone


FRESH = ("replicate", "matched control")  # roles of runs under seeds that chose nothing


@dataclass(frozen=True)
class Ending:
    """How one trial stands in the ledger: all of it that must not depend on faults."""

    role: str
    state: str
    value: float | None
    test_losses: list[float]
    losses: Mapping[int, float]
    settings: Mapping[str, Any]
    reason: str = field(default="", compare=False)


def endings(world: World) -> dict[int, Ending]:
    """The ledger, read by plain Optuna."""
    with opened(world) as study:
        return {
            trial.number: Ending(
                marks.get("sweeps:role", "none"),
                trial.state.name,
                marks.get("sweeps:value", trial.value if trial.state.name == "COMPLETE" else None),
                marks.get("sweeps:test_losses", []),
                trial.intermediate_values,
                marks.get("sweeps:settings", {}),
                marks.get("sweeps:reason", ""),
            )
            for trial in study.trials
            for marks in [{**trial.user_attrs, **trial.system_attrs}]
        }


def survived(world: World, reference: World, *, failed: Mapping[int, str] | None = None) -> None:
    """Assert that a sweep ended as its fault-free twin did.

    Args:
        world: whose last command came to its end.
        reference: the twin.
        failed: trials that the fault was meant to end, with a word of their reason.
    """
    got, wanted = endings(world), endings(reference)
    _ledger(got, wanted, failed or {})
    ended_whole(world, got)
    if not failed:
        assert points(world) == points(reference), "MLflow has other points than without the fault"


def ended_whole(world: World, got: dict[int, Ending]) -> None:
    """Assert that MLflow and the exported model are what the ledger says, and that nothing is left."""
    _points(world, got)
    _export(world, got)
    _nothing_left(world)


def _ledger(got: dict[int, Ending], wanted: dict[int, Ending], failed: Mapping[int, str]) -> None:
    unfinished = {n: e.state for n, e in got.items() if e.state in ("RUNNING", "WAITING")}
    assert not unfinished, f"not ended: {unfinished}"
    if not failed:
        assert sorted(got) == sorted(wanted), f"trials {sorted(got)}, planned {sorted(wanted)}"
    for number, ending in got.items():
        if number in failed:
            assert ending.state == "FAIL", f"trial {number} is {ending.state}, its fault was passed over"
            assert failed[number] in ending.reason, (
                f"trial {number} failed, for another reason: {ending.reason}"
            )
        elif ending.role not in FRESH or not failed:  # with one trial out, others may be finalists
            assert ending == wanted[number], f"trial {number}: {ending}, without the fault {wanted[number]}"
    planned = Counter(ending.role for ending in wanted.values())
    found = Counter(ending.role for ending in got.values())
    for role in FRESH:
        del planned[role], found[role]
    assert found == planned


def mlflow_rows(world: World) -> list[tuple[str, str, int, float, str]]:
    """(trial, key, step, value, status) of every metric of every run that is not deleted."""
    with closing(sqlite3.connect(f"file:{world.mlflow}?mode=ro", uri=True)) as connection:
        query = """SELECT COALESCE(t.value, ''), m.key, m.step, m.value, r.status FROM metrics m
            JOIN runs r ON r.run_uuid = m.run_uuid
            LEFT JOIN tags t ON t.run_uuid = m.run_uuid AND t.key = 'sweeps.trial'
            WHERE r.lifecycle_stage = 'active' AND r.experiment_id = ?"""
        return list(connection.execute(query, (_experiment(connection, world),)))


def _experiment(connection: sqlite3.Connection, world: World) -> int:
    """Where this world's sweep is shown, on a server that many use."""
    query = "SELECT experiment_id FROM experiment_tags WHERE key = 'sweeps.identity' AND value = ?"
    found = connection.execute(query, (_identity(world),)).fetchall()
    assert len(found) == 1, f"{len(found)} experiments in MLflow for one sweep"
    return int(found[0][0])


def _identity(world: World) -> str:
    with opened(world) as study:
        return str(study.user_attrs["sweeps:identity"])


@contextmanager
def opened(world: World) -> Iterator[Any]:
    """The world's study, by plain Optuna."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.RDBStorage(world.url.replace("postgresql://", "postgresql+psycopg://", 1))
    try:
        yield optuna.load_study(study_name="tiny", storage=storage)
    finally:
        storage.engine.dispose()


def points(world: World) -> dict[str, list[tuple[str, int, float]]]:
    """What MLflow shows of each trial, without what the clock decides."""
    result: dict[str, list[tuple[str, int, float]]] = {}
    for trial, key, step, value, _ in mlflow_rows(world):
        shown = 0.0 if key in ("seconds", "tokens_per_second") else value
        result.setdefault(trial, []).append((key, step, shown))
    return {trial: sorted(rows) for trial, rows in result.items()}


def _points(world: World, got: dict[int, Ending]) -> None:
    rows = mlflow_rows(world)
    twice = [key for key, times in Counter(row[:3] for row in rows).items() if times > 1]
    assert not twice, f"more than once in MLflow: {twice[:5]}"
    running = {trial for trial, _, _, _, status in rows if status == "RUNNING"}
    assert not running, f"RUNNING in MLflow: {running}"
    for number, ending in got.items():
        shown = {row[2]: row[3] for row in rows if row[:2] == (f"tiny/{number}", "eval_loss")}
        assert shown == dict(ending.losses), f"trial {number}: MLflow {shown}, ledger {ending.losses}"
    with closing(sqlite3.connect(f"file:{world.mlflow}?mode=ro", uri=True)) as connection:
        query = "SELECT lifecycle_stage, COUNT(*) FROM runs WHERE experiment_id = ? GROUP BY 1"
        runs = dict(connection.execute(query, (_experiment(connection, world),)))
    assert runs.get("active", 0) == len(got) + 1, (
        f"{runs} runs in MLflow for {len(got)} trials and their sweep"
    )


def _export(world: World, got: dict[int, Ending]) -> None:
    """Plain transformers gives the loss that the ledger holds."""
    from transformers import AutoModelForCausalLM

    from tli.data.batches import open_tokens
    from tli.data.settings import DataSettings
    from tli.models.base import find
    from tli.training.evaluate import evaluate

    where = () if world.study == "sqlite" else ("--study", world.study)
    code = ended(world.start("export", "tiny", "--out", "best", "--json", *where, name="export"))
    said = world.said("export")
    assert code == 0, said
    answer = json.loads(said[said.index("{") :])
    model = AutoModelForCausalLM.from_pretrained(world.folder / "best")
    data = DataSettings(
        source=str(world.home / "text.txt"), heldout_fraction=0.2, sequence_length=16, eval_tokens=64
    )
    tokens = open_tokens(data, find(str(world.home / "model")), world.runs / "tokens")
    loss = evaluate(model, tokens.heldout_windows(sequence_length=16, eval_tokens=64)).loss
    recorded = got[answer["trial"]].value
    assert recorded is not None
    assert abs(loss - recorded) <= 1e-6 * recorded, f"exported {loss}, in the ledger {recorded}"


def _nothing_left(world: World, spared: Collection[int] = ()) -> None:
    deadline = time.monotonic() + LINGERING
    while left := set(world.processes()) - set(spared):
        assert time.monotonic() < deadline, f"left behind: {[_words(pid) for pid in left]}"
        time.sleep(0.1)
    aside = [path for path in world.runs.rglob("*.tmp-*") if "tokens" not in path.parts]
    assert not aside, f"half-written and left: {aside}"


def _words(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return str(pid)
