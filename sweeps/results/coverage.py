"""What a search has covered: values and pairs never tried, and tokens spent and saved."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.records import Role, State, TrialRecord
from sweeps.results.finalists import is_done
from sweeps.spec.equivalence import value_at

PAIRED_PATHS = ("injection.k", "injection.init")  # whose values are looked at together, too


@dataclass(frozen=True)
class Untried:
    """A value, or a pair of values, of which no grown model was trained to its end."""

    settings: Mapping[str, Any]  # value by dotted path
    tried: int  # trials that were begun and stopped, failed, or still run


@dataclass(frozen=True)
class Spent:
    """Training of all trials, and what stopping saved of the search's."""

    tokens: int
    seconds: float
    tokens_of_search: int
    tokens_saved: int  # of the trials that were stopped, up to their budget
    tokens_after: int  # of runs under fresh seeds


def untried(records: Sequence[TrialRecord], choices: Mapping[str, Sequence[Any]]) -> tuple[Untried, ...]:
    """Values first, then pairs of K and first weights whose two values were both run to an end elsewhere.

    Args:
        records: of the search; the original model's are left out.
        choices: all values that a path may have, of paths with finitely many.
    """
    grown = [record for record in records if not record.original and record.settings]
    return tuple(_untried(grown, choices))


def _untried(grown: Sequence[TrialRecord], choices: Mapping[str, Sequence[Any]]) -> Iterator[Untried]:
    lacking: set[tuple[str, str]] = set()
    for path, values in choices.items():
        for value in values:
            if (found := _of(grown, {path: value})) is not None and (path, value) != (
                "injection.method",
                "none",
            ):
                lacking.add((path, repr(value)))
                yield found
    if not all(path in choices for path in PAIRED_PATHS):
        return
    for values in itertools.product(*(choices[path] for path in PAIRED_PATHS)):
        settings = dict(zip(PAIRED_PATHS, values, strict=True))
        known = any((path, repr(value)) in lacking for path, value in settings.items())
        if not known and (found := _of(grown, settings)) is not None:
            yield found


def _of(grown: Sequence[TrialRecord], settings: Mapping[str, Any]) -> Untried | None:
    """None where one was trained to its end."""
    having = [
        record
        for record in grown
        if all(value_at(record.settings, path) == value for path, value in settings.items())
    ]
    begun = sum(record.state is not State.WAITING for record in having)
    return None if any(is_done(record) for record in having) else Untried(settings, begun)


def spent(records: Sequence[TrialRecord]) -> Spent:
    """Of every trial that this sweep ran, as far as the ledger knows."""
    after = [record for record in records if record.role in (Role.REPLICATE, Role.MATCHED)]
    search = [record for record in records if record.role not in (Role.REPLICATE, Role.MATCHED)]
    total, later = (sum(record.tokens or 0 for record in each) for each in (records, after))
    return Spent(
        tokens=total,
        seconds=sum(record.seconds or 0.0 for record in records),
        tokens_of_search=total - later,
        tokens_saved=sum(map(_saved, search)),
        tokens_after=later,
    )


def _saved(record: TrialRecord) -> int:
    if record.state is not State.PRUNED or not record.tokens or not record.step:
        return 0
    return round(record.tokens / record.step * (record.steps - record.step))
