"""What the model of a search says once it is over: the best loss of each value, and what stopping cost.

It is worked out by the driver and kept in the study, so that reading an answer loads no numerical library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sweeps.records import Role, TrialRecord

Value = Any  # of a choice: text, number or truth value
Pair = tuple[str, str]


@dataclass(frozen=True)
class SweepCompletion:
    """One time that all of a budget was carried out; a sweep that is extended has several."""

    trials: int  # all that there were, replicates too
    budget: Mapping[str, Any]
    time: float  # wall clock, seconds since the epoch
    ended_by: str  # what ended the search: the name of a setting of the budget, or `search`
    changeable: Mapping[str, Any] | None = None  # of the spec, what may change later; None where not known


@dataclass(frozen=True)
class Estimate:
    """The best loss with one value of a setting, over the other settings, whether or not it was tried.

    Attributes
    ----------
    mean : float
        Held-out loss, nats per token.
    half_width : float or None
        Of its 95 % interval; None where it is the loss of one trial, and no estimate.
    tried : int
        Trials with this value.
    complete : int
        Of those, run to their end.
    chance : float or None
        That its best is within the margin of the best of all values, by the model's joint posterior.
    """

    mean: float
    half_width: float | None
    tried: int
    complete: int
    chance: float | None = None


@dataclass(frozen=True)
class Best:
    """Where the lowest loss lies on a range, the other settings being the best ones.

    Attributes
    ----------
    value : float or int
        Of the lowest mean.
    low, high : float or int
        Outside of these, values are worse by more than the margin, at 95 % for each.
    share : float
        Of the range that the interval takes, on its scale.
    tried : int
        Different values that were tried.
    """

    value: float
    low: float
    high: float
    share: float
    tried: int


@dataclass(frozen=True)
class Along:
    """The lowest loss along a range with one value of a choice, the settings besides being the best ones.

    Attributes
    ----------
    points : tuple of float
        Values of the range, rising.
    means, half_widths : tuple of float
        Held-out loss at each, nats per token, and half of its 95 % interval.
    """

    points: tuple[float, ...]
    means: tuple[float, ...]
    half_widths: tuple[float, ...]


@dataclass(frozen=True)
class StoppingEvidence:
    """How far the stopping of a sweep can be trusted, by its own whole curves.

    Attributes
    ----------
    stopped : int
        Trials that were stopped early.
    top : int
        How many of the best are meant.
    expected : float
        Of the stopped ones, the expected number that would have ended among the best.
    at_most : int
        So many at most, with a chance of 95 %.
    """

    stopped: int
    top: int
    expected: float
    at_most: int


@dataclass(frozen=True)
class SearchAnswers:
    """What is known of the choices of a search.

    Attributes
    ----------
    trials : int
        Ended trials of the search that this was made of.
    values : mapping of str to mapping of value to Estimate
        By dotted path and value.
    pairs : mapping of (str, str) to mapping of (value, value) to Estimate
        By two paths and two values.
    ranges : mapping of str to Best
        By dotted path.
    stopping : StoppingEvidence or None
        None where nothing was stopped, or too few whole curves tell.
    valleys : mapping of value to Along
        Along the learning rate, for each K that is searched; empty where either is not.
    """

    trials: int
    values: Mapping[str, Mapping[Value, Estimate]]
    pairs: Mapping[Pair, Mapping[tuple[Value, Value], Estimate]]
    ranges: Mapping[str, Best]
    stopping: StoppingEvidence | None
    valleys: Mapping[Value, Along] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values: what is by value becomes a list, for a value may be a number."""
        return {
            "trials": self.trials,
            "values": {
                path: [[v, asdict(e)] for v, e in found.items()] for path, found in self.values.items()
            },
            "pairs": [
                [list(pair), [[list(v), asdict(e)] for v, e in found.items()]]
                for pair, found in self.pairs.items()
            ],
            "ranges": {path: asdict(best) for path, best in self.ranges.items()},
            "stopping": asdict(self.stopping) if self.stopping else None,
            "valleys": [[value, asdict(along)] for value, along in self.valleys.items()],
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> SearchAnswers:
        """The inverse of `to_json`.

        Raises:
            TypeError, ValueError, KeyError: it is not that.
        """
        if type(plain["trials"]) is not int:
            raise TypeError("a whole number of trials")
        values = {
            str(path): {value: _estimate(found) for value, found in rows}
            for path, rows in plain["values"].items()
        }
        pairs = {
            (str(one), str(other)): {(a, b): _estimate(found) for (a, b), found in rows}
            for (one, other), rows in plain["pairs"]
        }
        ranges = {str(path): Best(**best) for path, best in plain.get("ranges", {}).items()}
        stopping = StoppingEvidence(**plain["stopping"]) if plain["stopping"] else None
        # Studies that ended before there were any have none.
        valleys = {value: _along(found) for value, found in plain.get("valleys", ())}
        return cls(plain["trials"], values, pairs, ranges, stopping, valleys)


def ended_trials(records: Sequence[TrialRecord]) -> int:
    """How many trials of a search have ended: what its answers are made of."""
    return sum(r.role in (Role.BASELINE, Role.SEARCH) and r.state.finished for r in records)


def _along(plain: Mapping[str, Any]) -> Along:
    columns = {name: tuple(map(float, plain[name])) for name in ("points", "means", "half_widths")}
    if len({len(column) for column in columns.values()}) != 1:
        raise ValueError("columns of one length")
    return Along(**columns)


def _estimate(plain: Mapping[str, Any]) -> Estimate:
    found = Estimate(**plain)
    numbers = [found.mean, found.half_width or 0.0, found.tried, found.complete, found.chance or 0.0]
    if not all(isinstance(each, int | float) and not isinstance(each, bool) for each in numbers):
        raise TypeError("an estimate is of numbers")
    return found
