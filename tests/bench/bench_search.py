"""How soon a sweep finds and answers, on recorded tables: `python -m tests.bench.bench_search [--seeds 30] ...`.

Each row is one way of searching and stopping, by the real agenda, ledger, stopping rule and searcher over curves
that were really measured (`tests.bench.record`, `tests.bench.tables`), on a virtual clock, once for each seed.
Printed are: slot seconds (a step of the control takes one) until the trial with the lowest measured loss is truly
within 0.002 nats of the table's best and stays so, median and 90th percentile, and how many times that a random
search without stopping takes; how often it is so at the end of the budget; how often "which K" and "which first
weights" are answered rightly, wrongly and not; of the trials that would be among the best three of their sweep,
were all run to their end, the share that was stopped; and the processor time of an ask.

What was run is kept in `--out`, a line a sweep; the same command again runs what is missing.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sweeps.ledger.search.estimates import surface
from sweeps.ledger.search.space import Space
from sweeps.records import Role, State, TrialRecord
from tests.bench.simulator import Simulation, World, opened
from tests.bench.tables import Table

NEAR = 0.002  # nats
METHODS = {  # sampler, stopping rule, what is asked for
    "random": ("random", "none", "best"),
    "tpe, asha": ("tpe", "asha", "best"),
    "optuna gp": ("optuna gp", "none", "best"),
    "tpe, hyperband": ("tpe", "hyperband", "best"),
    "ours": ("gp", "learned", "best"),
    "ours, each": ("gp", "learned", "each"),
    "gp, none": ("gp", "none", "best"),
}
_QUESTIONS = ("injection.k", "injection.init")
_LIMIT = 300  # trials of the random search
_RANDOM_SEEDS = 60  # of it
_MEMORY = Path("/dev/shm")  # a file system in memory, where there is one


@dataclass
class Result:
    """One sweep."""

    table: str
    method: str
    trials: int
    slots: int
    seed: int
    off: float  # true loss of the winner over the table's best
    seconds: float  # of slots, in all
    found: float | None  # slot seconds until the winner was near, and stayed so
    answers: dict[str, str]  # right, wrong or open, by path
    best_stopped: int  # of the best three
    stopped: int
    ask: float  # 95th percentile, ms of processor time

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells it from the others."""
        return self.table, self.method, self.trials, self.slots, self.seed


class Watched:
    """The winner so far, each time that a trial ends."""

    def __init__(self, table: Table) -> None:
        """Nothing has ended."""
        self.table = table
        self.found: float | None = None
        self._lowest = math.inf

    def ended(self, record: TrialRecord, seconds: float) -> None:
        """Take in a trial that ran to its end."""
        if record.value is None or record.value >= self._lowest:
            return
        self._lowest = record.value
        near = self.table.true_loss(record.settings) <= self.table.best + NEAR
        self.found = (seconds if self.found is None else self.found) if near else None


def sweep(table: Table, method: str, trials: int, slots: int, seed: int, folder: Path) -> Result:
    """Run one to its end."""
    sampler, rule, answer = METHODS[method]
    if sampler == "optuna gp":
        return _by_optuna(table, method, trials, slots, seed)
    world = replace(
        _world(table, seed, folder), trials=trials, slots=slots, rule=rule, sampler=sampler, answer=answer
    )
    watched, known = Watched(table), set[int]()
    with opened(world) as simulation:
        asks = _asks(simulation)
        for _ in simulation.run():
            if simulation.agenda.phase != "search":
                break
            for record in simulation.ledger.trials():
                if record.number not in known and record.state is State.COMPLETE and _grown(record):
                    known.add(record.number)
                    watched.ended(record, simulation.seconds)
            seconds = simulation.seconds
        records = [r for r in simulation.ledger.trials() if r.role is not Role.REPLICATE]
        return _result(table, (method, trials, slots, seed), world.spec(), records, seconds, watched, asks)


def _world(table: Table, seed: int, folder: Path) -> World:
    """A sweep whose baseline is a guess that is off: a third of the usual rate, and first weights that cost."""
    return World(
        folder, "sqlite", 24, 2, "none", "random", seed, steps=table.steps, table=table.source,
        trial_seed=100 + seed, tracked=False, init="copy", rate=3e-4,
    )  # fmt: skip


