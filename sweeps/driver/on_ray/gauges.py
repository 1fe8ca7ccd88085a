"""A sweep's numbers for Prometheus: gauges that Ray's agents hand out, and where these agents are.

Written by a thread of the driver every few seconds, off the path of the trials; nothing waits for it, and a
fault in it costs no sweep.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, Self

import ray
from ray.util.metrics import Gauge

from sweeps.driver.on_ray import metric_names as names
from sweeps.driver.on_ray.metric_names import METRICS, Metric
from sweeps.folders import Folders
from sweeps.records import Cause, State, TrialRecord
from sweeps.results.standing import Board, Standing
from tli.files import replace_file

WRITTEN_EVERY = 5.0  # seconds
_TARGETS_EVERY = 6  # writings between two looks at the nodes
_KEPT = 50  # latest times between two measurements
Values = Iterator[tuple[Metric, float | None, Mapping[str, str]]]


class Gauges:
    """The numbers of one sweep, shown while it is entered; then they are NaN, which is drawn as nothing."""

    def __init__(
        self,
        board: Board,
        folders: Folders,
        slots: int,
        pending: Callable[[], int],
        every: float = WRITTEN_EVERY,
    ) -> None:
        """Show nothing yet.

        Args:
            board: how the sweep stands; told by `update`.
            folders: of the sweep.
            slots: trials that can run at once.
            pending: bytes that tracking has not delivered.
            every: seconds between two writings.
        """
        self._board, self._folders, self._slots, self._pending = board, folders, slots, pending
        self._every = every
        self._gauges = {m: Gauge(m.name, m.what, tag_keys=("sweep", *m.labels)) for m in METRICS}
        self._shown: set[tuple[Metric, tuple[tuple[str, str], ...]]] = set()
        self._records: Sequence[TrialRecord] = ()
        self._measured = time.monotonic()
        self._between: deque[float] = deque(maxlen=_KEPT)
        self._lag: float | None = None
        self._in_slot: dict[int, int] = {}  # numbers of running trials, by slot
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="gauges", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._thread.join(self._every)
        with suppress(Exception):  # Ray may be gone
            self.write()
            for metric, labels in list(self._shown):
                self._set(metric, math.nan, dict(labels))  # Ray's agent would hand the last ones out for ever
        with suppress(OSError):
            self._targets.unlink(missing_ok=True)

    def update(self, records: Sequence[TrialRecord], phase: str) -> None:
        """Take in how things stand; nothing is written here."""
        self._records = records
        self._board.take(records, phase)

    def spent(self, amounts: Mapping[str, float]) -> None:
        """Take in what the search has spent, by limit."""
        self._board.spend(amounts)

    def measured(self, when: float) -> None:
        """A measurement is in the study.

        Args:
            when: it was made, in seconds since the epoch.
        """
        now = time.monotonic()
        if self._lag is not None:  # the first one comes once the workers have started
            self._between.append(now - self._measured)
        self._measured, self._lag = now, max(0.0, time.time() - when)

    def write(self) -> None:
        """Write all of it now."""
        for metric, value, labels in self._values(self._board.standing(time.time(), 0)):
            if value is not None:
                self._set(metric, value, labels)

    # -- inside ----------------------------------------------------------------------------------------

    def _keep(self) -> None:
        turn = 0
        while True:
            try:
                self.write()
                if turn % _TARGETS_EVERY == 0:
                    self._write_targets()
            except Exception:
                logging.getLogger(__name__).debug("no gauges", exc_info=True)
            turn += 1
            if self._left.wait(self._every):
                return

    @property
    def _targets(self) -> Path:
        return self._folders.targets

    def _write_targets(self) -> None:
        """Where Ray's agents hand the gauges out, in a file that Prometheus looks for (`file_sd_configs`)."""
        alive = [node for node in ray.nodes() if node["Alive"]]
        found = sorted(f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}" for node in alive)
        self._folders.make(self._targets.parent)  # which follows no link
        replace_file(self._targets, json.dumps([{"targets": found, "labels": {"job": "ray"}}]).encode())

    def _set(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        self._shown.add((metric, tuple(labels.items())))
        self._gauges[metric].set(value, {"sweep": self._board.aim.name, **labels})

    def _values(self, standing: Standing) -> Values:
        best, control, left = standing.best, standing.control, standing.left
        for state in State:
            yield names.TRIALS, standing.counts.get(state, 0), {"state": state.value.lower()}
        yield names.PLANNED, standing.total, {}
        yield names.BEST, best.value if best else None, {}
        yield names.CONTROL, control.value if control else None, {}
        yield names.GAP, standing.gap, {}
        busy = min(len(standing.running), self._slots)
        yield names.SLOTS, busy, {"state": "busy"}
        yield names.SLOTS, self._slots - busy, {"state": "idle"}
        ends = (left.seconds, left.low, left.high) if left else (math.nan,) * 3
        for bound, seconds in zip(("likely", "low", "high"), ends, strict=True):
            yield names.LEFT, seconds, {"bound": bound}
        yield names.LEDGER_LAG, self._lag, {}
        yield names.TRACKING_LAG, self._pending(), {}
        yield names.SILENCE, time.monotonic() - self._measured if standing.running else 0.0, {}
        yield names.USUAL_SILENCE, max(self._between, default=None), {}
        usage = shutil.disk_usage(self._folders.artifacts)
        yield names.DISK_FREE, usage.free, {}
        yield names.DISK_SIZE, usage.total, {}
        yield names.UPDATED, time.time(), {}
        yield from self._of_slots(standing.running)
        yield from _costs([record for record in self._records if record.ours])

    def _of_slots(self, running: Sequence[TrialRecord]) -> Values:
        """One series a slot: a trial stays in the one that was free when it began."""
        known = {record.number: record for record in running}
        self._in_slot = {slot: number for slot, number in self._in_slot.items() if number in known}
        free = (slot for slot in count() if slot not in self._in_slot)
        for number in sorted(known.keys() - set(self._in_slot.values())):
            self._in_slot = {**self._in_slot, next(free): number}
        for slot in range(self._slots):
            record, labels = known.get(self._in_slot.get(slot, -1)), {"slot": str(slot)}
            yield names.TRIAL, record.number if record else math.nan, labels
            yield names.LOSS, record.loss if record and record.loss is not None else math.nan, labels
            yield names.DONE, record.step / max(record.steps, 1) if record else math.nan, labels


def _costs(records: Sequence[TrialRecord]) -> Values:
    """What all trials have cost so far, and which attempts ended without a result."""
    tokens = flops = seconds = 0.0
    roles: Counter[str] = Counter()
    failures: Counter[str] = Counter({cause.value: 0 for cause in Cause})
    now = time.time()
    for record in records:
        trained = record.tokens or record.step * int(record.settings.get("recipe", {}).get("batch_tokens", 0))
        tokens += trained
        flops += record.flops or trained * record.costs.get("flops_per_token", 0.0)
        if record.started is not None and record.state is not State.WAITING:
            seconds += max(0.0, (record.finished or now) - record.started)
        if record.state.finished:
            roles[str(record.role)] += 1
        failures.update({cause: number for cause, number in record.retries.items() if cause != "at"})
        if record.state is State.FAIL:
            failures[_cause(record)] += 1
    yield names.TOKENS, tokens, {}
    yield names.FLOPS, flops, {}
    yield names.SLOT_SECONDS, seconds, {}
    for role, number in roles.items():
        yield names.TRIALS_BY_ROLE, number, {"role": role}
    for reason, number in failures.items():
        yield names.FAILURES, number, {"reason": reason}


def _cause(record: TrialRecord) -> str:
    """Of a trial that failed: as its reason begins, or as its attempts before ended; else an error."""
    reason: Any = record.reason or ""
    begun = (cause.value for cause in Cause if reason.startswith(cause.value))
    tried = (cause for cause in record.retries if cause != "at")
    return next(begun, None) or next(tried, Cause.ERROR.value)
