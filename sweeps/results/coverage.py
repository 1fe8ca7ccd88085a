"""What a search has covered: values and pairs never tried, and tokens spent and saved."""

from __future__ import annotations

import itertools
from collections import Counter
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
    tokens_after: int  # of runs under fresh seeds, and of those that are made again to be scored
    tokens_of_ladder: int = 0
    tokens_of_scoring: int = 0


def searched_value(record: TrialRecord, path: str) -> Any:
    """What a trial of the search has at a searched path; None where it was not asked for."""
    if path in record.params:
        return record.params[path]
    return value_at(record.settings, path) if record.role is Role.BASELINE else None


def untried(records: Sequence[TrialRecord], choices: Mapping[str, Sequence[Any]]) -> tuple[Untried, ...]:
    """Values first, then pairs of K and first weights whose two values were both run to an end elsewhere.

    Args:
        records: of the search; the original model's are left out.
        choices: all values that a path may have, of paths with finitely many.
    """
    return tuple(_untried([record for record in records if not record.original], choices))


def _untried(grown: Sequence[TrialRecord], choices: Mapping[str, Sequence[Any]]) -> Iterator[Untried]:
    lacking: dict[tuple[str, str], int] = {}
    for path, values in choices.items():
        wanted = [value for value in values if (path, value) != ("injection.method", "none")]
        for found in _lacking(grown, (path,), [(value,) for value in wanted]):
            lacking[path, repr(found.settings[path])] = found.tried
            yield found
    if all(path in choices for path in PAIRED_PATHS):
        for found in _lacking(
            grown, PAIRED_PATHS, list(itertools.product(*(choices[path] for path in PAIRED_PATHS)))
        ):
            values = [lacking.get((path, repr(value))) for path, value in found.settings.items()]
            # A value that no trial had says it of all its pairs; one that none ended with, of those begun.
            if 0 not in values and (not found.tried or values == [None] * len(values)):
                yield found


def _lacking(
    grown: Sequence[TrialRecord], paths: Sequence[str], wanted: Sequence[tuple[Any, ...]]
) -> Iterator[Untried]:
    """Of these values together, those with which no trial was trained to its end."""
    begun: Counter[str] = Counter()
    done: set[str] = set()
    for record in grown:
        values = repr(tuple(searched_value(record, path) for path in paths))
        begun[values] += record.state is not State.WAITING
        if is_done(record):
            done.add(values)
    for each in wanted:
        if repr(each) not in done:
            yield Untried(dict(zip(paths, each, strict=True)), begun[repr(each)])


def spent(records: Sequence[TrialRecord]) -> Spent:
    """Of every trial that this sweep ran, as far as the ledger knows."""
    after = [record for record in records if record.role.fresh or record.role is Role.EVALUATION]
    climbed = sum(record.tokens or 0 for record in records if record.role is Role.RUNG)
    search = [record for record in records if not record.role.after]
    total, later = (sum(record.tokens or 0 for record in each) for each in (records, after))
    return Spent(
        tokens=total,
        seconds=sum(record.seconds or 0.0 for record in records),
        tokens_of_search=sum(record.tokens or 0 for record in search),
        tokens_saved=sum(map(_saved, search)),
        tokens_after=later,
        tokens_of_scoring=sum(record.tokens or 0 for record in records if record.role is Role.EVALUATION),
        tokens_of_ladder=climbed,
    )


def _saved(record: TrialRecord) -> int:
    if record.state is not State.PRUNED or not record.tokens or not record.step:
        return 0
    return round(record.tokens / record.step * (record.steps - record.step))
