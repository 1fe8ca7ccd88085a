"""The tracking outbox: a queue on disk of events that MLflow has yet to receive.

`outbox.jsonl` in the sweep's folder is only ever appended to, by the driver. `outbox.sent` says how much of
it has been delivered and where to; the delivering process alone writes it.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sweeps.records import Point
from sweeps.tracking.events import OPENINGS, REQUEST, Event, parse
from tli.files import lines, open_regular, read_regular, replace_file

EVENTS = "outbox.jsonl"
SENT = "outbox.sent"
LOCK = "outbox.lock"  # held by the process that delivers
LONGEST = 1 << 26  # bytes of one event; a longer line is none
_SMALL = 4096  # bytes of the sidecar


@dataclass(frozen=True)
class Sent:
    """What has been delivered: the first `offset` bytes, to the experiment of that id on that store."""

    offset: int
    target: str  # fingerprint of store and experiment; another target means delivering again from the start
    experiment_id: str
    experiment: str


class Outbox:
    """Writer of one sweep's outbox; `open` it again after a restart and it knows what it already accepted.

    Every method returns whether anything was written. An event that was accepted before, by this process or
    one before it, is not written again: a trial that goes on from its last checkpoint repeats steps.
    """

    def __init__(self, folder: Path) -> None:
        """Take up what is there.

        Raises:
            OSError: the file cannot be opened, or is a link.
        """
        self.path = folder / EVENTS
        self._lock = threading.Lock()
        self._evals: dict[tuple[int, int], float] = {}  # with the time of the measurement
        self._train: set[tuple[int, int]] = set()
        self._gaps: set[tuple[int, int | None]] = set()  # the step of an objective's gap is None
        self.against: int | None = None  # the control that gaps were told against
        self._latest: dict[tuple[str, int | None], str] = {}
        self._requests: dict[int, str] = {}  # of the trials whose openings came last, by number
        folder.mkdir(parents=True, exist_ok=True)
        self._file = open_regular(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        self._size = self._recover()
        sent = read_sent(folder)
        if sent is not None and sent.offset > self._size:
            (folder / SENT).unlink(missing_ok=True)  # it counts bytes that a power cut or an editor took

    def _recover(self) -> int:
        """Learn what is in the file and cut off a last line that a killed process left half-written."""
        size = 0
        for event, end in read_events(self.path):
            size = end
            if event is not None:
                self._remember(event)
        if os.fstat(self._file).st_size > size:
            os.ftruncate(self._file, size)
        return size

    def _remember(self, event: Event) -> None:
        kind: str = event["kind"]
        number: Any = event.get("number")
        if kind == "points":
            self._evals.update({(number, point["step"]): point["time"] for point in event["evals"]})
            self._train.update((number, step) for step, _, _ in event["train"])
            return
        if kind == "gaps":
            self.against = event["against"] if self.against is None else self.against
            self._gaps.update((number, step) for step, _, _ in event["gaps"])
            self._gaps.update([(number, None)] if event.get("final") is not None else [])
            return
        if kind == "trial":
            self._begin(number, event["tags"].get(REQUEST, ""))
        self._latest[kind, number] = _content(event)
        if kind in OPENINGS:
            self._latest.pop(("end", number), None)

    def _begin(self, number: int, request: str) -> None:
        """A number that was given again, after the study was restored from a backup, is another trial's."""
        if self._requests.get(number, request) != request:
            self._evals = {key: when for key, when in self._evals.items() if key[0] != number}
            self._train = {key for key in self._train if key[0] != number}
            self._gaps = {each for each in self._gaps if each[0] != number}
            self._latest.pop(("end", number), None)
        self._requests[number] = request

    def put(
        self,
        kind: str,
        number: int | None = None,
        *,
        when: float | None = None,
        again: bool = False,
        instead: bool = False,
        **content: Any,
    ) -> bool:
        """Write one event unless the last one of its kind for this trial said the same.

        Args:
            kind: of event.
            number: of the trial; None is the sweep itself.
            when: it happened, in seconds since the epoch; now by default.
            again: an opening after an end is news even when it says the same: a finished sweep that goes on.
            instead: only where an event of this kind was written for this trial before.
            content: all else of the event.

        Raises:
            OSError: The disk is full or gone; nothing of the event is left in the file.
            TypeError, ValueError: The content is not JSON.
        """
        event = {"kind": kind, "number": number, "time": when or time.time(), **content}
        with self._lock:
            if number in self._requests and kind != "trial":
                event["request"] = self._requests[number]
            if kind == "rank":
                listed = [*content["numbers"], *content.get("first", ())]
                event["requests"] = {str(n): r for n in listed if (r := self._requests.get(n))}
            if instead and (kind, number) not in self._latest:
                return False
            reopens = again and ("end", number) in self._latest
            if not reopens and self._latest.get((kind, number)) == _content(event):
                return False
            self._write(event)
        return True

    def points(self, number: int, attempt: int, points: Sequence[Point]) -> bool:
        """Write the measurements whose (trial, step) is new, held-out and train losses each for themselves.

        Raises:
            OSError: As for `put`.
        """
        with self._lock:
            evals, train = [], []
            seen_eval, seen_train = set(), set()
            for point in points:
                when = point.time or time.time()
                if (number, point.step) not in self._evals and point.step not in seen_eval:
                    seen_eval.add(point.step)
                    evals.append({**point.to_json(), "train_loss": [], "time": when})
                for step, loss in point.train_loss:
                    if (number, step) not in self._train and step not in seen_train:
                        seen_train.add(step)
                        train.append([step, loss, when])
            if not evals and not train:
                return False
            event = {"kind": "points", "number": number, "attempt": attempt, "evals": evals, "train": train}
            if number in self._requests:
                event["request"] = self._requests[number]
            self._write(event)
        return True

    def gaps(self, number: int, against: int, gaps: Mapping[int, float], final: float | None) -> bool:
        """Write the gaps to a control, by step and that of the objective, that are new.

        Each has the time of the trial's own measurement, so that an outbox which is made anew is the same.

        Raises:
            OSError: As for `put`.
        """
        with self._lock:
            now = time.time()
            new = [
                [step, gap, self._evals.get((number, step), now)]
                for step, gap in gaps.items()
                if (number, step) not in self._gaps
            ]
            final = None if (number, None) in self._gaps else final
            if not new and final is None:
                return False
            last = self._evals.get((number, max(gaps, default=0)), now)
            told = {"number": number, "time": last, "against": against, "gaps": new, "final": final}
            requested = {"request": self._requests[number]} if number in self._requests else {}
            self._write({"kind": "gaps", **told, **requested})
        return True

    def has(self, number: int, steps: Collection[int], request: str | None = None) -> bool:
        """Whether a trial's opening and end are in the file, and its held-out losses at these steps.

        The train losses between two of them came with the later one. With `request`, the trial that was
        created under this key.
        """
        with self._lock:
            if request is not None and self._requests.get(number) != request:
                return False
            framed = ("trial", number) in self._latest and ("end", number) in self._latest
            return framed and all((number, step) in self._evals for step in steps)

    def _write(self, event: Event) -> None:
        data = json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        if len(data) > LONGEST:
            raise ValueError(f"an event of {len(data)} bytes, and at most {LONGEST} are read again")
        try:
            written = os.write(self._file, data)
            if written != len(data):
                raise OSError(f"only {written} of {len(data)} bytes could be written")  # noqa: TRY301
        except OSError:
            # A torn line in the middle would hide the next event: take it back.
            with suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise
        self._size += len(data)
        self._remember(event)

    @property
    def size(self) -> int:
        """Bytes of whole events in the file."""
        return self._size

    def close(self) -> None:
        """Let go of the file."""
        with suppress(OSError):
            os.close(self._file)


