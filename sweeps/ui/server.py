"""`sweeps ui`: MLflow for curves and optuna-dashboard for the search, in the browser."""

from __future__ import annotations

import contextlib
import html
import json
import os
import secrets
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

from sweeps.addresses import file_of, may_exist
from sweeps.environment import FOR_MLFLOW, for_child
from sweeps.errors import SweepError
from sweeps.tracking.saved_view import KEY, TAG
from sweeps.ui.gate import TOKEN
from sweeps.ui.login import HERE, Door, sockets
from sweeps.wording import masked

START_SECONDS = 120.0
_TAIL = 20  # lines of a log that are shown when its program ends
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy would be told the token
_OPENING = '<meta http-equiv="refresh" content="0; url={}">'


def serve(
    study_url: str,
    mlflow_uri: str | None,
    *,
    door: Door = HERE,
    open_browser: bool = False,
    study: str | None = None,
    ranked: bool = False,
) -> int:
    """Show the stores until Ctrl-C or SIGTERM; then both programs end. Nothing can be changed through them.

    Every request needs the token that is made for this start and is part of the addresses that are printed.

    Args:
        study_url: SQLAlchemy URL of the study's store.
        mlflow_uri: of the tracking store; a server's address is printed as it is, None leaves MLflow out.
        door: where to listen, and for whom.
        open_browser: open the pages too.
        study: name of the sweep, for pages that show it alone.
        ranked: whether it has its answer, so that MLflow's first row is what that hands over.

    Returns:
        0 when it was ended by hand.

    Raises:
        InputError: a port is taken.
        SweepError: one of the programs did not start, or ended.
    """
    served = mlflow_uri is not None and not mlflow_uri.startswith(("http://", "https://"))
    if served and not may_exist(str(mlflow_uri)):
        print(f"note: nothing was told to MLflow so far: there is no {file_of(str(mlflow_uri))}")
        served, mlflow_uri = False, None
    stores = {**({"MLflow": str(mlflow_uri)} if served else {}), "Optuna": study_url}
    token = secrets.token_urlsafe(32)
    with (
        _until_stopped(),
        tempfile.TemporaryDirectory(prefix="sweeps-ui-") as folder,
        contextlib.ExitStack() as stack,
    ):
        listening = sockets(door, stores)
        programs = {name: Program(name, stores[name], door, token, Path(folder)) for name in stores}
        for each in listening.values():
            stack.enter_context(each)
        for name, program in programs.items():
            stack.enter_context(program.listening(listening[name]))
        _wait(programs)
        pages = {name: program.page(study, ranked=ranked) for name, program in programs.items()}
        if mlflow_uri is not None and not served:
            pages = {"MLflow": masked(mlflow_uri), **pages}
        for name, page in pages.items():
            print(f"  {name:<7} {page}")
            if open_browser:
                webbrowser.open(_opening(Path(folder) / f"{name}.html", page))
        if door.outside:
            print(
                "note: other machines reach these pages, and what they are sent is not encrypted; a tunnel is"
            )
        print("Ctrl-C ends both" if len(programs) == 2 else "Ctrl-C ends it", flush=True)
        _watch(programs)
    return 0


class Program:
    """A view's web server, in a process group of its own, with its output in a file."""

    def __init__(self, name: str, store: str, door: Door, token: str, folder: Path) -> None:
        self.name, self._store, self._door, self._token = name, store, door, token
        self.url = ""
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def listening(self, at: socket.socket) -> Self:
        """Start it on a socket that listens already: who connects to its port connects to it alone."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._door.host, self._door.host)  # noqa: S104
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{at.getsockname()[1]}"
        with at, self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sweeps.ui.views"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=for_child(*FOR_MLFLOW),
                start_new_session=True,
                pass_fds=[at.fileno()],
            )
            settings = {
                "view": self.name,
                "store": self._store,
                "socket": at.fileno(),
                "token": self._token,
                "names": self._door.known_as,
            }
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended; what it said is shown
            self._process.stdin.write(json.dumps(settings).encode() + b"\n")
            self._process.stdin.flush()
        return self

    def __enter__(self) -> Self:
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
        return self._get("/health" if self.name == "MLflow" else "/api/meta") is not None

    def _get(self, path: str, body: Mapping[str, Any] | None = None) -> bytes | None:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self._token}"}
        if data is not None:
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(f"{self.url}{path}", data, headers)  # noqa: S310 - our own
        try:
            with _DIRECT.open(request, timeout=5.0) as answer:
                return bytes(answer.read())
        except (OSError, ValueError):
            return None

    def page(self, study: str | None, *, ranked: bool) -> str:
        """Where to look: the sweep's own page, when it can be found."""
        key = f"?{TOKEN}={self._token}"
        if study is not None:
            with contextlib.suppress(ValueError, KeyError, IndexError, StopIteration, TypeError):
                if self.name == "MLflow":
                    return f"{self.url}/{key}{self._experiment(study, ranked=ranked)}"
                return f"{self.url}{self._study(study)}{key}"
        return f"{self.url}/{key}"

    def _experiment(self, study: str, *, ranked: bool) -> str:
        """The charts of all trials, the best first; the sweep's own run, which has no curves, left out."""
        wanted = {
            "filter": f"tags.`sweeps.study` = '{study}'",
            "order_by": ["creation_time DESC"],
            "max_results": 1,
        }
        found = _json(self._get("/api/2.0/mlflow/experiments/search", wanted))["experiments"][0]
        page = f"#/experiments/{found['experiment_id']}/runs?"
        shown = {"workflowType": "machine_learning", "compareRunsMode": "CHART"}
        if any(tag["key"] == TAG for tag in found.get("tags", ())):
            return f"{page}{urlencode({**shown, 'viewStateShareKey': KEY})}"
        view = {  # of a sweep that was told to MLflow before there was a saved view
            **shown,
            # Without the sweep's own run, which has no role, and without replicates: another seed is another
            # text order, so their losses do not compare with those of the search.
            "searchFilter": "tags.`sweeps.role` != 'replicate'",
            "orderByKey": "tags.`sweeps.rank`" if ranked else "metrics.`objective`",
            "orderByAsc": "true",
            "startTime": "ALL",
        }
        return f"{page}{urlencode(view, quote_via=quote)}"

    def _study(self, study: str) -> str:
        studies = _json(self._get("/api/studies"))["study_summaries"]
        return (
            f"/dashboard/studies/{next(each['study_id'] for each in studies if each['study_name'] == study)}"
        )


def _json(answer: bytes | None) -> dict[str, Any]:
    return dict(json.loads(answer or b"{}"))


def _opening(file: Path, page: str) -> str:
    """A file that opens a page: the words with which a browser is started are seen by every user."""
    file.touch(mode=0o600)
    file.write_text(_OPENING.format(html.escape(page)))
    return file.as_uri()


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
