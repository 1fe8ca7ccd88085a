"""What the search may spend beside its number of trials, what it has spent, and how far that takes it.

Spent is what the control, the baseline and the searched trials trained, by the ledger, and the time in which
a driver searched. Work that was lost and done again counts once; measuring counts as time alone. Replicates
of finalists come on top, as they do in trials.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweeps.awake import awake
from sweeps.records import Assignment, Point, Role, State, TrialRecord
from sweeps.rows import duration
from sweeps.spec import BudgetSettings

if TYPE_CHECKING:
    from sweeps.ledger import Ledger

_WALL_KEPT_EVERY = 5.0  # seconds; so much a killed driver forgets
_NOTHING: Mapping[str, float] = {"tokens": 0.0, "flops": 0.0, "seconds": 0.0}
_BY = "budget."  # before the name of a limit, in the reason of a trial that it stopped


class Spending:
    """What one sweep's search has spent, kept up by its driver; every limit is a hard stop.

    Once one is used up, no new searched trial starts, and those that run end at their next step, stopped. How
    much a trial has trained is known by its reports; the time in which a driver searches is known always.
    """

    def __init__(self, ledger: Ledger, *, clock: Callable[[], float] | None = None) -> None:
        """Go on from what the ledger holds.

        Args:
            ledger: the sweep's study; its driver is this process.
            clock: seconds; that of this process while it is not stopped, when left out.
        """
        self._ledger, self._budget, self._clock = ledger, ledger.spec.budget, clock or awake()
        self._gpus = ledger.spec.resources.gpus
        self._of: dict[int, Mapping[str, float]] = {}  # of each trial, up to its last report
        self._sums = dict(_NOTHING)
        for record in ledger.trials():
            if record.ours and record.role is not Role.REPLICATE:
                self._count(record.number, _totals(record))
        self._wall = self._kept = ledger.study.wall
        self._since: float | None = None

    def tick(self, *, searching: bool) -> None:
        """Time passes; it counts while the driver searches."""
        now = self._clock()
        if searching and self._since is not None:
            self._wall += now - self._since
        self._since = now
        most = self._budget.wall
        used_up = most is not None and self._kept < most <= self._wall  # which a restart must not forget
        if self._wall - self._kept >= _WALL_KEPT_EVERY or used_up:
            self._ledger.study.note_wall(self._wall)
            self._kept = self._wall

    def count(self, running: Assignment, last: Point) -> None:
        """Take what a trial has spent up to its last report. What is lost and done again was spent before."""
        if running.role is Role.REPLICATE:
            return
        if last.tokens > self._of.get(running.number, _NOTHING)["tokens"]:
            self._count(running.number, last.totals)
        self.tick(searching=True)

    def stops(self, running: Assignment, last: Point) -> bool:
        """Whether a trial that has reported is to stop because a limit is used up; written down then.

        The control and the baseline never are: without them there is nothing to compare with.

        Raises:
            StaleAttemptError: a later attempt runs this trial, or it has ended.
        """
        limit = self.used_up
        if limit is None or running.role is not Role.SEARCH or last.step >= running.steps:
            return False
        self._ledger.give_up(running.number, running.attempt, last, by=f"{_BY}{limit}")
        return True

    @property
    def spent(self) -> dict[str, float]:
        """By limit."""
        return {
            "tokens": self._sums["tokens"],
            "flops": self._sums["flops"],
            "gpu_hours": self._sums["seconds"] * self._gpus / 3600,
            "wall": self._wall,
        }

    @property
    def used_up(self) -> str | None:
        """The first limit that is used up, if any is."""
        spent = self.spent
        return next((name for name, most in self._budget.limits.items() if spent[name] >= most), None)

    def ended_by(self, asked: int) -> str:
        """What ended the search: the name of a setting of the budget, or `search` when all of it was tried.

        Args:
            asked: trials that count against the budget.
        """
        limit, whole = self.used_up, asked >= self._budget.trials
        if limit is not None and (not whole or any(map(_stopped_by_budget, self._ledger.trials()))):
            return limit
        return "trials" if whole else "search"

    def _count(self, number: int, totals: Mapping[str, float]) -> None:
        before = self._of.get(number, _NOTHING)
        for name in self._sums:
            self._sums[name] += totals[name] - before[name]
        self._of[number] = totals


def _totals(record: TrialRecord) -> dict[str, float]:
    return {"tokens": record.tokens or 0, "flops": record.flops or 0.0, "seconds": record.seconds or 0.0}


def _stopped_by_budget(record: TrialRecord) -> bool:
    return record.state is State.PRUNED and f"stopped by {_BY}" in (record.reason or "")


# -- two budgets of one study ---------------------------------------------------------------------


def raised(have: BudgetSettings, want: BudgetSettings) -> list[str]:
    """The settings in which a budget is larger than the one that a study has."""
    ours, theirs = have.to_json(), want.to_json()
    return [name for name in ours if _larger(theirs[name], ours[name])]


def going_on(have: BudgetSettings, want: BudgetSettings) -> tuple[BudgetSettings, list[str]]:
    """The budget that a study goes on with, and what a person should know about it.

    What was asked for is not taken back: the command that a sweep was started with may come again after it
    was given more. A limit that the study does not have yet is taken, for it is there to be kept.
    """
    ours, theirs, notes = have.to_json(), want.to_json(), []
    for name, known in ours.items():
        wanted = theirs[name]
        if known is None and wanted is not None:
            notes.append(f"the study's budget had no limit of {name}; now it is {amount(name, wanted)}")
        elif wanted is not None and wanted < known:
            theirs[name] = known
            had, without_unit = amount(name, known), amount(name, known).partition(" ")[0]
            less = amount(name, wanted).partition(" ")[0]
            notes.append(f"the study's budget is {had}, larger than {less}; going on with {without_unit}")
    return BudgetSettings.model_validate(theirs), notes


def _larger(want: Any, have: Any) -> bool:
    return have is not None and (want is None or want > have)


def amount(name: str, value: float | None) -> str:
    """A setting of the budget in words: `24 trials`, `1,000,000 tokens`, `1h30m of search`."""
    if value is None:
        return "no limit"
    shown = {
        "trials": f"{value:,} trials",
        "tokens": f"{value:,.0f} tokens",
        "flops": f"{value:.3g} FLOPs",
        "gpu_hours": f"{value:.4g} GPU-hours",
        "wall": f"{duration(value)} of search",
    }
    return shown[name]


def spent_in_words(spent: Mapping[str, float], limits: Mapping[str, float]) -> str:
    """What is limited, and how much of it is spent: `42,624 of 60,000 tokens, 1m20s of 1h00m of search`."""
    parts = (
        f"{amount(name, spent[name]).partition(' ')[0]} of {amount(name, limits[name])}" for name in limits
    )
    return ", ".join(parts)


# -- before anything runs -------------------------------------------------------------------------


@dataclass(frozen=True)
class Reach:
    """How far one setting of a budget takes the search: trials, the control and the baseline included.

    `least` were none stopped and all as deep as the deepest, `expected` if the stopping rule keeps its share
    and all depths are tried alike; None where the speed is not known.
    """

    name: str
    value: float
    least: float | None
    expected: float | None


def reaches(
    budget: BudgetSettings, first: Mapping[str, float], worst: Mapping[str, float], mean: Mapping[str, float]
) -> tuple[Reach, ...]:
    """How far each setting of a budget takes the search.

    Args:
        budget: of the spec.
        first: what the control and the baseline spend, by limit; those that are not known are left out.
        worst: what a whole trial of the deepest spends.
        mean: what a searched trial spends on average.
    """

    def paid(name: str, most: float, each: Mapping[str, float]) -> float | None:
        return 2 + max(0.0, most - first[name]) / each[name] if each.get(name) else None

    limits = budget.limits.items()
    trials = Reach("trials", budget.trials, budget.trials, budget.trials)
    return trials, *(Reach(n, most, paid(n, most, worst), paid(n, most, mean)) for n, most in limits)


def enough_for(reached: Sequence[Reach]) -> tuple[float, float]:
    """Searched trials that a budget is enough for, at least and expected, whatever is used up first."""
    least = min(each.least for each in reached if each.least is not None)
    return least - 2, min(each.expected for each in reached if each.expected is not None) - 2


def preview(reached: Sequence[Reach]) -> Iterator[tuple[str, str, str]]:
    """Rows of a table, its head first: each setting, and the trials that it is enough for."""
    yield "the search ends at", "at least", "expected"
    for each in reached:
        yield amount(each.name, each.value), _whole(each.least), _whole(each.expected)


def used_up_first(reached: Sequence[Reach]) -> str:
    """In a sentence, which setting it is that ends the search, as far as that is known."""
    known = {each.name: each.expected for each in reached if each.expected is not None}
    first = min(known, key=lambda name: known[name])
    unknown = [f"budget.{each.name}" for each in reached if each.name not in known]
    rest = f"; of {' and '.join(unknown)} nothing is known without --calibrate" if unknown else ""
    return f"budget.{first} is used up first, after about {_whole(known[first])}{rest}"


def _whole(trials: float | None) -> str:
    return "not known" if trials is None else f"{math.floor(trials):,} trials"
