"""The tracking outbox: events on their way to the tracking server, kept on disk until they are delivered.

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

EVENTS = "outbox.jsonl"
SENT = "outbox.sent"
LOCK = "outbox.lock"  # held by whoever delivers
OPENINGS = ("sweep", "trial")  # kinds of event that begin something which an "end" ends

Event = dict[str, Any]


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
        self.path = folder / EVENTS
        self._lock = threading.Lock()
        self._evals: set[tuple[int, int]] = set()
        self._train: set[tuple[int, int]] = set()
        self._latest: dict[tuple[str, int | None], str] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._size = self._recover()
        sent = read_sent(folder)
        if sent is not None and sent.offset > self._size:
            (folder / SENT).unlink(missing_ok=True)  # it counts bytes that a power cut or a person took

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
            self._evals.update((number, point["step"]) for point in event["evals"])
            self._train.update((number, step) for step, _, _ in event["train"])
            return
        self._latest[kind, number] = _content(event)
        if kind in OPENINGS:
            self._latest.pop(("end", number), None)

    def put(
        self,
        kind: str,
        number: int | None = None,
        *,
        when: float | None = None,
        again: bool = False,
        **content: Any,
    ) -> bool:
        """Write one event unless the last one of its kind for this trial said the same.

        Args:
            kind: of event.
            number: of the trial; None is the sweep itself.
            when: it happened, in seconds since the epoch; now by default.
            again: an opening after an end is news even when it says the same: a finished sweep that goes on.
            content: all else of the event.

        Raises:
            OSError: The disk is full or gone; nothing of the event is left in the file.
            TypeError, ValueError: The content is not JSON.
        """
        event = {"kind": kind, "number": number, "time": when or time.time(), **content}
        with self._lock:
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
            self._write(
                {"kind": "points", "number": number, "attempt": attempt, "evals": evals, "train": train}
            )
        return True

    def has(self, number: int, steps: Collection[int]) -> bool:
        """Whether a trial's opening and end are in the file, and its held-out losses at these steps.

        The train losses between two of them came with the later one.
        """
        with self._lock:
            framed = ("trial", number) in self._latest and ("end", number) in self._latest
            return framed and all((number, step) in self._evals for step in steps)

    def _write(self, event: Event) -> None:
        data = json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace") + b"\n"
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
    told = {key: value for key, value in event.items() if key != "time"}
    return json.dumps(told, sort_keys=True)


def read_events(path: Path, offset: int = 0, limit: int | None = None) -> Iterator[tuple[Event | None, int]]:
    """Events from a byte offset on, each with the offset after it; a torn last line is left for later.

    A line that is not an event (a disk fault, an editor) comes as None, so that it can be stepped over.
    At most about `limit` bytes are read.
    """
    end = offset
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            end += len(line)
            yield _parse(line), end
            if limit is not None and end - offset >= limit:
                return


def _parse(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "kind" in event else None


def read_sent(folder: Path) -> Sent | None:
    """What has been delivered of the outbox in this folder; None when nothing has or it cannot be read."""
    try:
        return Sent(**json.loads((folder / SENT).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_sent(folder: Path, sent: Sent) -> None:
    """Replace the sidecar as a whole."""
    aside = folder / f".{SENT}.tmp-{os.getpid()}"
    with aside.open("w", encoding="utf-8") as file:
        json.dump(asdict(sent), file)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(folder / SENT)


def forget_sent(folder: Path) -> None:
    """Have all of it delivered again, once nobody delivers any more: a process of a dead driver may yet."""
    with (folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (folder / SENT).unlink(missing_ok=True)
