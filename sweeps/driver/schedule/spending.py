"""Accounting of a budget while a sweep runs, and how a budget grows when it goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sweeps.checks.budget import amount
from sweeps.clock import awake
from sweeps.records import Assignment, Point, Role, State, TrialRecord
from sweeps.spec import BudgetSettings

if TYPE_CHECKING:
    from sweeps.ledger import Ledger, LedgerView


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
        self._gpus = ledger.spec.resources.all_gpus
        self._of: dict[int, Mapping[str, float]] = {}  # of each trial, up to its last report
        self._sums = dict(_NOTHING)
        for number, totals in _of_search(ledger):
            self._count(number, totals)
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
        if running.role.after:
            return
        if last.tokens > self._of.get(running.number, _NOTHING)["tokens"]:
            self._count(running.number, last.totals)
        self.tick(searching=True)

    def stops(self, running: Assignment, last: Point) -> bool:
        """Whether a trial that has reported is to stop because a limit is used up; written down then.

        Controls and the baseline never are: without them there is nothing to compare with.

        Raises:
            StaleAttemptError: a later attempt runs this trial, or it has ended.
        """
        limit = self.used_up
        if limit is None or running.role is not Role.SEARCH or last.step >= running.steps:
            return False
        self._ledger.mark_stopped(running.number, running.attempt, last, by=f"{_BY}{limit}")
        return True

    @property
    def spent(self) -> dict[str, float]:
        """By limit."""
        return _by_limit(self._sums, self._gpus, self._wall)

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


def spent(ledger: LedgerView) -> dict[str, float]:
    """What a sweep's search has spent by its study: tokens, FLOPs, GPU-hours, and seconds under `wall`."""
    sums = dict(_NOTHING)
    for _, totals in _of_search(ledger):
        for name in sums:
            sums[name] += totals[name]
    return _by_limit(sums, ledger.spec.resources.all_gpus, ledger.study.wall)


def _of_search(ledger: LedgerView) -> Iterator[tuple[int, Mapping[str, float]]]:
    for record in ledger.trials():
        if record.ours and not record.role.after:
            yield record.number, _totals(record)


def _by_limit(sums: Mapping[str, float], gpus: float, wall: float) -> dict[str, float]:
    return {
        "tokens": sums["tokens"],
        "flops": sums["flops"],
        "gpu_hours": sums["seconds"] * gpus / 3600,
        "wall": wall,
    }


def _totals(record: TrialRecord) -> dict[str, float]:
    return {"tokens": record.tokens or 0, "flops": record.flops or 0.0, "seconds": record.seconds or 0.0}


def _stopped_by_budget(record: TrialRecord) -> bool:
    return record.state is State.PRUNED and f"stopped by {_BY}" in (record.reason or "")


def raised(have: BudgetSettings, want: BudgetSettings) -> list[str]:
    """The settings in which a budget is larger than the one that a study has."""
    ours, theirs = have.to_json(), want.to_json()
    more = {"ladder": bool(set(want.ladder) - set(have.ladder))}
    return [name for name in ours if more.get(name, _larger(theirs[name], ours[name]))]


def going_on(have: BudgetSettings, want: BudgetSettings) -> tuple[BudgetSettings, list[str]]:
    """The budget that a study goes on with, and what the user should know about it.

    What was asked for is not taken back: the command that a sweep was started with may come again after it
    was given more. A limit that the study does not have yet is taken, for it is there to be kept.
    """
    ours, theirs, notes = have.to_json(), want.to_json(), []
    theirs["ladder"] = sorted({*have.ladder, *want.ladder})
    if set(have.ladder) - set(want.ladder):
        rungs = ", ".join(f"{tokens:,}" for tokens in theirs["ladder"])
        notes.append(f"the study's ladder has rungs that this one lacks; going on with {rungs} tokens")
    for name, known in ours.items():
        wanted = theirs[name]
        if name == "ladder":
            continue
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
