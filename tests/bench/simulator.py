"""A sweep whose trials take no time: made-up or recorded curves on a virtual clock, and everything else as it is.

The searcher, the agenda, the ledger in its store, the stopping rule and the outbox of tracking are the real
ones; so is every file that a driver reads at a resume. Only Ray, the workers and the delivery to MLflow, which
is a process of its own, are left out. Slots take the next assignment the moment they are free.
"""

from __future__ import annotations

import heapq
import json
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from sweeps.curve import CURVE
from sweeps.driver.on_ray.searcher import AgendaSearcher
from sweeps.driver.on_ray.stall_monitor import StallMonitor
from sweeps.driver.schedule.agenda import Agenda
from sweeps.driver.tidying import Tidying
from sweeps.folders import Folders
from sweeps.ledger import Ledger
from sweeps.records import Assignment, Cause, Point, State
from sweeps.results.sweep import Sweep
from sweeps.spec import Spec, load_spec
from sweeps.tracking import NullTracker, Tracker, Tracking
from sweeps.tracking.sync import open_sweep, show_untold
from tests.bench.landscape import MadeUp

_TOKENS = 2048  # a batch
_SPEC = """
name: {name}
base: {{model: builtin:tiny-llama}}
data: {{source: builtin:stdlib, sequence_length: 128}}
trial:
  injection: {{method: tli, k: 4, init: {init}}}
  recipe: {{learning_rate: {rate}, tokens: {tokens}, batch_tokens: 2048}}
  seed: {trial_seed}
search:{search}
objective: {{answer: {answer}}}
sampler: {{name: {sampler}, seed: {seed}}}
budget: {{trials: {trials}}}
stopping: {{rule: {rule}, grace: 0.2, keep: 0.33}}
finalists: {{top: 3, seeds: {seeds}}}
resources: {{cpus: 1}}
storage: {{study: "{study}", artifacts: {runs}}}
tracking: {{uri: sqlite}}
"""


class Landscape(Protocol):
    """What trials measure, and what a step takes."""

    @property
    def search(self) -> str:
        """The space, as a spec writes it."""

    def loss_at(self, settings: Mapping[str, Any], step: int) -> float:
        """The held-out loss that a trial reports; no number where it has diverged."""

    def seconds_per_step(self, settings: Mapping[str, Any]) -> float:
        """Of one GPU; the control's takes one."""


@cache
def _made_up(steps: int) -> Landscape:
    return MadeUp(steps)


@cache
def _recorded(name: str) -> Landscape:
    from tests.bench.tables import Table

    return Table.read(name)


@dataclass(frozen=True)
class World:
    """What is simulated."""

    folder: Path  # of everything that is written
    study: str  # "sqlite", or the URL of a PostgreSQL
    trials: int  # budget
    slots: int
    rule: str = "asha"
    sampler: str = "tpe"
    seed: int = 0
    seeds: int = 1  # of finalists
    steps: int = 24  # of a trial
    name: str = "simulated"
    answer: str = "best"
    table: str | None = None  # a recorded one, by its name or file; None for what is made up
    trial_seed: int = 0
    init: str = "identity"  # of the baseline
    rate: float = 1e-3
    tracked: bool = True  # by the outbox of MLflow

    @property
    def landscape(self) -> Landscape:
        """What trials measure."""
        return _made_up(self.steps) if self.table is None else _recorded(self.table)

    def spec(self) -> Spec:
        """As a user would have written it."""
        path = self.folder / f"{self.name}.yaml"
        path.write_text(
            _SPEC.format(
                name=self.name, tokens=self.steps * _TOKENS, search=self.landscape.search, sampler=self.sampler, seed=self.seed,
                trials=self.trials, rule=self.rule, seeds=self.seeds, study=self.study, runs=self.folder / "runs",
                answer=self.answer, trial_seed=self.trial_seed, init=self.init, rate=self.rate,
            )
        )  # fmt: skip
        return load_spec(str(path))


class Outgoing(Tracker):
    """The real outbox, which nobody empties."""

    def _deliver(self) -> None:
        """Not here: delivering takes another process's time, not the driver's."""


