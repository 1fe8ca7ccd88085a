"""A fuzz target for all that is read back: `python -m tests.fuzz.fuzz_kept --runs 100000 --seed 0`.

A runs folder and a study may come from a stranger. Each run changes one thing in real ones at random (a kept spec,
the outbox and its sidecar, a training state, a curve, a lineage, attributes of the study and of a trial, a token
file's manifest, the small marks) and reads it as the product does. It must be refused by an error of ours, stepped
over, or read; nothing may be written outside the folder that is written to, and memory stays below 1 GB.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import resource
import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

from sweeps.curve import CURVE, append_curve, read_curve
from sweeps.errors import SweepError
from sweeps.ledger import Ledger
from sweeps.ownership import MARK, study_uuid_in
from sweeps.records import Assignment, Role
from sweeps.report.next_commands import Screen
from sweeps.report.rows import plain
from sweeps.report.status import Line, list_text, status_text
from sweeps.report.summary import best_lines
from sweeps.results.compare import _named_trial
from sweeps.results.finding import named
from sweeps.results.listing import sweeps_in
from sweeps.results.sweep import Sweep
from sweeps.tracking.batches import batches
from sweeps.tracking.outbox import EVENTS, SENT, Outbox, read_events, read_sent
from sweeps.worker.watchdog import hung
from tests.fuzz.command import command
from tests.fuzz.fuzz_header import _bit, _bytes, _tokens, _twice, _values
from tests.fuzz.kept_world import World, point
from tli.data.batches import Tokens
from tli.data.manifests import manifest_of
from tli.data.sides import SIDES
from tli.errors import InputError
from tli.models.lineage import read_lineage
from tli.planning.plan import Plan
from tli.training.export import copy_model

MOST_MEMORY = 1 << 30  # bytes


def run(runs: int, seed: int) -> tuple[int, int]:
    """`runs` changes made from `seed`; after how many something was read, and how many were refused."""
    world, read = World.made(), 0
    for number in range(runs):
        source = random.Random(f"{seed}/{number}")
        name = source.choices(list(TARGETS), WEIGHTS)[0]
        try:
            with world.watched():
                read += TARGETS[name](world, source)
        except Exception as error:
            raise AssertionError(f"{name}: seed {seed}, number {number}") from error
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert not _ALONE or peak < MOST_MEMORY, f"{peak / 1e6:.0f} MB"
    sys.stdout.write(f"peak memory {peak / 1e6:.0f} MB; " if _ALONE else "")
    return read, runs - read


_ALONE = False  # whether this process does nothing else, so that its memory is this target's


def mutated(source: random.Random, text: bytes) -> bytes:
    """A text with up to three changes of one kind."""
    kind = source.choice((_values, _values, _values, _tokens, _bytes, _bit, _twice))
    for _ in range(source.randrange(1, 4)):
        text = kind(source, text)
    return text


def _read(what: Callable[[], Any]) -> bool:
    """Whether it can be read; an error of ours is a refusal."""
    try:
        what()
    except (InputError, SweepError) as error:
        assert len(str(error)) < 20_000, "a refusal fits the screen"
        return False
    return True


# -- what is kept, one function each ----------------------------------------------------------------


def kept_spec(world: World, source: random.Random) -> bool:
    """runs/NAME/spec.json, by the commands that find a sweep by its name."""
    good = json.dumps(world.spec.to_json()).encode()
    world.folders.spec.write_bytes(mutated(source, good))
    try:
        return _read(lambda: named("kept", runs=str(world.runs)).to_json())
    finally:
        world.folders.spec.write_bytes(good)


def outbox(world: World, source: random.Random) -> bool:
    """outbox.jsonl, by the driver and by the delivering process."""
    folder = world.home / "box"
    shutil.rmtree(folder, ignore_errors=True)
    box = Outbox(folder)
    box.put("sweep", when=1.0, params={"a": "1"}, tags={"b": "2"})
    box.put("trial", 1, when=1.0, name="0001", params={"k": "4"}, tags={"sweeps.request": "r"})
    box.points(1, 1, [point(0), point(4)])
    box.put("end", 1, when=2.0, status="COMPLETE", tags={"a": "b"}, metrics={"objective": 3.0})
    box.put("rank", numbers=[1])
    box.put("end", when=3.0, status="COMPLETE", tags={}, objectives=[[1, 3.0, 2.0]])
    box.close()
    lines = (folder / EVENTS).read_bytes().splitlines(keepends=True)
    place = source.randrange(len(lines))
    lines[place] = mutated(source, lines[place].rstrip(b"\n")) + b"\n"
    (folder / EVENTS).write_bytes(b"".join(lines))
    again = Outbox(folder)
    again.points(1, 1, [point(8)])
    again.has(1, [0, 4])
    again.close()
    found = [event for event, _ in read_events(folder / EVENTS) if event is not None]
    assert batches(found)
    json.dumps(found, ensure_ascii=False).encode()
    return len(found) > len(lines)


def sidecar(world: World, source: random.Random) -> bool:
    """outbox.sent."""
    folder = world.home / "box"
    folder.mkdir(exist_ok=True)
    good = json.dumps({"offset": 5, "target": "t", "experiment_id": "1", "experiment": "kept"})
    (folder / SENT).write_bytes(mutated(source, good.encode()))
    sent = read_sent(folder)
    Outbox(folder).close()
    return sent is not None


def state(world: World, source: random.Random) -> bool:
    """A training state, whole by its digest or not."""
    from tli.training.state import load_latest

    training, good = _training(world)
    length = int.from_bytes(good[:8], "little")
    text, data = good[8 : 8 + length], good[8 + length :]
    if source.random() < 0.9:
        text = mutated(source, text)
    else:
        data = _bytes(source, data)
    whole = (
        (len(text) if source.random() < 0.9 else source.randrange(2**63)).to_bytes(8, "little") + text + data
    )
    folder = world.home / "states"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    digest = hashlib.sha256(whole).hexdigest()[:16] if source.random() < 0.9 else "0" * 16
    tag = hashlib.sha256(b"owner").hexdigest()[:8]
    (folder / f"step-{source.choice((0, 0, 2)):08d}-{tag}-{digest}.safetensors").write_bytes(whole)
    return load_latest(training, folder, "owner")


@cache
def _training(world: World) -> tuple[Any, bytes]:
    """A real training of few parameters, and its state's bytes."""
    import numpy as np
    from transformers import AutoConfig, AutoModelForCausalLM

    from tli.data.batches import Batches
    from tli.training.loop import Training
    from tli.training.recipe import Recipe
    from tli.training.state import save_state

    config = AutoConfig.for_model("gpt2", vocab_size=8, n_embd=4, n_layer=1, n_head=1, n_positions=8)
    model = AutoModelForCausalLM.from_config(config)
    text = np.zeros(100, dtype=np.uint16)
    how = Recipe(tokens=64, batch_tokens=16, learning_rate=1e-3)
    training = Training(model, how, Batches(text, 8, 2, 0), np.zeros((2, 9), dtype=np.int64))
    path = save_state(training, world.home / "state", "owner")
    return training, path.read_bytes()


