"""One trial as a row: the columns of the live table, the plain line of a finished trial, its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sweeps.records import Role, State, TrialRecord
from sweeps.results.labels import configuration, init_label, rate, shape_label
from sweeps.text import duration, loss

# How each state is called, and its colour.
STATES = {
    State.WAITING: ("waiting", "dim"),
    State.RUNNING: ("running", "cyan"),
    State.COMPLETE: ("complete", "green"),
    State.PRUNED: ("stopped", "yellow"),
    State.FAIL: ("failed", "red"),
}


def window(records: Sequence[TrialRecord], rows: int) -> list[TrialRecord]:
    """The trials worth looking at: running ones, then those that ended last."""
    running = sorted((r for r in records if r.state is State.RUNNING), key=lambda r: -r.number)
    others = sorted((r for r in records if r.state.finished), key=ended, reverse=True)
    return (running + others)[:rows]


def best_so_far(records: Sequence[TrialRecord]) -> TrialRecord | None:
    """The complete trial with the lowest loss; the control, which is what to beat, does not count."""
    roles = (Role.BASELINE, Role.SEARCH)
    complete = [r for r in records if r.value is not None and r.role in roles and not r.original]
    return min(complete, key=lambda r: r.value if r.value is not None else float("inf"), default=None)


def ended(record: TrialRecord) -> tuple[float, int]:
    """Sorts trials by when they ended."""
    return record.finished or 0.0, record.number


def plain(record: TrialRecord) -> str:
    """A finished trial on one line."""
    word, _ = STATES[record.state]
    where = "" if record.state is State.COMPLETE else f" at step {record.step} of {record.steps}"
    parts = [f"trial {record.number:>3} {word}{where}", f"loss {loss(record.loss)}"]
    if record.initial_loss is not None:
        parts.append(f"from {loss(record.initial_loss)}")
    if record.role is not Role.SEARCH:
        parts.append(f"{record.role}{_of(record)}")
    parts.append(configuration(record))
    if record.started and record.finished:
        parts.append(duration(record.finished - record.started))
    if record.state is State.FAIL and record.reason:
        parts.append(record.reason.strip().splitlines()[0])
    return ", ".join(parts)


def _of(record: TrialRecord) -> str:
    if record.promotion is not None:
        return f" of {record.promotion.of}"
    return f" of {record.replicate_of}" if record.replicate_of is not None else ""


def _left(record: TrialRecord, left: float | None) -> str:
    return duration(left) if record.state is State.RUNNING and left is not None else ""


def _took(record: TrialRecord, _: float | None) -> str:
    ended = record.state.finished and record.started and record.finished
    return duration(record.finished - record.started) if ended else ""  # type: ignore[operator]


def _note(record: TrialRecord) -> str:
    if record.reason:
        return record.reason.strip().splitlines()[0]
    if record.promotion is not None:
        return f"of trial {record.promotion.of}, {record.promotion.words}"
    if record.replicate_of is not None:
        return f"of trial {record.replicate_of}, seed {record.seed}"
    return f"attempt {record.attempt}" if record.attempt > 1 else ""


def _speed(record: TrialRecord, _: float | None) -> str:
    return f"{record.tokens / record.seconds:,.0f}" if record.tokens and record.seconds else ""


# Title, alignment, least width, least width of the terminal that has it, and what it shows of a trial and the
# seconds that are left of it, where they are known.
Column = tuple[str, str, int, int, Callable[[TrialRecord, float | None], str]]
COLUMNS: tuple[Column, ...] = (
    ("trial", "right", 5, 0, lambda r, _: str(r.number)),
    ("role", "left", 9, 70, lambda r, _: str(r.role)),
    ("K", "right", 2, 0, lambda r, _: shape_label(r, short=True)),
    ("init", "left", 8, 0, lambda r, _: init_label(r)),
    ("lr", "right", 7, 0, lambda r, _: rate(r)),
    ("step", "right", 7, 0, lambda r, _: f"{r.step}/{r.steps}"),
    ("loss", "right", 6, 0, lambda r, _: loss(r.loss)),
    ("initial", "right", 7, 78, lambda r, _: loss(r.initial_loss)),
    ("state", "left", 8, 0, lambda r, _: STATES[r.state][0]),
    ("ETA", "right", 5, 60, _left),
    ("took", "right", 5, 96, _took),
    ("tokens/s", "right", 8, 110, _speed),
    ("note", "left", 0, 100, lambda r, _: _note(r)),
)


def settings_text(params: Mapping[str, Any]) -> str:
    """Searched values in one line, under their shortest names: `k=4 init=identity learning_rate=0.001`."""
    last = [path.rpartition(".")[2] for path in params]
    names = [path if last.count(end) > 1 else end for path, end in zip(params, last, strict=True)]
    return " ".join(f"{name}={formatted(value)}" for name, value in zip(names, params.values(), strict=True))


def formatted(value: Any) -> str:
    """A setting's value, numbers with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
