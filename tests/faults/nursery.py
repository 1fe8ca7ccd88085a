"""Commands that start in milliseconds: a process that has loaded everything forks one for each.

A sweep of millisecond trials is over before Python has loaded torch. What is forked here is a process like any
other (its own session, environment, folder and output; it can be killed, stopped and waited for); only its
imports were done before.
"""

from __future__ import annotations

import importlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from tests.forked import LOADED


class Child:
    """One forked command, with the words of `subprocess.Popen` that the suite uses."""

    def __init__(self, nursery: Nursery, pid: int, args: Sequence[str]) -> None:
        self.pid, self.args = pid, list(args)
        self._nursery = nursery
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code, or minus the signal that killed it; None while it runs."""
        if self.returncode is None:
            self.returncode = self._nursery.ended(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        deadline = time.monotonic() + (timeout if timeout is not None else float("inf"))
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                assert timeout is not None
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(0.005)
        return code

    def kill(self) -> None:
        """SIGKILL, unless it is known to have ended."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


class Nursery:
    """Forks `python -m sweeps ...`; started once for many."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        """Load everything.

        Args:
            folder: for the faults of the process itself: none.
            environment: with the hook on PYTHONPATH, so that it sees the imports.
        """
        folder.mkdir(parents=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.nursery"],
            env={**environment, "SWEEPS_FAULTS": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._ended: dict[int, int] = {}
        self._rest = b""
        assert self._said(wait=True) == "ready"

    def start(self, words: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path) -> Child:
        """Fork a command; its output is added to `log`."""
        assert self._process.stdin is not None
        order = {"words": list(words), "cwd": str(folder), "env": dict(environment), "log": str(log)}
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        while not (said := self._said(wait=True)).startswith("started "):
            self._note(said)
        pid = int(said.split()[1])
        self._ended.pop(pid, None)  # of an earlier child: in a long run numbers come again
        return Child(self, pid, ["sweeps", *words])

    def ended(self, pid: int) -> int | None:
        """The exit code of a child, once it has ended."""
        while said := self._said(wait=False):
            self._note(said)
        return self._ended.get(pid)

    def close(self) -> None:
        """No more commands."""
        self._process.kill()
        self._process.wait()

    def _note(self, said: str) -> None:
        word, pid, code = said.split()
        assert word == "ended"
        self._ended[int(pid)] = int(code)

    def _said(self, *, wait: bool) -> str:
        """The next line; empty when there is none and none is waited for."""
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        os.set_blocking(pipe, wait)
        while b"\n" not in self._rest:
            try:
                data = os.read(pipe, 65536)
            except BlockingIOError:
                return ""
            assert data, "the nursery is gone"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()


# -- the process itself -------------------------------------------------------------------------------


def main() -> None:
    """Fork a command for every line that comes, and tell of every end."""
    for name in LOADED:
        importlib.import_module(name)
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(woken, selectors.EVENT_READ)
    _say("ready")
    rest = b""
    while True:
        for key, _ in selector.select():
            data = os.read(key.fd, 65536)
            if key.fd == woken:
                _reap()
                continue
            if not data:
                return
            *orders, rest = (rest + data).split(b"\n")
            for order in orders:
                pid = os.fork()
                if pid == 0:
                    selector.close()
                    signal.set_wakeup_fd(-1)
                    os.close(woken)
                    os.close(wakes)
                    _command(**json.loads(order))
                _say(f"started {pid}")


def _say(line: str) -> None:
    os.write(1, line.encode() + b"\n")


def _reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _say(f"ended {pid} {os.waitstatus_to_exitcode(status)}")


def _command(words: list[str], cwd: str, env: dict[str, str], log: str) -> NoReturn:
    """Be `python -m sweeps ...`, to the end of the process."""
    import runpy

    import sitecustomize  # the hook

    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for source, target in ((nothing, 0), (out, 1), (out, 2)):
        os.dup2(source, target)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["sweeps", *words]
    sitecustomize.begin(Path(env["SWEEPS_FAULTS"]))
    runpy.run_module("sweeps", run_name="__main__", alter_sys=True)
    sys.exit(0)


if __name__ == "__main__":
    main()
