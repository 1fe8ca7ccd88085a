"""How a sweep stands, in numbers: what the live table, the plain lines and `sweeps status` show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

from sweeps.clock import awake
from sweeps.records import State, TrialRecord
from sweeps.results.expected import Expectations, Expected
from sweeps.results.pace import Clock, Left, Pace, Rest, rest_of, share
from sweeps.results.tally import Tally

if TYPE_CHECKING:
    from sweeps.spec import Spec

_BEFORE = ("starting", "search")  # phases before the search is over
Due = Callable[[Sequence[TrialRecord]], int]


@dataclass(frozen=True)
class Aim:
    """What a sweep is to do: `trials` of its search, at most `fresh` runs after it; its limits. `long`: it is
    of a promotion, whose runs are among those that count then, and in no sweep else.
    """

    name: str
    trials: int
    fresh: int = 0
    limits: Mapping[str, float] = field(default_factory=dict)
    long: bool = False


def aim_of(spec: Spec) -> Aim:
    """What a spec's sweep is to do."""
    scored = bool(spec.evaluation.tasks) and "base" in spec.evaluation.on
    after = spec.replicates + spec.rung_runs + scored
    return Aim(spec.name, spec.budget.trials, after, spec.budget.limits)


def due_of(spec: Spec) -> Due:
    """How many more runs there will be under fresh seeds, on rungs and for scores alone, by the trials that
    there are.
    """

    def due(records: Sequence[TrialRecord]) -> int:
        from sweeps.results import evaluated
        from sweeps.results.ladder import rungs_due
        from sweeps.results.matched import runs_due

        chosen, ladder = spec.finalists, spec.budget.ladder
        rungs = len(rungs_due(records, ladder, chosen.top, spec.spread, depth=None))
        scored = evaluated.base_due(spec, records) + len(list(evaluated.runs_due(spec, records)))
        fresh = runs_due(records, chosen.top, chosen.seeds, spec.spread, matched=spec.control.matched)
        return rungs + scored + fresh

    return due