def _grown(record: TrialRecord) -> bool:
    return record.role in (Role.BASELINE, Role.SEARCH)


def _result(
    table: Table, named: tuple[str, int, int, int], spec: Any, records: Sequence[TrialRecord], seconds: float,
    watched: Watched, asks: Sequence[float],
) -> Result:  # fmt: skip
    done = [r for r in records if r.state is State.COMPLETE and _grown(r) and r.value is not None]
    winner = min(done, key=lambda record: (record.value, record.number))
    whole = [r for r in records if _grown(r) and r.state in (State.COMPLETE, State.PRUNED)]
    whole = [r for r in whole if math.isfinite(table.loss_at(r.settings, table.steps))]
    best = sorted(whole, key=lambda record: table.loss_at(record.settings, table.steps))[:3]
    found = surface(spec, records, margin=NEAR)
    return Result(
        table.name,
        *named,
        off=table.true_loss(winner.settings) - table.best,
        seconds=seconds,
        found=watched.found,
        answers={path: _judged(table, path, found.answer(path)) for path in _QUESTIONS},
        best_stopped=sum(record.state is State.PRUNED for record in best),
        stopped=sum(record.state is State.PRUNED for record in records if _grown(record)),
        ask=sorted(asks)[int(0.95 * (len(asks) - 1))] if asks else 0.0,
    )


def _judged(table: Table, path: str, answer: Any) -> str:
    if answer is None:
        return "open"
    name = path.rpartition(".")[2]
    cells = [(k, i) for k in table.ks for i in table.inits if answer == (k if name == "k" else i)]
    return "right" if min(table.best_of(*cell) for cell in cells) <= table.best + NEAR else "wrong"


def _asks(simulation: Simulation) -> list[float]:
    """Processor time of every question for another trial, preparing it included; filled as they are asked."""
    times: list[float] = []
    for name in ("ask", "prepare"):
        wrapped = getattr(simulation.ledger, name)

        def timed(wrapped: Any = wrapped) -> Any:
            begun = time.process_time()
            try:
                return wrapped()
            finally:
                times.append(1000 * (time.process_time() - begun))

        setattr(simulation.ledger, name, timed)
    return times


def random_search(table: Table, seed: int, folder: Path) -> float:
    """Slot seconds of a random search without stopping until its winner is near, after control and baseline."""
    from optuna import create_study
    from optuna.samplers import RandomSampler

    spec = _world(table, seed, folder).spec()
    space, study = Space.of(spec), create_study(sampler=RandomSampler(seed=10_000 + seed))
    watched, spent = Watched(table), float(table.steps)
    for number in range(_LIMIT):
        trial, params = study.ask(), dict[str, Any]()
        for name, distribution in space.walk(params) if number else ():
            params[name] = trial._suggest(name, distribution)
        settings = spec.settings_for(params).model_dump()
        spent += table.steps * table.seconds_per_step(settings)
        loss = table.loss_at(settings, table.steps)
        value = loss if math.isfinite(loss) else None
        watched.ended(
            TrialRecord(number, Role.SEARCH, State.COMPLETE, params, settings, 0, 1, value=value), spent
        )
        if watched.found is not None and table.true_loss(settings) <= table.best + NEAR / 4:
            break
    return watched.found if watched.found is not None else math.inf


def _by_optuna(table: Table, method: str, trials: int, slots: int, seed: int) -> Result:
    """Optuna's GPSampler as it is, asked and told on the same clock, nothing stopped."""
    import heapq
    import random

    import optuna

    with tempfile.TemporaryDirectory() as folder:
        spec = _world(table, seed, Path(folder)).spec()
    space = Space.of(spec)
    study = optuna.create_study(sampler=optuna.samplers.GPSampler(seed=seed))
    pace, watched, records = random.Random(seed), Watched(table), list[TrialRecord]()
    running: list[tuple[float, int, Any, dict[str, Any], dict[str, Any]]] = []
    now, seconds, asks = 0.0, float(table.steps), list[float]()
    for number in range(trials - 1 + slots):
        if number >= slots:
            if not running:
                break
            now, _, trial, params, settings = heapq.heappop(running)
            loss = table.loss_at(settings, table.steps)
            finite = math.isfinite(loss)
            study.tell(
                trial, loss if finite else None, state=None if finite else optuna.trial.TrialState.FAIL
            )
            state = State.COMPLETE if finite else State.FAIL
            curve = {table.steps: loss} if finite else {}
            record = TrialRecord(len(records), Role.SEARCH, state, params, settings, 0, table.steps, losses=curve,
                                 value=loss if finite else None)  # fmt: skip
            records.append(record)
            watched.ended(record, seconds)
        if number < trials - 1:
            begun = time.process_time()
            trial, params = study.ask(), {}
            for name, distribution in space.walk(params):
                params[name] = trial._suggest(name, distribution)
            asks.append(1000 * (time.process_time() - begun))
            settings = spec.settings_for(params).model_dump()
            took = table.steps * table.seconds_per_step(settings)
            seconds += took
            heapq.heappush(running, (now + took * pace.uniform(0.95, 1.05), number, trial, params, settings))
    return _result(table, (method, trials, slots, seed), spec, records, seconds, watched, asks)


