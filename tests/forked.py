"""Processes that start in milliseconds, each forked from one process that has loaded the libraries already.

What runs in one has its own number, session, signals, folder, environment and output; it can be stopped, killed and
waited for. Only what loading costs, or does, is not seen there: tests of that start an interpreter of their own.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

LOADED = (
    "sweeps.driver.service", "sweeps.results.finding", "sweeps.checks.preflight", "sweeps.ledger", "sweeps.driver.inline",
    "sweeps.worker.trial", "sweeps.report.live", "sweeps.report.summary", "sweeps.tracking", "sqlalchemy.dialects.sqlite",
    "tli.training.loop", "tli.sharded.processes", "tli.growth.on_disk", "tli.models.loading", "tli.training.saver", "tli.training.export",
    "transformers.models.llama.modeling_llama", "alembic.command", "alembic.script", "optuna.samplers", "optuna.pruners", "psycopg",
    "sqlalchemy.dialects.postgresql.psycopg",
)  # fmt: skip
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload([*LOADED, __name__])


class Forked:
    """A function in a process of its own, with the words of `subprocess.Popen` that tests use."""

    def __init__(self, work: Callable[..., object], *given: Any, folder: Path) -> None:
        """Begin; what it prints goes to files in `folder`, which is where it works, too."""
        number = len(list(folder.glob("forked-*.out")))
        self.out, self.err = (folder / f"forked-{number}.{stream}" for stream in ("out", "err"))
        for file in (self.out, self.err):
            file.touch()
        places = (str(folder), str(self.out), str(self.err), dict(os.environ))
        self._process = FORKED.Process(target=_begin, args=(work, given, *places))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Its exit code, or minus the signal that killed it; None while it runs."""
        return self._process.exitcode

    @property
    def returncode(self) -> int | None:
        """As `poll`."""
        return self.poll()

    def wait(self, timeout: float) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        self._process.join(timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired(self.out.name, timeout)
        return code

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Wait for its end; what it wrote to standard output and to standard error."""
        self.wait(timeout)
        return self.out.read_text(), self.err.read_text()

    def lines(self, timeout: float = 60.0) -> Iterator[str]:
        """Whole lines of its standard output as they come, until it ends."""
        deadline = time.monotonic() + timeout
        with self.out.open() as out:
            line = ""
            while True:
                ended = self.poll() is not None
                while line := line + out.readline():
                    if not line.endswith("\n"):
                        break
                    yield line
                    line = ""
                if ended:
                    return
                assert time.monotonic() < deadline, f"{self.out.read_text()}\n{self.err.read_text()}"
                time.sleep(0.01)

    def send_signal(self, number: int) -> None:
        """Unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            if self.poll() is None:
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, and its end."""
        self.send_signal(signal.SIGKILL)
        self._process.join()


@contextlib.contextmanager
def forked(work: Callable[..., object], *given: Any, folder: Path) -> Iterator[Forked]:
    """One that does not outlive the block."""
    process = Forked(work, *given, folder=folder)
    try:
        yield process
    finally:
        process.kill()


def command(package: str, *words: str) -> None:
    """Be `python -m PACKAGE WORDS`."""
    sys.argv = [package, *words]
    runpy.run_module(package, run_name="__main__", alter_sys=True)


def _begin(
    work: Callable[..., object],
    given: Sequence[Any],
    folder: str,
    out: str,
    err: str,
    given_environ: Mapping[str, str],
) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # forkserver's own process takes none
    for path, target in ((out, 1), (err, 2)):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, target)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(given_environ)
    work(*given)
