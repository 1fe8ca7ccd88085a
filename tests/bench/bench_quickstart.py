"""The quickstart as a newcomer meets it, timed: `python -m tests.bench.bench_quickstart [SPEC]`.

Runs `sweeps run` in an empty folder and prints one row for LOG.md: wall time, time to the first finished
trial, trials, seconds of a slot per trial that were not training steps, and the peak memory of all processes
together. What is not training is split into measuring the held-out loss and the rest (upscaling, saving the
model, Ray, ledger), by timing one measurement of the base alone.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.processes import Watched


def main() -> int:
    """Run it once and print the row."""
    spec = sys.argv[1] if len(sys.argv) > 1 else "quickstart"
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        started = time.time()
        process = subprocess.Popen([sys.executable, "-m", "sweeps", "run", spec, *sys.argv[2:]], cwd=folder)
        watched = Watched(process.pid)
        code = process.wait()
        wall = time.time() - started
        watched.stop()
        if code:
            return code
        _report(spec, Path(folder), started, wall, watched.peak)
    return 0


def _report(spec: str, folder: Path, started: float, wall: float, peak: int) -> None:
    from sweeps.records import Role, State
    from sweeps.results.finding import find

    sweep = find(spec, runs=str(folder / "runs"))
    records = sweep.records
    first = min(r.finished for r in records if r.finished) - started
    slot = sum(r.finished - r.started for r in records if r.finished and r.started)
    training = sum(r.seconds or 0.0 for r in records)
    measured = _evaluation_seconds(sweep.spec)
    depth = 8
    measuring = sum(len(r.losses) * measured * _depth(r.settings, depth) / depth for r in records)
    outside = slot - training
    rows = {
        "wall, s": f"{wall:.0f}",
        "first finished trial after, s": f"{first:.0f}",
        "trials": f"{len(records)} ({sum(r.role is not Role.REPLICATE for r in records)} and replicates; "
        f"{sum(r.state is State.PRUNED for r in records)} stopped early)",
        "training steps, slot seconds": f"{training:.0f}",
        "outside training, s per trial": f"{outside / len(records):.2f}",
        "of that measuring held-out loss (estimated), s per trial": f"{measuring / len(records):.2f}",
        "the rest, s per trial": f"{(outside - measuring) / len(records):.2f}",
        "peak memory of all processes (PSS), MiB": f"{peak / 2**20:.0f}",
    }
    for name, value in rows.items():
        print(f"| {name} | {value} |")


def _depth(settings: Any, depth: int) -> int:
    from tli.planning.injection import Injection
    from tli.planning.plan import plan_for

    return plan_for(Injection.from_json(settings["injection"]), depth).new_depth


def _evaluation_seconds(spec: Any) -> float:
    """One measurement of the base's held-out loss, alone on the machine."""
    from sweeps.worker.trial import WorkerContext, for_workers
    from tli.training.evaluate import evaluate

    slot = WorkerContext(for_workers(spec))
    evaluate(slot.model, slot.heldout)
    started = time.perf_counter()
    evaluate(slot.model, slot.heldout)
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
