"""Two views of a sweep's stores in the browser: MLflow for curves, optuna-dashboard for the search."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Self
from urllib.parse import quote, urlencode

from sweeps.errors import InputError, Problem, SweepError
from sweeps.wording import masked

START_SECONDS = 120.0
_TAIL = 20  # lines of a log that are shown when its program ends
# The words come by the pipe: an address may hold a password, which a process list would show. When the pipe
# breaks, we are gone, and the whole process group ends too. MLflow's job workers would not (they have
# sessions of their own), and nothing here needs them.
_LAUNCH = """
import importlib.metadata, json, os, signal, sys, threading
sys.argv = json.loads(sys.stdin.readline())
os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true", GIT_PYTHON_REFRESH="quiet")
os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
def watch():
    sys.stdin.read()
    os.killpg(0, signal.SIGKILL)
threading.Thread(target=watch, daemon=True).start()
entry, *_ = importlib.metadata.entry_points(group="console_scripts", name=sys.argv[0])
sys.exit(entry.load()())
"""


def serve(
    study_url: str,
    mlflow_uri: str | None,
    *,
    host: str = "127.0.0.1",
    port: int = 5000,
    dashboard_port: int = 8080,
    open_browser: bool = False,
    study: str | None = None,
) -> int:
    """Show the stores until Ctrl-C or SIGTERM; then both programs end.

    Args:
        study_url: SQLAlchemy URL of the study's store.
        mlflow_uri: of the tracking store; a server's address is printed as it is, None leaves MLflow out.
        host: to listen on.
        port: of MLflow.
        dashboard_port: of optuna-dashboard.
        open_browser: open the pages too.
        study: name of the sweep, for pages that show it alone.

    Returns:
        0 when it was ended by hand.

    Raises:
        InputError: a port is taken.
        SweepError: one of the programs did not start, or ended.
    """
    served = mlflow_uri is not None and not mlflow_uri.startswith(("http://", "https://"))
    _check_ports(host, {**({"--port": port} if served else {}), "--dashboard-port": dashboard_port})
    with (
        _until_stopped(),
        tempfile.TemporaryDirectory(prefix="sweeps-ui-") as folder,
        contextlib.ExitStack() as stack,
    ):
        programs = {}
        if served:
            words = ["mlflow", "server", "--backend-store-uri", str(mlflow_uri), "--workers", "1"]
            programs["MLflow"] = Program("MLflow", words, host, port, Path(folder))
        words = ["optuna-dashboard", study_url]
        programs["Optuna"] = Program("Optuna", words, host, dashboard_port, Path(folder))
        for program in programs.values():
            stack.enter_context(program)
        _wait(programs)
        pages = {name: program.page(study) for name, program in programs.items()}
        if mlflow_uri is not None and not served:
            pages = {"MLflow": masked(mlflow_uri), **pages}
        for name, page in pages.items():
            print(f"  {name:<7} {page}")
            if open_browser:
                webbrowser.open(page)
        print("Ctrl-C ends both" if len(programs) == 2 else "Ctrl-C ends it", flush=True)
        _watch(programs)
    return 0


class Program:
    """A web server of somebody else's, in a process group of its own, with its output in a file."""

    def __init__(self, name: str, words: list[str], host: str, port: int, folder: Path) -> None:
        self.name, self._words = name, [*words, "--host", host, "--port", str(port)]
        seen_from_here = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104 - compared only
        self.url = f"http://{seen_from_here}:{port}"
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _LAUNCH],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(self._words).encode() + b"\n")
        self._process.stdin.flush()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5.0)

    @property
    def ended(self) -> bool:
        """Whether it runs no more."""
        return self._process is None or self._process.poll() is not None

    def tail(self) -> str:
        """The end of what it said."""
        lines = self._log.read_text("utf-8", "replace").rstrip().splitlines()[-_TAIL:]
        return masked("\n".join(f"  {line}" for line in lines))

    def answers(self) -> bool:
        """Whether its pages can be had."""
        return self._get("/health" if self.name == "MLflow" else "/dashboard") is not None

    def _get(self, path: str, body: Mapping[str, Any] | None = None) -> bytes | None:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 - our own
            f"{self.url}{path}", data, {"Content-Type": "application/json"} if data else {}
        )
        try:
            with urllib.request.urlopen(request, timeout=10.0) as answer:  # noqa: S310 - our own
                return bytes(answer.read())
        except (OSError, ValueError):
            return None

    def page(self, study: str | None) -> str:
        """Where to look: the sweep's own page, when it can be found."""
        if study is None:
            return self.url
        with contextlib.suppress(ValueError, KeyError, IndexError, StopIteration, TypeError):
            return self.url + (self._experiment(study) if self.name == "MLflow" else self._study(study))
        return self.url

    def _experiment(self, study: str) -> str:
        """The charts of all trials, the best first; the sweep's own run, which has no curves, left out."""
        wanted = {
            "filter": f"tags.`sweeps.study` = '{study}'",
            "order_by": ["creation_time DESC"],
            "max_results": 1,
        }
        found = _json(self._get("/api/2.0/mlflow/experiments/search", wanted))["experiments"][0]
        view = {
            "workflowType": "machine_learning",
            "compareRunsMode": "CHART",
            # Without the sweep's own run, which has no role, and without replicates: another seed is another
            # text order, so their losses do not compare with those of the search.
            "searchFilter": "tags.`sweeps.role` != 'replicate'",
            "orderByKey": "metrics.`objective`",
            "orderByAsc": "true",
            "startTime": "ALL",
        }
        return f"/#/experiments/{found['experiment_id']}/runs?{urlencode(view, quote_via=quote)}"

    def _study(self, study: str) -> str:
        studies = _json(self._get("/api/studies"))["study_summaries"]
        return (
            f"/dashboard/studies/{next(each['study_id'] for each in studies if each['study_name'] == study)}"
        )


