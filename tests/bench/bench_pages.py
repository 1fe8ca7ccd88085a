"""How long MLflow's page of a sweep takes to be of use in a browser: `python -m tests.bench.bench_pages`.

The store is made as a driver makes it, through the outbox, of trials with made-up curves; then `sweeps ui`'s
server shows it to a headless Chromium. Of use is: the rows stand there, and the first two charts are drawn.
"""

from __future__ import annotations

import argparse
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from sweeps.records import Point, Role, State, TrialRecord
from sweeps.tracking.control_gap import ControlGaps
from sweeps.tracking.live import show_colours
from sweeps.tracking.saved_view import KIND, TAG, figure_ranges, saved_view
from sweeps.tracking.tracker import Tracker
from sweeps.tracking.trial_runs import show, show_end
from tests.browser import Browser
from tests.sweeps.test_ui import Serving, free_port

_ROWS = "document.querySelectorAll('.ag-row, [role=row]').length > 10"
_DRAWN = "document.querySelectorAll('.js-plotly-plot .scatterlayer .trace').length >= 20"


def trials(count: int, points: int) -> Iterator[TrialRecord]:
    """A control, a baseline, and searched trials of which every third was stopped half way."""
    chance, began = random.Random(0), time.time() - 10 * count
    for number in range(count):
        role = Role.CONTROL if number == 0 else Role.BASELINE if number == 1 else Role.SEARCH
        init, k = chance.choice(("copy", "identity", "damped")), chance.choice((1, 2, 4, 8))
        rate, floor = 10 ** chance.uniform(-4, -2), 3.0 + abs(chance.gauss(0, 0.02))
        stopped = role is Role.SEARCH and number % 3 == 0
        reached = points // 2 if stopped else points
        curve = {step: floor + 0.5 / (1 + step) + chance.gauss(0, 2e-4) for step in range(reached)}
        injection = {"method": "none" if role is Role.CONTROL else "tli", "k": k, "init": init}
        yield TrialRecord(
            number,
            role,
            State.PRUNED if stopped else State.COMPLETE,
            {},
            {"injection": injection, "recipe": {"learning_rate": rate, "tokens": points * 64}, "seed": 0},
            0,
            points - 1,
            losses=curve,
            value=None if stopped else curve[points - 1],
            started=began + number,
            finished=began + number + 60,
            request=f"r{number}",
        )


def told(folder: Path, count: int, points: int) -> tuple[str, float]:
    """The address of the store, and the seconds that it took to be made."""
    begun, records = time.monotonic(), list(trials(count, points))
    tracker = Tracker("sqlite", study="bench", folder=folder / "bench", artifacts=folder)
    tracker.open_sweep({}, {"sweeps.study": "bench"}, when=records[0].started)
    for record in records:
        show(tracker, record)
        measured = [
            Point(step, step * 64, step * 1e9, step * 0.1, loss, time=(record.started or 0.0) + step)
            for step, loss in record.losses.items()
        ]
        tracker.points(record.number, 1, measured)
        show_end(tracker, record)
    against = ControlGaps(tracker).tell(records, 0)
    order = sorted((r for r in records if r.value is not None), key=lambda r: r.value or 0.0)
    finalists = [record.number for record in order[:3]]
    tracker.rank([record.number for record in order], [*finalists, 0, 1])
    show_colours(tracker, records, finalists, 0)
    tracker.describe({**KIND, TAG: saved_view(ranked=True, ranges=figure_ranges(records, against))})
    tracker.end_sweep({}, [], time.time())
    assert tracker.drain(600.0), (folder / "bench" / "outbox.log").read_text()
    return f"sqlite:///{folder}/mlflow.db", time.monotonic() - begun


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument("--again", type=int, default=3, help="visits, each of a new browser")
    parser.add_argument("--keep", type=Path, help="a folder for the store, used again where it is there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as own:
        folder = given.keep or Path(own)
        folder.mkdir(exist_ok=True)
        if not (folder / "mlflow.db").exists():
            seconds = told(folder, given.runs, given.points)[1]
            print(f"store of {given.runs} runs of {given.points} points: made in {seconds:.0f} s")
        ports = {"port": free_port(), "dashboard_port": free_port()}
        study = f"sqlite:///{folder}/study.db"
        import optuna

        optuna.create_study(storage=study, study_name="bench", load_if_exists=True)
        mlflow = f"sqlite:///{folder}/mlflow.db"
        serving = Serving(study_url=study, mlflow_uri=mlflow, door=ports, study="bench", ranked=True)
        try:
            for visit in range(given.again):
                with Browser() as browser:
                    browser.size(1200, 800)
                    browser.open(serving.pages["MLflow"])
                    rows = browser.wait(_ROWS, 60.0)
                    drawn = rows + browser.wait(_DRAWN, 60.0)
                    browser.shot(folder / "page.png")
                    print(f"visit {visit + 1}: rows after {rows:.2f} s, charts after {drawn:.2f} s")
                    assert not browser.errors, browser.errors
        finally:
            serving.end(signal.SIGTERM)


if __name__ == "__main__":
    main()