def curve(world: World, source: random.Random) -> bool:
    """A trial's curve."""
    path = world.home / CURVE
    path.unlink(missing_ok=True)
    for step in (0, 4, 8):
        append_curve(path, point(step), "owner")
    path.write_bytes(mutated(source, path.read_bytes()))
    found = read_curve(path, "owner")
    assert all(isinstance(point.step, int) and isinstance(point.eval_loss, float) for point in found)
    return bool(found)


def lineage(world: World, source: random.Random) -> bool:
    """A kept model's lineage.json, by `sweeps export`, `tli verify` and `tli inspect`."""
    folder = _model(world)
    good = (folder / "lineage.json").read_bytes()
    shutil.rmtree(world.out, ignore_errors=True)
    (folder / "lineage.json").write_bytes(_led_out(source, mutated(source, good)))

    def look() -> None:
        told = read_lineage(folder)
        Plan.from_json(told["plan"], "plan")
        str(told["base"]["name"] + (told["base"]["revision"] or ""))
        copy_model(folder, world.out)

    try:
        return _read(look)
    finally:
        (folder / "lineage.json").write_bytes(good)


def _led_out(source: random.Random, text: bytes) -> bytes:
    """Sometimes with a file's name that leads elsewhere."""
    names = (b"../config.json", b"/etc/passwd", b"a/../../x", b"..", b"config.json\\u0000", b"./config.json")
    return (
        text.replace(b'"config.json"', b'"' + source.choice(names) + b'"') if source.random() < 0.2 else text
    )