# -- the table ------------------------------------------------------------------------------------------------


def row(results: Sequence[Result], randoms: Sequence[float]) -> str:
    """One line."""
    first, count = results[0], len(results)
    times = sorted(r.found if r.found is not None else math.inf for r in results)
    random_times = sorted(randoms)
    median, high = _quantile(times, 0.5), _quantile(times, 0.9)
    ratios = f"{_times(_quantile(random_times, 0.5), median)} / {_times(_quantile(random_times, 0.9), high)}"
    answers = " | ".join(
        " / ".join(
            f"{100 * sum(r.answers[path] == each for r in results) / count:.0f}"
            for each in ("right", "wrong", "open")
        )
        for path in _QUESTIONS
    )
    near = 100 * sum(r.off <= NEAR for r in results) / count
    stopped = 100 * sum(r.best_stopped for r in results) / (3 * count)
    return (
        f"| {first.table} | {first.method} | {first.trials} | {first.slots} | {count} | {_shown(median)} / "
        f"{_shown(high)} | {ratios} | {near:.0f} | {statistics.fmean(r.seconds for r in results):.0f} | {answers} "
        f"| {stopped:.1f} | {statistics.fmean(r.stopped for r in results):.1f} "
        f"| {statistics.median(r.ask for r in results):.0f} |"
    )


HEAD = (
    "| table | method | trials | slots | seeds | slot s to near: median / p90 | random needs, times | near, % "
    "| slot s | K: right / wrong / open, % | first weights: the same | of best 3 stopped, % | stopped | ask p95, ms |\n"
    "|" + "---|" * 14
)


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _shown(seconds: float) -> str:
    return f"{seconds:,.0f}" if math.isfinite(seconds) else "never"


def _times(random: float, ours: float) -> str:
    return f"{random / ours:.1f}" if math.isfinite(ours) and math.isfinite(random) else "-"


def _quiet() -> None:
    """Optuna's notes of studies and of what GPSampler cannot do are not what is printed here."""
    import warnings

    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")


def kept(path: Path) -> Iterator[Result]:
    """The sweeps that a file holds."""
    for line in path.read_text().splitlines() if path.exists() else ():
        plain = json.loads(line)
        if "method" in plain:
            yield Result(**plain)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_search", description=__doc__)
    parser.add_argument("--tables", nargs="+", default=["builtin"], help="names, or files of a table")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS)[:5])
    parser.add_argument("--trials", type=int, nargs="+", default=[24, 48])
    parser.add_argument("--slots", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path("bench_search.jsonl"))
    given = parser.parse_args(arguments)
    _quiet()
    known = {result.key: result for result in kept(given.out)}
    print(HEAD)
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        for name in given.tables:
            table = Table.read(name)
            randoms = [
                random_search(table, seed, Path(folder)) for seed in range(max(given.seeds, _RANDOM_SEEDS))
            ]
            for trials in given.trials:
                for slots in given.slots:
                    for method in given.methods:
                        results = []
                        for seed in range(given.seeds):
                            key = (table.name, method, trials, slots, seed)
                            if key not in known:
                                with tempfile.TemporaryDirectory(dir=folder) as own:
                                    known[key] = sweep(table, method, trials, slots, seed, Path(own))
                                with given.out.open("a") as file:
                                    file.write(json.dumps(asdict(known[key])) + "\n")
                            results.append(known[key])
                        print(row(results, randoms), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
