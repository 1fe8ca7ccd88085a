"""The pages of `sweeps status` and `sweeps list`: a line a trial, a line a sweep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType

from sweeps.records import Role, State, TrialRecord
from sweeps.report.rows import STATES, settings_text
from sweeps.results.candidates import Candidate
from sweeps.text import join, loss, section, short, table

INTERRUPTED = "interrupted"  # a running trial whose driver has ended; the next run goes on with it
_COUNTED = {State.COMPLETE: "complete", State.PRUNED: "stopped", State.FAIL: "failed"}


@dataclass(frozen=True)
class Line:
    """What the list says of one sweep; `driven` where a process runs it now."""

    records: Sequence[TrialRecord]
    driven: bool
    best: Candidate | None = None  # what its answer hands over


def status_text(records: Sequence[TrialRecord], *, driven: bool, width: int | None = None) -> str:
    """One line per trial: how it stands, how far it is, its loss and what was searched.

    Args:
        records: of the sweep.
        driven: whether a process runs the sweep now.
        width: of the terminal, at which lines are cut; None where there is none.
    """
    if not records:
        return "No trials yet."
    words = dict(STATES)
    if not driven:
        words[State.RUNNING] = INTERRUPTED
    rows = [
        (str(r.number), str(r.role), words[r.state], f"{r.step}/{r.steps}", loss(r.loss), _note(r, driven))
        for r in sorted(records, key=lambda record: record.number)
    ]
    ours = [record for record in records if record.ours]
    counted = [f"{sum(r.state is state for r in ours)} {word}" for state, word in words.items()]
    counted.append(f"{len(records) - len(ours)} {Role.OTHER}")
    header = ("trial", "role", "state", "step", "loss", "settings")
    shown = table(header, rows, left={1, 2, 5}, width=width)
    return join([", ".join(part for part in counted if not part.startswith("0 "))], shown)


def list_text(sweeps: Mapping[str, Line], unread: Mapping[str, str] = MappingProxyType({})) -> str:
    """One line per sweep, by name: its trials by state, its best, when it last moved (UTC).

    The best is the trial that the sweep's answer hands over, its loss the mean over fresh seeds.

    Args:
        sweeps: by name.
        unread: those that are there and could not be read, with the reason.
    """
    missing = section("Could not be read", [f"  {name}: got {reason}" for name, reason in unread.items()])
    if not sweeps:
        return join(missing or ["No sweeps here."])
    running = {
        name: sum(each.ours and each.state is State.RUNNING for each in line.records)
        for name, line in sweeps.items()
    }
    left = any(running[name] and not line.driven for name, line in sweeps.items())
    header = ("sweep", "trials", *_COUNTED.values(), "running", *([INTERRUPTED] if left else []))
    rows = []
    for name, line in sorted(sweeps.items()):
        states = [record.state for record in line.records if record.ours]
        counts = [str(states.count(state)) for state in _COUNTED]
        counts += [str(running[name] if line.driven else 0)]
        counts += [str(0 if line.driven else running[name])] if left else []
        best = [str(line.best.number), loss(line.best.mean)] if line.best else ["-", "-"]
        rows.append((name, str(len(states)), *counts, *best, _last(line.records)))
    return join(table((*header, "best", "loss", "last (UTC)"), rows, left={0}), missing)


def _note(record: TrialRecord, driven: bool) -> str:  # noqa: FBT001
    """What was searched, or why it failed, or whose replicate it is, or what it waits for."""
    if record.waits and driven:
        return f"waits for {record.waits}"
    if record.state is State.FAIL and record.reason:
        return " ".join(record.reason.split())
    if record.promotion is not None:
        return f"of {record.promotion.of}, {record.promotion.words}"
    if record.role is Role.RUNG:
        return f"of {record.replicate_of}, {short(record.settings['recipe']['tokens'])} tokens"
    if record.replicate_of is not None:
        return f"of {record.replicate_of}, seed {record.seed}"
    return "the base" if record.role is Role.EVALUATION else settings_text(record.params)


def _last(records: Iterable[TrialRecord]) -> str:
    times = [time for record in records for time in (record.started, record.finished) if time is not None]
    return datetime.fromtimestamp(max(times), UTC).strftime("%Y-%m-%d %H:%M") if times else "-"
