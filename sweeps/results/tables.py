"""Trials and curves as plain rows, one naming for programs; and as data frames where pandas is installed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from statistics import fmean
from typing import TYPE_CHECKING, Any

from sweeps.by_text import Sources
from sweeps.errors import InputError, Problem
from sweeps.records import Point, TrialRecord
from sweeps.results.ranking import ranking
from sweeps.results.verdict import Verdict

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]  # of numbers, texts, true and false, None where missing, and moments in UTC

_MOMENT = "datetime64[us, UTC]"
# What every trial has, in this order, with the type that it has in a data frame; None: text.
TRIAL_COLUMNS: Mapping[str, str | None] = {
    "trial": "int64",
    "role": None,
    "state": None,
    "loss": "float64",
    "initial_loss": "float64",
    "test_loss": "float64",
    "finalist": "bool",
    "rank": "Int64",
    "best": "bool",
    "replicate_of": "Int64",
    "promotes": "Int64",
    "seed": "int64",
    "step": "int64",
    "steps": "int64",
    "tokens": "Int64",
    "flops": "float64",
    "seconds": "float64",
    "attempt": "int64",
    "started": _MOMENT,
    "finished": _MOMENT,
    "reason": None,
}
CURVE_COLUMNS: Mapping[str, str | None] = {
    "trial": "int64",
    "step": "int64",
    "tokens": "Int64",
    "flops": "float64",
    "seconds": "float64",
    "eval_loss": "float64",
    "train_loss": "float64",
    "time": _MOMENT,
}


def trial_rows(records: Sequence[TrialRecord], verdict: Verdict) -> list[Row]:
    """One row a trial, by number, each with the same columns; `sweeps.Sweep.to_dataframe` documents them.

    Args:
        records: every trial of a sweep.
        verdict: of them.
    """
    ranks = {number: place for place, number in enumerate(ranking(verdict, records), start=1)}
    finalists = {finalist.number for finalist in verdict.finalists}
    ordered = sorted(records, key=lambda record: record.number)
    settings = {record.number: dict(_flat(record.settings)) for record in ordered}
    searched = {path: None for each in settings.values() for path in each}  # in the order of the spec
    scored = {record.number: _scores(record) for record in ordered}
    names = {name: None for each in scored.values() for name in each}
    texts = dict.fromkeys(name for record in ordered for name in record.sources)
    rows = []
    for record in ordered:
        row = {
            "trial": record.number,
            "role": str(record.role),
            "state": str(record.state),
            "finalist": record.number in finalists,
            "rank": ranks.get(record.number),
            "best": record.number == verdict.best,
            "promotes": record.promotion.of if record.promotion is not None else None,
            "started": _moment(record.started),
            "finished": _moment(record.finished),
        }
        row = {name: row[name] if name in row else getattr(record, name) for name in TRIAL_COLUMNS}
        row |= _by_text(texts, record.sources) | {
            path: settings[record.number].get(path) for path in searched
        }
        rows.append(row | {name: scored[record.number].get(name) for name in names})
    return rows


def curve_rows(records: Sequence[TrialRecord], curves: Mapping[int, Sequence[Point]]) -> list[Row]:
    """One row a held-out measurement that the ledger has, by trial and step, as `sweeps.Sweep.curves` says.

    Args:
        records: of the sweep.
        curves: by the number of a trial, what its curve on disk holds.
    """
    rows = []
    every = (point for points in curves.values() for point in points)
    texts = dict.fromkeys(name for point in every for name in point.sources)
    for record in sorted(records, key=lambda each: each.number):
        points = {point.step: point for point in curves.get(record.number, ())}
        for step in sorted(record.losses):
            row: Row = {**dict.fromkeys(CURVE_COLUMNS), **_by_text(texts, {})}
            row |= {"trial": record.number, "step": step, "eval_loss": record.losses[step]}
            if (point := points.get(step)) is not None:
                row |= {"tokens": point.tokens, "flops": point.flops, "seconds": point.seconds}
                losses = [loss for _, loss in point.train_loss]
                row |= {"train_loss": fmean(losses) if losses else None, "time": _moment(point.time or None)}
                row |= _by_text(texts, point.sources)
            rows.append(row)
    return rows


def _by_text(texts: Iterable[str], sources: Sources) -> Row:
    """Held-out losses on each of several texts; no column where there is one text."""
    found = {name: sources.get(name) for name in texts}
    losses = {f"eval_loss/{name}": each.eval_loss if each else None for name, each in found.items()}
    return losses | {
        f"bits_per_byte/{name}": each.bits_per_byte if each else None for name, each in found.items()
    }


def plain(row: Row) -> Row:
    """A row with its moments as ISO 8601 texts, as JSON and CSV have them."""
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}


def frame(rows: Sequence[Row], columns: Mapping[str, str | None]) -> pd.DataFrame:
    """The rows as a data frame: `columns` first, with their types, then what else is in the rows.

    Raises:
        InputError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ModuleNotFoundError as error:
        if error.name != "pandas":
            raise
        problem = Problem("pandas", "no package of this name", "it, for a data frame", "pip install pandas")
        raise InputError(problem) from None
    names = dict.fromkeys([*columns, *(name for row in rows[:1] for name in row)])
    values = {name: [row[name] for row in rows] for name in names}
    types = {name: columns[name] if name in columns else _type(values[name]) for name in names}
    return pd.DataFrame({name: pd.Series(values[name], dtype=types[name]) for name in names})


def _type(values: Sequence[Any]) -> str | None:
    """The type of a setting's column: whole numbers stay whole where some trials have none."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return "boolean"
    if kinds == {int}:
        return "Int64"
    return "float64" if kinds and kinds <= {int, float} else "object"


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by dotted path, without the seed, which is a column of its own."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif prefix or name != "seed":
            yield f"{prefix}{name}", value


def _scores(record: TrialRecord) -> dict[str, float | None]:
    """Each number of its downstream tasks by the name that it has in the study: `kobest_copa acc`."""
    found: dict[str, float | None] = {}
    for task, scores in record.tasks.items():
        for name, score in scores.metrics.items():
            found |= {f"{task} {name}": score.value, f"{task} {name}_stderr": score.stderr}
    return found


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