@cache
def _model(world: World) -> Path:
    from transformers import AutoModelForCausalLM

    from tli.models.base import find
    from tli.models.lineage import lineage as lineage_of
    from tli.planning.plan import plan
    from tli.training.export import write_model

    model = AutoModelForCausalLM.from_pretrained(world.home / "model")
    told = lineage_of(find(str(world.home / "model")), plan(4, 2), seed=0)
    for path in (world.home / "model").glob("*.bin"):
        path.unlink()
    write_model(model, world.home / "final-1", beside=world.home / "model", lineage=told)
    return world.home / "final-1"


def attributes(world: World, source: random.Random) -> bool:
    """One attribute of the study or a trial, another row of theirs; by the commands that look, and the driver."""
    tables = (
        "study_user_attributes",
        "trial_user_attributes",
        "trial_user_attributes",
        "trial_params",
        "trials",
    )
    table = source.choice(tables)
    column = {"trial_params": "distribution_json", "trials": "state"}.get(table, "value_json")
    with closing(sqlite3.connect(world.database)) as base:
        rows = base.execute(f"SELECT rowid, {column} FROM {table}").fetchall()
        row, good = source.choice(rows)
        if table == "trials":
            bad = source.choice(("RUNNING", "WAITING", "FAIL", "PRUNED", "COMPLETE", "KING"))
        else:
            bad = mutated(source, str(good).encode()).decode("utf-8", "replace")
        change = f"UPDATE {table} SET {column} = ? WHERE rowid = ?"
        base.execute(change, (bad, row))
        base.commit()
        try:
            return _read(lambda: _looked_at(world))
        finally:
            base.execute(change, (good, row))
            base.commit()


def _looked_at(world: World) -> None:
    listed = sweeps_in(world.runs)
    reason = str(listed["kept"].reason)
    assert re.match(r"\w+: ", reason) is None, reason  # an error that no one foresaw
    ledger = Ledger.read(world.url, "kept")
    sweep = Sweep(ledger.spec, world.folders, ledger)
    records = sweep.records
    status_text(records, driven=False)
    list_text({"kept": Line(records, driven=False, best=listed["kept"].best)})
    told = Screen("kept", "kept", ended=sweep.used_up)
    best_lines(sweep.verdict, records, told)
    json.dumps(sweep.verdict.to_json())
    for record in records:
        plain(record)
        ledger.owner(record)
        _read(lambda record=record: _named_trial("kept", record.number, records, sweep))
    assert ledger.finished in (True, False)
    for record in ledger.unfinished():
        assert record.ours
    assert ledger.study.study_uuid
    assert ledger.study.input_digests is not None


def tokens(world: World, source: random.Random) -> bool:
    """The manifest beside token files."""
    folder = world.home / "tokens"
    folder.mkdir(exist_ok=True)
    for side in SIDES:
        (folder / f"{side}.bin").write_bytes(bytes(64))
    good = {"settings": {}, "dtype": "uint16", "digest": "d", **{f"{side}_tokens": 32 for side in SIDES}}
    text = json.dumps({**good, "heldout_bytes": 100}).encode()
    (folder / "manifest.json").write_bytes(mutated(source, text))
    if manifest_of(folder) is None:
        return False
    found = Tokens(folder)
    assert found.train.nbytes == found.heldout.nbytes == found.test.nbytes == 64
    return True


def marks(world: World, source: random.Random) -> bool:
    """The small files: whose a folder is, a recall, stacks, a lock's holder."""
    folders, assignment = world.folders, Assignment("kept", 1, 1, Role.SEARCH, {}, 1, (1,), token="token")
    folders.make(folders.trial(1))
    mark = mutated(source, b'{"study": "kept", "identity": "i"}')
    (folders.sweep / MARK).write_bytes(mark)
    folders.stop_request(1, 1).write_bytes(mutated(source, b'"token"'))
    folders.hung(1, 1).write_bytes(mutated(source, b'"token"\n"stacks"'))
    (folders.sweep / "driver.lock").write_bytes(mark)
    folders.stop_requested(assignment)
    hung(folders, assignment)
    with folders.driver_lock():
        pass
    folders.drop_checkpoints(1)
    return study_uuid_in(folders.sweep) is not None


TARGETS: dict[str, Callable[[World, random.Random], bool]] = {
    "kept spec": kept_spec,
    "outbox": outbox,
    "sidecar": sidecar,
    "state": state,
    "curve": curve,
    "lineage": lineage,
    "attributes": attributes,
    "tokens": tokens,
    "marks": marks,
}
WEIGHTS = [20 if name == "attributes" else 100 for name in TARGETS]  # it takes thirty times as long


if __name__ == "__main__":
    _ALONE = True
    sys.exit(command("what is read back from disk and study", run))