def _json(answer: bytes | None) -> dict[str, Any]:
    return dict(json.loads(answer or b"{}"))


def _check_ports(host: str, ports: Mapping[str, int]) -> None:
    """All ports that cannot be had, before anything is started."""
    problems, seen = [], set()
    for flag, port in ports.items():
        reason = "asked for twice" if port in seen else _taken(host, port)
        seen.add(port)
        if reason is not None:
            problems.append(Problem(flag, f"{port} ({reason})", "a free port", f"{flag} {_free(host)}"))
    if problems:
        raise InputError(*problems)


def _taken(host: str, port: int) -> str | None:
    try:
        _listen(host, port).close()
    except (OSError, OverflowError) as error:
        number = getattr(error, "errno", None)
        return os.strerror(number) if number else str(error)
    return None


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, reuse_port=False)


def _free(host: str) -> int:
    try:
        with _listen(host, 0) as found:
            return int(found.getsockname()[1])
    except OSError:
        return 5001


def _wait(programs: Mapping[str, Program]) -> None:
    """Until all answer."""
    deadline = time.monotonic() + START_SECONDS
    missing = dict(programs)
    while missing:
        _check_alive(programs)
        missing = {name: program for name, program in missing.items() if not program.answers()}
        if missing and time.monotonic() > deadline:
            name, program = next(iter(missing.items()))
            raise SweepError(f"{name} did not answer within {START_SECONDS:g} s; it said:\n{program.tail()}")
        time.sleep(0.2)


def _watch(programs: Mapping[str, Program]) -> None:
    """Until one ends."""
    while True:
        _check_alive(programs)
        time.sleep(0.3)


def _check_alive(programs: Mapping[str, Program]) -> None:
    for name, program in programs.items():
        if program.ended:
            raise SweepError(f"{name} ended; it said:\n{program.tail()}")


class _Stopped(BaseException):
    """SIGTERM came."""


@contextlib.contextmanager
def _until_stopped() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the block and nothing else."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise _Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except (KeyboardInterrupt, _Stopped):
        print()
    finally:
        signal.signal(signal.SIGTERM, before)
