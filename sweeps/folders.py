"""Where everything of a sweep lies on disk."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sweeps.errors import LedgerHeldError


@dataclass(frozen=True)
class Folders:
    """The places of one sweep under its artifacts folder. Nothing is created by looking."""

    artifacts: Path
    name: str

    @property
    def sweep(self) -> Path:
        """What belongs to this sweep alone."""
        return self.artifacts / self.name

    @property
    def tokens(self) -> Path:
        """Token files, shared by all sweeps."""
        return self.artifacts / "tokens"

    @property
    def spec(self) -> Path:
        """The spec as it was last run, with passwords masked."""
        return self.sweep / "spec.json"

    def trial(self, number: int) -> Path:
        """What one trial writes."""
        return self.sweep / "trials" / f"{number:04d}"

    def checkpoints(self, number: int) -> Path:
        """Training states of a trial that may go on."""
        return self.trial(number) / "checkpoints"

    def final(self, number: int, attempt: int) -> Path:
        """The model that one attempt at a trial trained; of a complete trial, its last attempt's counts.

        Each has its own, so that one that was given up and comes back late harms no other.
        """
        return self.trial(number) / f"final-{attempt}"

    def hung(self, number: int, attempt: int) -> Path:
        """Where the threads of an attempt stood when it was ended because it did not go on."""
        return self.trial(number) / f"hung-{attempt}.txt"

    def recalled(self, number: int, attempt: int) -> Path:
        """There once an attempt is to end, at its next step; its worker looks for it."""
        return self.trial(number) / f"recalled-{attempt}"

    def recall(self, number: int, attempt: int) -> None:
        """Have an attempt end at its next step."""
        path = self.recalled(number, attempt)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def drop_checkpoints(self, number: int) -> None:
        """A trial that has ended does not go on, and need not be told to end."""
        for path in self._written(number):
            if path == self.checkpoints(number):
                shutil.rmtree(path, ignore_errors=True)
            elif path.name.startswith("recalled-"):
                path.unlink(missing_ok=True)

    def drop_finals(self, number: int, but: int | None = None) -> None:
        """Free the space of models that cannot win any more: of all attempts at an ended trial, or but one.

        With them goes what an attempt was writing when it was killed: the next one has a name of its own.
        """
        kept = None if but is None else self.final(number, but)
        for path in self._written(number):
            if path != kept and (path.match("final-*") or path.match(".final-*.tmp-*")):
                shutil.rmtree(path, ignore_errors=True)

    def _written(self, number: int) -> list[Path]:
        """What lies in a trial's folder, by one look: thousands are looked into when a long sweep goes on."""
        try:
            return list(self.trial(number).iterdir())
        except OSError:  # it is not there, or is nobody's business: what cannot be freed stays
            return []

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the one driver of this sweep.

        The lock goes with the process, however it ends.

        Raises:
            LedgerHeldError: another process drives it.
        """
        self.sweep.mkdir(parents=True, exist_ok=True)
        with (self.sweep / "driver.lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.seek(0)
                holder = lock.read() or "another process"
                raise LedgerHeldError(
                    f"{self.name} is being driven by {holder}; wait for it, or stop it, then run this again"
                ) from None
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {socket.gethostname()}")
            lock.flush()
            yield

    def write_spec(self, spec: dict) -> None:
        """Keep the spec beside its results."""
        self.sweep.mkdir(parents=True, exist_ok=True)
        aside = self.spec.with_name(f".{self.spec.name}.tmp-{os.getpid()}")
        aside.write_text(json.dumps(spec, indent=1) + "\n")
        aside.rename(self.spec)