def _content(event: Mapping[str, Any]) -> str:
    content = {key: value for key, value in event.items() if key != "time"}
    return json.dumps(content, sort_keys=True)


def read_events(path: Path, offset: int = 0, limit: int | None = None) -> Iterator[tuple[Event | None, int]]:
    """Events from a byte offset on, each with the offset after it; a torn last line is left for later.

    A line that is not an event (a disk fault, an editor) comes as None, so that it can be stepped over.
    At most about `limit` bytes are read.

    Raises:
        OSError: there is no such file, or it is a link.
    """
    for line, end in lines(path, offset, LONGEST):
        yield None if line is None else parse(line), end
        if limit is not None and end - offset >= limit:
            return


def read_sent(folder: Path) -> Sent | None:
    """What has been delivered of the outbox in this folder; None when nothing has or it cannot be read."""
    try:
        sent = Sent(**json.loads(read_regular(folder / SENT, _SMALL)))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    texts = all(isinstance(text, str) for text in (sent.target, sent.experiment_id, sent.experiment))
    whole = isinstance(sent.offset, int) and not isinstance(sent.offset, bool) and 0 <= sent.offset < 2**63
    return sent if texts and whole else None


def write_sent(folder: Path, sent: Sent) -> None:
    """Replace the sidecar as a whole."""
    replace_file(folder / SENT, json.dumps(asdict(sent)).encode())


def open_lock(folder: Path) -> int:
    """A descriptor of the file that is locked by the process that delivers; made if it is not there.

    Raises:
        OSError: it cannot be opened, or is a link.
    """
    return open_regular(folder / LOCK, os.O_WRONLY | os.O_CREAT)


def forget_sent(folder: Path) -> None:
    """Have all of it delivered again, once no process delivers any more: one of a dead driver may yet."""
    with os.fdopen(open_lock(folder), "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (folder / SENT).unlink(missing_ok=True)