class Simulation:
    """A driver, and slots on a virtual clock. `seconds` is what the slots have trained in all."""

    def __init__(self, world: World, spec: Spec, ledger: Ledger, watcher: Callable[..., None]) -> None:
        """Go on with what the ledger holds, as `sweeps run` does."""
        self.world, self.ledger = world, ledger
        folders = Folders(spec.root, spec.name)
        sweep = Sweep(spec, folders, ledger)
        tracker: Tracking = NullTracker()
        if world.tracked:
            tracker = Outgoing(
                "sqlite",
                study=spec.name,
                folder=folders.sweep,
                artifacts=spec.root,
                study_uuid=ledger.study.study_uuid,
            )
            open_sweep(tracker, sweep, again=True)
            show_untold(tracker, sweep)
        self.agenda = Agenda(
            ledger,
            tracker,
            parallel=world.slots,
            on_change=watcher,
            on_end=Tidying(sweep).ended,
        )
        self._folders = folders
        self.searcher = AgendaSearcher(
            self.agenda,
            {"spec": json.dumps(spec.to_json())},
            StallMonitor(60.0, lambda *_: None),
            hung=lambda _: None,
        )
        self.now, self.seconds, self.ended = 0.0, 0.0, 0
        self._events: list[tuple[float, int, _Running]] = []
        self._started = 0
        self._pace = random.Random(world.seed)

    def start_one(self) -> bool:
        """Hand out the next assignment to a free slot; whether there was one."""
        trial_id = f"{self._started:06d}"
        config = self.searcher.suggest(trial_id)
        if not isinstance(config, dict) or "assignment" not in config:
            return False
        self._started += 1
        given = config["assignment"]
        pace = self._pace.uniform(0.95, 1.05)
        running = _Running(trial_id, Assignment(**given), pace, self.world.landscape)
        self._after(running, 0)
        return True

    def run(self, ended: int | None = None) -> Iterator[int]:
        """Go on until so many trials have ended, or to the sweep's end; gives the count after each."""
        while ended is None or self.ended < ended:
            while self.start_one():  # as Tune does: it asks for one more after every event
                pass
            if not self._events:
                return
            self.now, _, running = heapq.heappop(self._events)
            if self._reported(running):
                self.ended += 1
                yield self.ended

    def _after(self, running: _Running, steps: int) -> None:
        took = steps * self.world.landscape.seconds_per_step(running.assignment.settings)
        self.seconds += took
        heapq.heappush(self._events, (self.now + took * running.pace, running.assignment.number, running))

    def _reported(self, running: _Running) -> bool:
        """Report the next measurement; whether the trial is over."""
        assignment = running.assignment
        step = assignment.report_steps[running.place]
        last = step == assignment.steps
        point = running.measure(step)
        result = {
            "points": [point.to_json()],
            "worker": ("node", 1),
            "state": State.COMPLETE.value if last else "",
            "reason": "",
            "cause": "",
            "fatal": False,
            "notes": [],
        }
        if not point.finite:
            last = True
            diverged = {
                "state": State.FAIL.value,
                "reason": "diverged: no number",
                "cause": Cause.DIVERGED.value,
            }
            result |= {"points": [], **diverged}
        stop = self.searcher.report(running.trial_id, result)
        if last or stop:
            running.keep(self._folders.trial(assignment.number) / CURVE)
            self.searcher.on_trial_complete(running.trial_id)
            return True
        running.place += 1
        self._after(running, assignment.report_steps[running.place] - step)
        return False


class _Running:
    """One execution: where it is on its curve."""

    def __init__(self, trial_id: str, assignment: Assignment, pace: float, landscape: Landscape) -> None:
        self.trial_id, self.assignment, self.pace, self.landscape = trial_id, assignment, pace, landscape
        self.place = 0  # in report_steps, of the next report
        self._points: list[Point] = []

    def measure(self, step: int) -> Point:
        """What a worker would have sent."""
        settings = self.assignment.settings
        took = step * self.landscape.seconds_per_step(settings)
        before = self._points[-1].step if self._points else 0
        loss = self.landscape.loss_at(settings, step)
        train = tuple((each, loss + 0.1) for each in range(before + 1, step + 1))
        point = Point(step, step * _TOKENS, took * 1e12, took, loss, train, 1e9 + step)
        self._points.append(point)
        return point

    def keep(self, path: Path) -> None:
        """Leave the curve where the worker would have."""
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = ({"owner": self.assignment.owner, **point.to_json()} for point in self._points)
        path.write_text("".join(f"\n{json.dumps(line)}\n" for line in lines))


@contextmanager
def opened(world: World, watcher: Callable[..., None] = lambda *_: None) -> Iterator[Simulation]:
    """The driver of a simulated sweep, which holds its lease."""
    spec = world.spec()
    with Ledger.driven(spec.study_url, spec) as ledger:
        yield Simulation(world, spec, ledger, watcher)
