"""The layout of a sweep's files on disk; writes that are whole, synced, and never through a link.

A runs folder may have been received from a stranger. A link in it would lead what is written here, emptied
or removed to a file of the user's: a sweep's folder, those below it, and the files in them are none.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.errors import LedgerHeldError, Problem, SpecError
from sweeps.records import Assignment
from tli.files import open_regular, read_regular, replace_file, sync

REPORT = "report.html"
LOCK = "driver.lock"  # held by the process that drives the sweep
_STATE = re.compile(r"step-(\d{8})-[0-9a-f]{8}-")  # the name of a training state
_SMALL = 4096  # bytes; of a lock or a recall mark


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
    def targets(self) -> Path:
        """Where a sweep that runs says which addresses Prometheus is to ask; beside those of other sweeps."""
        return self.artifacts / "prometheus" / f"{self.name}.json"

    @property
    def spec(self) -> Path:
        """The spec as it was last run, with passwords masked."""
        return self.sweep / "spec.json"

    @property
    def report(self) -> Path:
        """The HTML page of its answer."""
        return self.sweep / REPORT

    def trial(self, number: int) -> Path:
        """What one trial writes."""
        return self.sweep / "trials" / f"{number:04d}"

    def checkpoints(self, number: int) -> Path:
        """Training states of a trial that may go on."""
        return self.trial(number) / "checkpoints"

    def branch(self, number: int) -> Path:
        """The training state from which a longer run of a trial goes on, where its schedule has one."""
        return self.trial(number) / "branch"

    def branch_step(self, number: int) -> int | None:
        """The step of that state; None where none is kept, or where it lies behind a link."""
        folder = self.branch(number)
        try:
            linked = any(place.is_symlink() for place in self._down_to(folder))
            names = [] if linked else [path.name for path in folder.iterdir()]
        except OSError:
            return None
        return max((int(found[1]) for name in names if (found := _STATE.match(name))), default=None)

    def registered(self, number: int, attempt: int) -> Path:
        """Under which names MLflow's registry has, or is to have, the model of an attempt."""
        return self.trial(number) / f"registered-{attempt}.json"

    def model_dir(self, number: int, attempt: int) -> Path:
        """The model that one attempt at a trial trained; of a complete trial, its last attempt's counts.

        Each has its own, so that one that was given up and comes back late harms no other.
        """
        return self.trial(number) / f"final-{attempt}"

    def hung(self, number: int, attempt: int) -> Path:
        """Where the threads of an attempt stood when it was ended because it did not go on."""
        return self.trial(number) / f"hung-{attempt}.txt"

    def ending(self, number: int, attempt: int) -> Path:
        """How an attempt ended, with the token of its assignment, where its worker ended with it."""
        return self.trial(number) / f"ended-{attempt}.json"

    def stop_request(self, number: int, attempt: int) -> Path:
        """There, with the token of its assignment, once an attempt is to end; its worker looks for it."""
        return self.trial(number) / f"recalled-{attempt}"

    def make(self, folder: Path) -> Path:
        """Make a folder of this sweep, with those above it.

        Raises:
            OSError: it cannot be made; or it, or one between it and the artifacts folder, is a link (ELOOP).
        """
        self.artifacts.mkdir(parents=True, exist_ok=True)
        place = self.artifacts
        for name in folder.relative_to(self.artifacts).parts:
            place /= name
            try:
                place.mkdir()
            except FileExistsError:
                pass
            else:
                sync(place.parent)  # or a power cut takes the folder with what is synced in it
            if place.is_symlink():
                raise OSError(errno.ELOOP, "A link, which is not followed", str(place))
            if not place.is_dir():
                raise OSError(errno.ENOTDIR, "Not a folder", str(place))
        return place

    def request_stop(self, assignment: Assignment) -> None:
        """Have an attempt end at its next step.

        Raises:
            OSError: the mark cannot be written.
        """
        path = self.stop_request(assignment.number, assignment.attempt)
        self.make(path.parent)
        replace_file(path, assignment.token.encode())

    def stop_requested(self, assignment: Assignment) -> bool:
        """Whether this handing out of the attempt was recalled, not an earlier study's of its number."""
        try:
            mark = read_regular(self.stop_request(assignment.number, assignment.attempt), _SMALL)
        except OSError:
            return False
        return mark == assignment.token.encode()

    def drop_checkpoints(self, number: int) -> None:
        """A trial that has ended does not go on, and need not be told to end."""
        for path in self._written(number):
            if path == self.checkpoints(number):
                shutil.rmtree(path, ignore_errors=True)
            elif path.name.startswith(("recalled-", "ended-")):
                path.unlink(missing_ok=True)

    def drop_finals(self, number: int, but: int | None = None) -> None:
        """Free the space of models that cannot win any more: of all attempts at an ended trial, or but one.

        With them goes what an attempt was writing when it was killed: the next one has a name of its own;
        and, with all of them, the state that a longer run would go on from. What a registry names stays.
        """
        written = self._written(number)
        kept = {None if but is None else self.model_dir(number, but)}
        kept |= {path.with_name(path.stem.replace("registered", "final")) for path in written
                 if path.match("registered-*.json")}  # fmt: skip
        for path in written:
            dropped = path.match("final-*") or path.match(".final-*.tmp-*")
            if path not in kept and (dropped or (but is None and path == self.branch(number))):
                shutil.rmtree(path, ignore_errors=True)

    def _written(self, number: int) -> list[Path]:
        """What lies in a trial's folder, by one look: thousands are looked into when a long sweep goes on."""
        folder = self.trial(number)
        try:
            return (
                [] if any(place.is_symlink() for place in self._down_to(folder)) else list(folder.iterdir())
            )
        except OSError:  # it is not there, or may not be looked into: what cannot be freed stays
            return []

    def _down_to(self, folder: Path) -> Iterator[Path]:
        """The folders of this sweep from its own to one in it."""
        return (place for place in (folder, *folder.parents) if place.is_relative_to(self.sweep))

    def links(self) -> list[Problem]:
        """The folders of this sweep, of its trials and of what all sweeps share, where they are links."""
        trials = self.sweep / "trials"
        own = (self.sweep, trials)
        shared = (self.tokens, self.artifacts / "mlartifacts")
        found = [place for place in (*own, *shared) if place.is_symlink()]
        with suppress(OSError):
            found += (
                []
                if set(found) & set(own)
                else sorted(Path(each) for each in os.scandir(trials) if each.is_symlink())
            )
        expected = "a folder of its own: what is written or removed in it would be so elsewhere"
        return [Problem(str(place), "a link", expected, "moving what it names here") for place in found]

    @contextmanager
    def driver_lock(self) -> Iterator[None]:
        """Be the one driver of this sweep.

        The lock goes with the process, however it ends.

        Raises:
            SpecError: a folder that would be written in is a link, or the lock cannot be opened.
            LedgerHeldError: another process drives it.
        """
        if links := self.links():
            raise SpecError(*links)
        with os.fdopen(self._locked(), "r+b", buffering=0) as lock:
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
            yield

    def _locked(self) -> int:
        """The lock of the folder that has the name now: it may be set aside while this process waits."""
        path = self.sweep / LOCK
        while True:
            try:
                self.make(self.sweep)
                lock = open_regular(path, os.O_RDWR | os.O_CREAT)
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.EINVAL, errno.EISDIR):
                    raise
                got = f"no file of its own ({(error.strerror or '').lower()})"
                raise SpecError(Problem(str(path), got, "a regular file", "removing it")) from None
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                with os.fdopen(lock, "rb") as held:
                    holder = held.read(_SMALL).decode("utf-8", "replace") or "another process"
                raise LedgerHeldError(
                    f"{self.name} is being driven by {holder}; wait for it, or stop it, then run this again"
                ) from None
            with suppress(OSError):
                if os.path.samestat(os.fstat(lock), path.stat()):
                    return lock
            os.close(lock)

    def write_spec(self, spec: Mapping[str, Any]) -> None:
        """Keep the spec beside its results.

        Raises:
            OSError: it cannot be written; the one that was there stays.
        """
        self.make(self.sweep)
        replace_file(self.spec, (json.dumps(spec, indent=1) + "\n").encode())
