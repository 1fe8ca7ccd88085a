"""The driver's tracker: appends to the outbox in microseconds, and runs the delivery process.

The delivering process is one of its own because `import mlflow` and a first SQLite store cost some four
seconds of processor time: a thread left the driver 37 % of its speed meanwhile, a process all of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from sweeps.environment import FOR_MLFLOW, for_child
from sweeps.folders import REPORT
from sweeps.records import Point, State
from sweeps.tracking.events import LARGEST_REPORT
from sweeps.tracking.interface import NullTracker, Objective, Values
from sweeps.tracking.outbox import Outbox, read_sent
from sweeps.tracking.store import artifact_root, store_uri
from sweeps.wording import masked
from tli.files import open_regular, read_regular

LOG = "outbox.log"
_LAST_SECONDS = 10.0  # for a delivery that has nothing left to do, or does nothing


class Tracker:
    """Tracks one sweep into MLflow through the outbox in `folder`.

    `uri` is what the spec says under `tracking.uri`, `artifacts` the folder that "sqlite" means a file in.
    `study_uuid` names the study for ever (not only until another takes its name): an experiment that bears
    another is left alone and NAME-2 is taken. `restore`: what was deleted in MLflow comes back.
    `problem` says what went wrong on this side, if any.
    """

    def __init__(
        self,
        uri: str,
        *,
        study: str,
        folder: Path,
        artifacts: Path,
        study_uuid: str | None = None,
        restore: bool = False,
    ) -> None:
        root = artifact_root(uri, artifacts)
        self.problem: str | None = None
        self._folder = folder.resolve()
        self._target = {
            "uri": store_uri(uri, artifacts),
            "study": study,
            "identity": study_uuid,
            "folder": str(self._folder),
            "artifact_root": None if root is None else str(root),
            "restore": restore,
        }
        self._outbox: Outbox | None = None
        self._size = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._restart_after, self._patience = 0.0, 5.0

    def open_sweep(
        self, params: Values, tags: Values, *, again: bool = True, when: float | None = None
    ) -> None:
        """Open the outbox, take up what is there, and start delivering."""
        with self._caught():
            if self._outbox is None:
                self._outbox = Outbox(self._folder)
        shown = _given(tags)
        self._append(lambda box: box.put("sweep", when=when, again=again, params=flat(params), tags=shown))

    def declare(
        self, number: int, settings: Values, tags: Values, when: float | None = None, name: str | None = None
    ) -> None:
        """A trial began: its run is named."""
        params, shown, name = flat(settings), _given(tags), name or str(number)
        self._append(lambda box: box.put("trial", number, when=when, name=name, params=params, tags=shown))

    def points(self, number: int, attempt: int, points: Sequence[Point]) -> None:
        """Held-out and train losses, each (trial, step) once for ever."""
        self._append(lambda box: box.points(number, attempt, points))

    def end(
        self, number: int, status: State, tags: Values, metrics: Values, when: float | None = None
    ) -> None:
        """The run is over: COMPLETE and PRUNED are FINISHED in MLflow, FAIL is FAILED."""
        shown = {"sweeps.state": str(status), **_given(tags)}
        scalars = {key: float(value) for key, value in metrics.items() if value is not None}
        self._append(
            lambda box: box.put("end", number, when=when, status=str(status), tags=shown, metrics=scalars)
        )

    def register(self, number: int, attempt: int, names: Sequence[str], tags: Values) -> None:
        """The model of an attempt at a trial is to be in the registry under these names, with these tags."""
        shown, wanted = _given(tags), list(names)
        self._append(lambda box: box.put("register", number, attempt=attempt, names=wanted, tags=shown))

    def knows(self, number: int, steps: Collection[int], request: str | None = None) -> bool:
        """Whether the outbox has a trial's end and its held-out losses at these steps."""
        return self._outbox is not None and self._outbox.has(number, steps, request)

    def end_sweep(self, tags: Values, objectives: Sequence[Objective], when: float) -> None:
        """The sweep's run is over; its best loss stands at the number of trials that it was the best of."""
        status, values = str(State.COMPLETE), [list(each) for each in objectives]
        shown = {"sweeps.state": status, **_given(tags)}
        self._append(lambda box: box.put("end", when=when, status=status, tags=shown, objectives=values))

    def rank(self, numbers: Sequence[int], first: Sequence[int] = ()) -> None:
        """Tag the trials 1, 2, ... in this order, and in that of a list of runs."""
        self._append(lambda box: box.put("rank", numbers=list(numbers), first=list(first)))

    def gaps_against(self) -> int | None:
        """The control that gaps were told against, by this process or one before it."""
        return self._outbox.against if self._outbox is not None else None

    def gaps(self, number: int, against: int, gaps: Mapping[int, float], final: float | None) -> None:
        """Losses less those of a control, each (trial, step) once for ever."""
        self._append(lambda box: box.gaps(number, against, gaps, final))

    def mark(self, number: int | None, tags: Values, *, again: bool = False) -> None:
        """Tag a run, and leave its status as it is."""
        shown = _given(tags)
        self._append(lambda box: box.put("mark", number, instead=again, tags=shown))

    def describe(self, tags: Values) -> None:
        """Tag the experiment."""
        shown = _given(tags)
        self._append(lambda box: box.put("experiment", tags=shown))

    def report(self) -> None:
        """Have the page delivered as an artifact of the sweep's run, unless this very one was."""
        with self._caught():
            page = read_regular(self._folder / REPORT, LARGEST_REPORT)
            digest = hashlib.sha256(page).hexdigest()
            self._append(lambda box: box.put("report", sha256=digest))

    def drain(self, patience: float) -> bool:
        """Wait until all is delivered, or for so many seconds nothing was; whether all of it was."""
        left, deadline = self.pending(), time.monotonic() + patience
        while left and self.problem is None and time.monotonic() < deadline:
            with self._caught():
                self._deliver()
            time.sleep(0.05)
            if (now := self.pending()) != left:
                left, deadline = now, time.monotonic() + patience
        return self.close(_LAST_SECONDS)

    def close(self, timeout: float) -> bool:
        """Let the delivering process finish, or end it when time is up; the rest waits in the outbox."""
        box, self._outbox = self._outbox, None
        if box is not None:
            with self._caught():
                self._size = box.size
                box.close()
                self._finish(timeout)
        return self.problem is None and self.pending() == 0

    def pending(self) -> int:
        """Bytes of the outbox that have not been delivered yet."""
        sent = read_sent(self._folder)
        size = self._size if self._outbox is None else self._outbox.size
        return max(0, size - (sent.offset if sent is not None else 0))

    def _append(self, write: Callable[[Outbox], bool]) -> None:
        with self._caught():
            if self._outbox is not None:
                write(self._outbox)
                self._deliver()

    @contextlib.contextmanager
    def _caught(self) -> Any:
        """Tracking never stops a sweep: what fails here is kept to be told at the end."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever stands in the outbox, the sweep goes on
            self.problem = masked(f"{type(error).__name__}: {error}")

    def _deliver(self) -> None:
        """Start the delivering process, and start it again, ever more patiently, when it died."""
        now = time.monotonic()
        if (self._process is not None and self._process.poll() is None) or now < self._restart_after:
            return
        self._restart_after, self._patience = now + self._patience, min(self._patience * 2, 300.0)
        log_flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with os.fdopen(open_regular(self._folder / LOG, log_flags, 0o666), "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sweeps.tracking"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=Path(__file__).resolve().parents[2],  # so that this very package is found
                env=for_child(*FOR_MLFLOW),
                start_new_session=True,  # Ctrl-C is for the driver; it then closes this one
            )
        # The address may hold a password: it goes by the pipe, where no process list shows it. The pipe then
        # stays open as the life line: when the driver is killed, the process sees it break.
        self._tell(json.dumps(self._target))

    def _tell(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def _finish(self, timeout: float) -> None:
        if self._process is None:
            return
        self._tell(f"{max(timeout - 1.0, 0.1)}")
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5.0)


def open_tracker(
    uri: str | None, *, study: str, folder: Path, artifacts: Path, study_uuid: str | None = None
) -> Tracker | NullTracker:
    """The tracker for what the spec says: `tracking: null` is None here."""
    if uri is None:
        return NullTracker()
    return Tracker(uri, study=study, folder=folder, artifacts=artifacts, study_uuid=study_uuid)


def flat(values: Values, prefix: str = "") -> dict[str, str]:
    """Nested settings as text by dotted path, as a spec has them but without passwords."""
    result: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            result.update(flat(value, f"{prefix}{key}."))
        elif value is None or isinstance(value, int | float):
            result[f"{prefix}{key}"] = _number(value)
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            result[f"{prefix}{key}"] = masked(text)
    return result


@lru_cache(maxsize=4096, typed=True)
def _number(value: float | None) -> str:
    """As JSON has it, which holds no password; trials share nearly all of theirs."""
    return json.dumps(value)


def _given(tags: Values) -> dict[str, str]:
    """Tags as text, without those that say nothing."""
    return flat({key: value for key, value in tags.items() if value is not None})
