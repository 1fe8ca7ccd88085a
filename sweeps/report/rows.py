"""One trial as a row: the columns of the live table, the plain line of a finished trial, its settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sweeps.records import Role, State, TrialRecord
from sweeps.results.expected import Expected
from sweeps.results.labels import configuration, init_label, rate, shape_label
from sweeps.text import duration, loss, short, short_value

# How each state is called.
STATES = {
    State.WAITING: "waiting",
    State.RUNNING: "running",
    State.COMPLETE: "complete",
    State.PRUNED: "stopped",
    State.FAIL: "failed",
}


def plain(record: TrialRecord) -> str:
    """A finished trial on one line."""
    word = STATES[record.state]
    where = "" if record.state is State.COMPLETE else f" at step {record.step} of {record.steps}"
    parts = [f"trial {record.number:>3} {word}{where}", f"loss {loss(record.loss)}"]
    if record.initial_loss is not None:
        parts.append(f"from {loss(record.initial_loss)}")
    if (aim := record.aim or record.front_score) is not None:
        parts.append(f"{aim.name} {aim.score:.4f}")
    if record.role is not Role.SEARCH:
        parts.append(f"{record.role}{_of(record)}")
    parts.append(configuration(record))
    if (seconds := _seconds(record)) is not None:
        parts.append(duration(seconds) + " of training" * (record.attempt > 1))
    if record.state is State.FAIL and record.reason:
        parts.append(record.reason.strip().splitlines()[0])
    return ", ".join(parts)


def _of(record: TrialRecord) -> str:
    if record.role is Role.EVALUATION and record.replicate_of is None:
        return " of the base"
    if record.promotion is not None:
        return f" of {record.promotion.of}"
    return f" of {record.replicate_of}" if record.replicate_of is not None else ""


@dataclass(frozen=True)
class Shown:
    """A trial, and what is known of it beside its record: seconds to its end, its expected final loss."""

    record: TrialRecord
    left: float | None = None
    expected: Expected | None = None
    control: TrialRecord | None = None


@dataclass(frozen=True)
class Column:
    """A column of the live table; the lowest ranks are left out last. `wide` 0: what there is room for."""

    title: str
    rank: int
    wide: int
    show: Callable[[Shown], str]
    left: bool = False


def _left(shown: Shown) -> str:
    running = shown.record.state is State.RUNNING
    return duration(shown.left) if running and shown.left is not None else ""


def _took(shown: Shown) -> str:
    seconds = _seconds(shown.record)
    return "" if seconds is None else duration(seconds)


def _seconds(record: TrialRecord) -> float | None:
    """From the start to the end of a trial that ended; of one that was interrupted those of training alone.

    Between its attempts the sweep may have stood still.
    """
    if not record.state.finished or not record.started or not record.finished:
        return None
    return record.seconds if record.attempt > 1 else record.finished - record.started


def _note(shown: Shown) -> str:
    record = shown.record
    if record.reason:
        return record.reason.strip().splitlines()[0]
    if record.promotion is not None:
        return f"of trial {record.promotion.of}, {record.promotion.words}"
    if record.role is Role.RUNG:
        return f"of trial {record.replicate_of}, {short(record.settings['recipe']['tokens'])} tokens"
    if record.replicate_of is not None:
        return f"of trial {record.replicate_of}, seed {record.seed}"
    if record.role is Role.EVALUATION:
        return "the base"
    timed = ", took: training alone" if record.state.finished else ""
    return f"attempt {record.attempt}{timed}" if record.attempt > 1 else ""


def _speed(shown: Shown) -> str:
    record = shown.record
    return f"{record.tokens / record.seconds:,.0f}" if record.tokens and record.seconds else ""


def _expected(shown: Shown) -> str:
    """The final loss that a running trial is expected to reach, and half of its 95 % interval, rounded up."""
    found = shown.expected
    if found is None:
        return ""
    return f"{found.mean:.4f} ±{math.ceil(1000 * found.half_width) / 1000:.3f}"


def _gap(shown: Shown) -> str:
    """The final loss minus the control's under the same seed; of a running trial the expected one."""
    record, control = shown.record, shown.control
    if control is None or control.value is None or record.seed != control.seed or record.original:
        return ""
    end = record.value if shown.expected is None else shown.expected.mean
    return f"{end - control.value:+.4f}" if end is not None else ""


COLUMNS: tuple[Column, ...] = (
    Column("trial", 0, 5, lambda it: str(it.record.number)),
    Column("role", 9, 9, lambda it: str(it.record.role).partition(" ")[0], left=True),
    Column("K", 3, 2, lambda it: shape_label(it.record, short=True)),
    Column("init", 8, 8, lambda it: init_label(it.record), left=True),
    Column("lr", 5, 7, lambda it: rate(it.record)),
    Column("step", 4, 7, lambda it: f"{it.record.step}/{it.record.steps}"),
    Column("loss", 1, 6, lambda it: loss(it.record.loss)),
    Column("expected", 6, 13, _expected),
    Column("gap", 10, 7, _gap),
    Column("initial", 12, 7, lambda it: loss(it.record.initial_loss)),
    Column("state", 2, 8, lambda it: STATES[it.record.state], left=True),
    Column("ETA", 7, 5, _left),
    Column("took", 11, 6, _took),
    Column("tokens/s", 13, 8, _speed),
    Column("note", 14, 0, _note, left=True),
)


def settings_text(params: Mapping[str, Any]) -> str:
    """Searched values in one line, under their shortest names: `k=4 init=identity learning_rate=0.001`."""
    last = [path.rpartition(".")[2] for path in params]
    names = [path if last.count(end) > 1 else end for path, end in zip(params, last, strict=True)]
    return " ".join(
        f"{name}={short_value(value)}" for name, value in zip(names, params.values(), strict=True)
    )
