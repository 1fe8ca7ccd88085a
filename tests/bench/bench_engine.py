"""The engine beside a plain script, in one run: `python -m tests.bench.bench_engine [--spec quickstart-small]`.

Runs `plain_sweep.py` (Ray Tune, OptunaSearch, ASHA and MLflowLoggerCallback as a user would write it) and `sweeps run`
one after the other, on the same base, token files (made before), recipe, space, number of trials and slots, without
finalists on our side, for the plain script has none. Prints a table for LOG.md. In seconds:

  overhead per trial   (slots x (last end - first start) - training - measuring) / trials; starts and ends as the
                       Optuna study of each side has them
  of that, start       from the first start until the first held-out loss is being measured, in each slot
  of that, end         slots that are empty because no trial is left, while the last ones run
  of that, between     the rest: what one more trial costs
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.processes import Watched

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Side:
    """What one side took."""

    wall: float  # seconds, of the whole command
    cpu: float  # seconds of processor time, of all its processes
    peak: float  # bytes of memory, of all its processes
    spans: list[tuple[float, float]]  # start and end of each trial, seconds since the epoch
    begun: list[float]  # when the first held-out loss of each trial was begun, seconds since the epoch
    training: float  # seconds in steps, of all trials
    measuring: float  # seconds in held-out losses, of all trials
    best: float  # held-out loss at the full budget
    complete: int  # trials that were not stopped early


def main() -> int:
    """Run both sides and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--spec", default="quickstart-small")
    parser.add_argument("--trials", type=int, help="instead of the spec's")
    parser.add_argument("--only", choices=("plain", "ours"), help="one side, to look into")
    parser.add_argument("--keep", type=Path, help="a new folder to leave everything in")
    given = parser.parse_args()
    folder = given.keep or Path(tempfile.mkdtemp(prefix="bench-engine-"))
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    try:
        changes = ["finalists.top=1", "finalists.seeds=1"]
        changes += [f"budget.trials={given.trials}"] if given.trials else []
        spec = _spec(given.spec, changes)
        _make_tokens(spec)
        sides = {}
        if given.only != "ours":
            sides["plain script"] = _plain(spec, folder)
        if given.only != "plain":
            sides["sweeps"] = _ours(given.spec, changes, spec)
        _print(sides, spec)
    finally:
        if given.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


def _spec(name: str, changes: list[str]) -> Any:
    from sweeps.spec import load_spec

    return load_spec(name, overrides=changes)


def _make_tokens(spec: Any) -> None:
    """Neither side pays for them, and both read the same files."""
    from tli.data.batches import open_tokens
    from tli.models.base import find

    open_tokens(spec.data.to_tli(), find(spec.base.model), Path("runs/tokens"))


def _timed(command: list[str], log: Path) -> tuple[float, Watched]:
    started = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
        watched = Watched(process.pid)
        code = process.wait()
    wall = time.perf_counter() - started
    watched.stop()
    if code:
        sys.exit(f"{' '.join(command)} ended with {code}:\n{log.read_text()[-3000:]}")
    return wall, watched


def _plain(spec: Any, folder: Path) -> Side:
    from dataclasses import asdict

    place = folder / "plain"
    place.mkdir()
    settings = {
        "folder": str(place),
        "base": spec.base.model,
        "data": asdict(spec.data.to_tli()),
        "tokens": str(folder / "runs" / "tokens"),
        "recipe": asdict(spec.trial.to_recipe()),
        "seed": spec.trial.seed,
        "report_steps": spec.report_steps(),
        "grace": spec.grace_step,
        "trials": spec.budget.trials,
        "slots": spec.resources.parallel,
    }
    (place / "settings.json").write_text(json.dumps(settings))
    wall, watched = _timed(
        [sys.executable, "-m", "tests.bench.plain_sweep", str(place / "settings.json")], folder / "plain.log"
    )
    rows = json.loads((place / "rows.json").read_text())
    whole = [row["loss"] for row in rows if row["steps"] == spec.steps]
    return Side(
        wall=wall,
        cpu=watched.seconds,
        peak=watched.peak,
        spans=_spans(f"sqlite:///{place}/study.db", "plain"),
        begun=[row["begun"] for row in rows],
        training=sum(row["training"] for row in rows),
        measuring=sum(row["measuring"] for row in rows),
        best=min(whole),
        complete=len(whole),
    )


def _ours(name: str, changes: list[str], spec: Any) -> Side:
    from sweeps.curve import CURVE, read_curve
    from sweeps.results.finding import find

    options = [word for change in changes for word in ("--set", change)]
    wall, watched = _timed([sys.executable, "-m", "sweeps", "run", name, *options], Path("ours.log"))
    sweep = find(spec.name)
    curves = [read_curve(sweep.folders.trial(record.number) / CURVE) for record in sweep.records]
    whole = [record.value for record in sweep.records if record.value is not None]
    return Side(
        wall=wall,
        cpu=watched.seconds,
        peak=watched.peak,
        spans=_spans(spec.study_url, spec.name),
        begun=[curve[0].time - curve[0].measuring for curve in curves],
        training=sum(curve[-1].seconds for curve in curves),
        measuring=sum(point.measuring for curve in curves for point in curve),
        best=min(whole),
        complete=len(whole),
    )


def _spans(url: str, study: str) -> list[tuple[float, float]]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trials = optuna.load_study(study_name=study, storage=url).get_trials()
    assert all(trial.datetime_start and trial.datetime_complete for trial in trials)
    return [(t.datetime_start.timestamp(), t.datetime_complete.timestamp()) for t in trials]  # type: ignore[union-attr]


def _empty_at_the_end(side: Side, slots: int) -> float:
    """Slot seconds after the last start in which no trial runs."""
    last, end = max(start for start, _ in side.spans), max(end for _, end in side.spans)
    running = sum(max(0.0, until - max(start, last)) for start, until in side.spans)
    return max(0.0, slots * (end - last) - running)


def _print(sides: dict[str, Side], spec: Any) -> None:
    slots = spec.resources.parallel
    print(f"| {spec.name}, {spec.steps} steps, {slots} slots | {' | '.join(sides)} |")
    print("|---" * (len(sides) + 1) + "|")
    rows: dict[str, list[str]] = {}
    for side in sides.values():
        count = len(side.spans)
        first = min(start for start, _ in side.spans)
        span = max(end for _, end in side.spans) - first
        overhead = slots * span - side.training - side.measuring
        starting = sum(begun - first for begun in sorted(side.begun)[:slots])
        ending = _empty_at_the_end(side, slots)
        for name, value in {
            "trials, of them to the full budget": f"{count}, {side.complete}",
            "total wall, s": f"{side.wall:.1f}",
            "processor time of all processes, s": f"{side.cpu:.1f}",
            "first start to last end, s": f"{span:.1f}",
            "training steps, slot seconds": f"{side.training:.1f}",
            "measuring held-out loss, slot seconds": f"{side.measuring:.1f}",
            "overhead per trial, s": f"{overhead / count:.3f}",
            "of that, start": f"{starting / count:.3f}",
            "of that, end": f"{ending / count:.3f}",
            "of that, between": f"{(overhead - starting - ending) / count:.3f}",
            "best loss": f"{side.best:.4f}",
            "peak memory of all processes (PSS), MiB": f"{side.peak / 2**20:.0f}",
        }.items():
            rows.setdefault(name, []).append(value)
    for name, values in rows.items():
        print(f"| {name} | {' | '.join(values)} |")


if __name__ == "__main__":
    sys.exit(main())