@dataclass(frozen=True)
class Standing:
    """How a sweep stands at a moment.

    Attributes:
        phase: what it does: `search`, `finalists`, `ladder`, or what comes before.
        seconds: since the display began.
        counts: of trials, by state; those with none are left out.
        total: trials that it may have; never less than there are.
        best: the complete grown trial with the lowest loss, or the best score where the search goes by a
            task, under the search's own seed.
        control: the complete run of the original with the lowest loss, or best score, under the same seed.
        running: trials that run, the latest first.
        recent: those that ended last, the last first.
        expected: final losses of running trials, by number, where enough whole curves tell.
        left_of: seconds to the end of running trials, by number, where their speed is known.
        left: to the end of the sweep; None where its speed is not known, or nothing is left.
        budget_left: what the search may still spend: (what is left, the whole) by setting.
        starting: whether the trials that run have reported nothing since the display began, nor any other.
    """

    name: str
    phase: str
    seconds: float
    counts: Mapping[State, int]
    total: int
    best: TrialRecord | None
    control: TrialRecord | None
    running: tuple[TrialRecord, ...]
    recent: tuple[TrialRecord, ...]
    expected: Mapping[int, Expected]
    left_of: Mapping[int, float]
    left: Left | None
    budget_left: Mapping[str, tuple[float, float]]
    share: float
    starting: bool

    @property
    def ended(self) -> int:
        """Trials that have ended."""
        return sum(number for state, number in self.counts.items() if state.finished)

    @property
    def gap(self) -> float | None:
        """The best loss minus the control's, nats per token: below 0 is better than training on."""
        if self.best is None or self.control is None:
            return None
        assert self.best.value is not None
        assert self.control.value is not None
        return self.best.value - self.control.value

    @property
    def ahead(self) -> bool:
        """Whether the best is better than the control, by what the search goes by."""
        if self.best is None or self.control is None:
            return False
        ours, theirs = self.best.minimised, self.control.minimised
        return ours is not None and theirs is not None and ours < theirs

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values, the same few whatever the number of trials."""
        left = self.left
        return {
            "phase": self.phase,
            "counts": {state.value: number for state, number in self.counts.items()},
            "total": self.total,
            "best": _loss_of(self.best),
            "control": _loss_of(self.control),
            "control_gap": self.gap,
            "running": [
                {
                    "trial": record.number,
                    "step": record.step,
                    "steps": record.steps,
                    "loss": record.loss,
                    "expected": each.mean if (each := self.expected.get(record.number)) else None,
                    "half_width": each.half_width if each else None,
                }
                for record in self.running
            ],
            "left": {"seconds": left.seconds, "low": left.low, "high": left.high} if left else None,
            "budget_left": {name: has for name, (has, _) in self.budget_left.items()},
        }


def _loss_of(record: TrialRecord | None) -> dict[str, Any] | None:
    if record is None:
        return None
    aim = record.aim or record.front_score
    score = {"score": aim.score} if aim is not None else {}
    return {"trial": record.number, "loss": record.value, **score}


class Board:
    """The latest that is known of a sweep; `take` may be called often, `standing` does the work."""

    def __init__(
        self,
        aim: Aim,
        started: float = 0.0,
        *,
        due: Due | None = None,
        active: Clock | None = None,
        begins: bool = True,
    ) -> None:
        """Know of no trial yet.

        Args:
            aim: what the sweep is to do.
            started: when the display began, in seconds since the epoch.
            due: how many more replicates there will be, once the finalists are known.
            active: seconds that do not count while nothing can run; what is left is foretold by them.
            begins: whether the sweep's workers begin when this does.
        """
        self.aim, self._started, self._due = aim, started, due
        self._pace, self._expectations = Pace(active or awake()), Expectations()
        self._tally = Tally()
        self._phase, self._fresh = "starting", aim.fresh
        self._spent: Mapping[str, float] = {}
        self._seen: dict[int, tuple[int, int]] | None = None  # measurements, and the last step, at first
        self._reported = not begins
        self._lock = Lock()  # one thread tells, another looks

    @property
    def count(self) -> int:
        """Trials that this sweep runs, or ran."""
        return self._tally.ended + len(self._tally.open)

    @property
    def total(self) -> int:
        """Trials of the sweep; never less than there are."""
        search = self.aim.trials
        if self._phase not in _BEFORE and self._due is not None:
            search = self.count - self._begun_fresh
        return max(search + self._fresh, self.count)

    def take(self, records: Sequence[TrialRecord], phase: str) -> None:
        """Remember the latest of what this sweep runs."""
        if not self.aim.long:
            records = [record for record in records if not record.role.promoted]
        with self._lock:
            first = not self.count
            self._tally.take(records)
            if phase not in _BEFORE and self._phase in _BEFORE and self._due is not None:
                # The baseline may be one of the finalists, and of few trials all may be.
                self._fresh = self._begun_fresh + self._due([record for record in records if record.ours])
            self._phase = phase
            if first and self.count:
                self._pace.count(self._work)

    def spend(self, amounts: Mapping[str, float]) -> None:
        """Remember what the search has spent, by limit."""
        self._spent = amounts

    def standing(self, now: float, rows: int) -> Standing:
        """How it stands.

        Args:
            now: seconds since the epoch.
            rows: trials that are shown at most.
        """
        with self._lock:
            return self._standing(now, rows)

    # -- inside ----------------------------------------------------------------------------------------

    def _standing(self, now: float, rows: int) -> Standing:
        tally, pace = self._tally, self._pace
        running = sorted((r for r in tally.open if r.state is State.RUNNING), key=lambda r: -r.number)
        counts = tally.counts + Counter(record.state for record in tally.open)
        pace.look(running)
        work, rest, at_once = self._work, self._rest(running), len(running)
        ends = {r.number: seconds for r in running if (seconds := pace.left_of(r)) is not None}
        return Standing(
            name=self.aim.name,
            phase=self._phase,
            seconds=now - self._started,
            counts=dict(counts),
            total=self.total,
            best=tally.best,
            control=tally.control,
            running=tuple(running),
            recent=tuple(tally.recent(max(rows // 3, rows - at_once))),
            expected=self._expectations.of(running[:rows], tally.whole, tally.ended),
            left_of=ends,
            left=pace.left(work, rest, tally.took, at_once) if rest.work > 0 else None,
            budget_left=self._budget_left(),
            share=work / (work + rest.work) if work > 0 else 0.0,
            starting=self._starting(running),
        )

    @property
    def _work(self) -> float:
        return self._tally.work + sum(map(share, self._tally.open))

    @property
    def _begun_fresh(self) -> int:
        return self._tally.fresh + sum(record.role.after for record in self._tally.open)

    @property
    def _asked(self) -> int:
        return self._tally.asked + sum(record.budgeted for record in self._tally.open)

    def _rest(self, running: Sequence[TrialRecord]) -> Rest:
        waiting = sum(record.state is State.WAITING for record in self._tally.open)
        search = 0 if self._phase not in _BEFORE else max(waiting, self.aim.trials - self._asked)
        searched = (self._tally.ended - self._tally.fresh, self._tally.searched)
        used = self._used() if search else {}
        return rest_of(searched, running, search, max(0, self._fresh - self._begun_fresh), used)

    def _used(self) -> dict[str, float]:
        limits = self.aim.limits.items()
        return {name: self._spent[name] / most for name, most in limits if name in self._spent}

    def _budget_left(self) -> dict[str, tuple[float, float]]:
        trials = self.aim.trials
        left = {"trials": (float(max(0, trials - self._asked)), float(trials))}
        for name, most in self.aim.limits.items():
            if name in self._spent:
                left[name] = (max(0.0, most - self._spent[name]), most)
        return left

    def _starting(self, running: Sequence[TrialRecord]) -> bool:
        """Whether what runs has not reported since the display began."""
        if self._reported or not running:
            return False
        now = {record.number: (len(record.losses), record.step) for record in running}
        before = self._seen
        self._seen = now if before is None else {**now, **before}
        self._reported = any(number not in now or now[number] > known for number, known in self._seen.items())
        return not self._reported
