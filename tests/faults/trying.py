"""Tries seeds of kinds of faults, one after another or several at once."""

from __future__ import annotations

import multiprocessing
import queue
import random
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

from tests.faults.kinds import KINDS
from tests.faults.world import Arena

_SPAWNED = multiprocessing.get_context("spawn")
Ended = tuple[str, bool, float]  # kind, whether it survived, seconds


def one_by_one(place: Path, wanted: Iterable[tuple[int, str]]) -> Iterator[Ended]:
    """Try seeds of kinds in turn, in this process; `place` is for their worlds."""
    arena = Arena(place)
    try:
        for seed, kind in wanted:
            yield _try(arena, kind, seed)
    finally:
        arena.close()


def several_at_once(place: Path, wanted: Sequence[tuple[int, str]], jobs: int) -> Iterator[Ended]:
    """In so many processes, each with servers of its own, and each of which takes the next when it is through with one."""
    todo, done = _SPAWNED.Queue(), _SPAWNED.Queue()
    for each in (*wanted, *[None] * jobs):
        todo.put(each)
    running = [_SPAWNED.Process(target=_job, args=(place / f"job-{n}", todo, done)) for n in range(jobs)]
    for process in running:
        process.start()
    left = len(wanted)
    while left and any(process.is_alive() for process in running):
        with suppress(queue.Empty):
            yield done.get(timeout=1.0)
            left -= 1
    for process in running:
        process.join()


def _job(place: Path, todo: Queue[Any], done: Queue[Any]) -> None:
    place.mkdir(parents=True)
    with suppress(KeyboardInterrupt):
        for ended in one_by_one(place, iter(todo.get, None)):
            done.put(ended)


def _try(arena: Arena, kind: str, seed: int) -> Ended:
    began = time.monotonic()
    try:
        KINDS[kind](arena, random.Random(f"{kind} {seed}"), seed)
    except Exception:  # noqa: BLE001 - the next one is tried whatever this one does
        said = f"{traceback.format_exc()}\nNOT survived; replay: python -m tests.faults {kind} --seed {seed}"
        survived = False
    else:
        said, survived = f"survived: {kind} --seed {seed}", True
    print(said, flush=True)
    return kind, survived, time.monotonic() - began
