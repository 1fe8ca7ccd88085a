"""The two views on real stores: they answer, and nothing of them is left afterwards, however it ends."""

from __future__ import annotations

import html
import http.client
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

pytest.importorskip("optuna_dashboard")

from sweeps.errors import InputError, SweepError
from sweeps.ui.login import Door
from sweeps.ui.server import _opening, serve

SERVE = """
import json, sys
from sweeps.ui.login import Door
from sweeps.ui.server import serve
given = json.loads(sys.argv[1])
sys.exit(serve(**{**given, "door": Door(**given.pop("door"))}))
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> str:
    import optuna

    url = f"sqlite:///{tmp_path_factory.mktemp('study') / 'study.db'}"
    made = optuna.create_study(storage=url, study_name="quick")
    made.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    return url


class Serving:
    """`serve` in a process of its own, with what it printed so far."""

    def __init__(self, **arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-c", SERVE, json.dumps(arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.pages: dict[str, str] = {}
        self.notes: list[str] = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("Ctrl-C"):
                return
            if line.startswith("note: "):
                self.notes.append(line)
                continue
            name, page = line.split()
            self.pages[name] = page
        raise AssertionError(self.process.communicate()[1])

    def end(self, sign: signal.Signals) -> int:
        self.process.send_signal(sign)
        return self.process.wait(30)


@pytest.fixture
def servings() -> Iterator[list[Serving]]:
    started: list[Serving] = []
    yield started
    for each in started:
        if each.process.poll() is None:
            each.end(signal.SIGTERM)


def programs_with(text: str) -> list[int]:
    """Processes that were started by `serve` and hold this file open, or a child of theirs."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            words = (each / "cmdline").read_bytes()
            started_by_serve = b"sweeps.ui.views" in words
            if started_by_serve and any(text in str(f.readlink()) for f in (each / "fd").iterdir()):
                found.append(int(each.name))
        except OSError:
            continue
    return found


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def gone(port: int, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while listening(port) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not listening(port)


def test_ports_that_are_taken_are_named_before_anything_is_started(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        ports = [each.getsockname()[1] for each in (first, second)]
        with pytest.raises(InputError) as caught:
            serve("sqlite:///none.db", "postgresql://none/x", door=Door("127.0.0.1", *ports))
    lines = str(caught.value).splitlines()
    assert [line.split(": got ")[0] for line in lines] == ["--port", "--dashboard-port"]
    for line, port in zip(lines, ports, strict=True):
        assert f"{port} (Address already in use); expected a free port; try --" in line


def test_one_port_for_both_is_a_mistake_and_so_is_one_that_does_not_exist() -> None:
    port = free_port()
    with pytest.raises(InputError, match=rf"--dashboard-port: got {port} \(asked for twice\)"):
        serve("sqlite:///none.db", "postgresql://none/x", door=Door("127.0.0.1", port, port))
    with pytest.raises(InputError, match="--dashboard-port: got 99999"):
        serve("sqlite:///none.db", None, door=Door(dashboard_port=99999))


class Asked:
    """The answer to one request, made by hand: its status, headers and body."""

    def __init__(self, port: int, path: str, *, method: str = "GET", host: str = "", **headers: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", host or f"127.0.0.1:{port}")
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        self.status, self.headers, self.body = answer.status, answer.headers, answer.read()
        connection.close()


def token_of(page: str) -> str:
    (token,) = parse_qs(urlsplit(page).query)["token"]
    assert len(token) >= 43  # 256 bits
    return token


@pytest.mark.parametrize(
    "sign",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_the_dashboard_answers_its_user_alone_and_ends_with_us(
    study: str, servings: list[Serving], sign: signal.Signals
) -> None:
    port = free_port()
    file = Path(study.removeprefix("sqlite:///"))
    before = (file.read_bytes(), file.stat().st_mtime_ns, sorted(file.parent.iterdir()))
    serving = Serving(
        study_url=study,
        mlflow_uri="http://me:secret@mlflow:5000",
        door={"dashboard_port": port},
        study="quick",
    )
    servings.append(serving)
    assert serving.pages["MLflow"] == "http://me:***@mlflow:5000"
    page = serving.pages["Optuna"]
    assert page.startswith(f"http://127.0.0.1:{port}/dashboard/studies/1?token=")
    token = token_of(page)
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with browser.open(page, timeout=10) as answer:
        assert b"<html" in answer.read().lower()
        assert answer.url == f"http://127.0.0.1:{port}/dashboard/studies/1"  # without the token
    with browser.open(f"http://127.0.0.1:{port}/api/studies", timeout=10) as answer:
        assert [each["study_name"] for each in json.load(answer)["study_summaries"]] == ["quick"]
    bearer = {"Authorization": f"Bearer {token}"}
    assert Asked(port, "/api/studies/1", **bearer).status == 200
    for refused, status in (
        (Asked(port, "/api/studies"), 401),
        (Asked(port, "/api/studies?token=guessed"), 401),
        (Asked(port, "/api/studies", host=f"evil.example:{port}", **bearer), 403),
        (Asked(port, "/api/studies", Origin="http://evil.example", **bearer), 403),
        (Asked(port, "/api/studies/1", method="DELETE", **bearer), 403),
        (Asked(port, "/api/studies/1/note", method="PUT", **bearer), 403),
    ):
        assert refused.status == status
        assert b"quick" not in refused.body
    for program in programs_with("/Optuna.log"):  # no other user reads it off the list of processes
        assert token.encode() not in Path(f"/proc/{program}/cmdline").read_bytes()
        assert token.encode() not in Path(f"/proc/{program}/environ").read_bytes()
    assert serving.end(sign) == (-9 if sign is signal.SIGKILL else 0)
    assert gone(port)
    assert (file.read_bytes(), file.stat().st_mtime_ns, sorted(file.parent.iterdir())) == before


def test_what_is_open_to_other_machines_goes_by_their_name_for_it(
    study: str, tmp_path: Path, servings: list[Serving]
) -> None:
    port = free_port()
    door = {"host": "0.0.0.0", "dashboard_port": port, "names": ["head.example"]}
    mlflow = f"sqlite:///{tmp_path}/mlflow.db"
    serving = Serving(study_url=study, mlflow_uri=mlflow, door=door, study="quick")
    servings.append(serving)
    first, second = serving.notes
    assert first == f"note: nothing was told to MLflow so far: there is no {tmp_path}/mlflow.db\n"
    assert list(tmp_path.iterdir()) == [], "nothing is made by looking"
    assert "not encrypted" in second
    bearer = {"Authorization": f"Bearer {token_of(serving.pages['Optuna'])}"}
    assert Asked(port, "/api/studies", host="head.example", **bearer).status == 200
    assert Asked(port, "/api/studies", host=socket.gethostname(), **bearer).status == 200
    assert Asked(port, "/api/studies", host="10.11.12.13", **bearer).status == 403
    assert Asked(port, "/api/studies", host="head.example").status == 401
    own = [each for each in socket.gethostbyname_ex(socket.gethostname())[2] if not each.startswith("127.")]
    for address in own:  # a forged name of the loopback, from outside
        with socket.create_connection((address, port), timeout=10) as there:
            words = (
                f"GET /api/studies HTTP/1.1\r\nHost: {{}}\r\nAuthorization: {bearer['Authorization']}\r\n\r\n"
            )
            there.sendall(words.format("localhost").encode())
            assert there.recv(100).startswith(b"HTTP/1.1 403")
            there.recv(10000)
            there.sendall(words.format(address).encode())
            assert there.recv(100).startswith(b"HTTP/1.1 200")


def test_a_browser_is_started_without_the_token_among_its_words(tmp_path: Path) -> None:
    page = "http://127.0.0.1:5000/?token=abc&x=1#/experiments/1"
    uri = _opening(tmp_path / "MLflow.html", page)
    assert "abc" not in uri
    file = Path(uri.removeprefix("file://"))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert html.unescape(file.read_text()).partition("url=")[2] == f'{page}">'


def test_a_program_that_does_not_start_is_quoted() -> None:
    with pytest.raises(SweepError) as caught:
        serve("postgresql://me:secret@127.0.0.1:1/none", None, door=Door(dashboard_port=free_port()))
    assert str(caught.value).startswith("Optuna ended; it said:\n")
    assert "Connection refused" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.slow  # MLflow's server takes 15 to 30 seconds to answer
def test_both_views_answer_and_when_one_dies_the_other_is_ended(
    study: str, tmp_path: Path, servings: list[Serving]
) -> None:
    from sweeps.records import Point, State
    from sweeps.tracking import Tracker

    tracker = Tracker("sqlite", study="quick", folder=tmp_path / "quick", artifacts=tmp_path)
    tracker.open_sweep({}, {})
    tracker.declare(0, {"injection": {"k": 4}}, {"sweeps.role": "search"})
    tracker.points(0, 1, [Point(0, 0, 0.0, 0.0, 4.0), Point(1, 1, 1.0, 1.0, 3.0)])
    tracker.end(0, State.COMPLETE, {}, {"objective": 3.0})
    assert tracker.close(60.0)

    port, dashboard_port = free_port(), free_port()
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    database = (tmp_path / "mlflow.db").read_bytes()
    door = {"port": port, "dashboard_port": dashboard_port}
    serving = Serving(study_url=study, mlflow_uri=uri, door=door, study="quick")
    servings.append(serving)
    at, _, view = serving.pages["MLflow"].partition("#")
    assert at.startswith(f"http://127.0.0.1:{port}/?token=")
    assert view.startswith("/experiments/1/runs?workflowType=")
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    for page in serving.pages.values():
        with browser.open(page, timeout=20) as answer:
            assert answer.status == 200
            scripts = re.findall(rb'(?:src|href)="/?(static-files/[^"]+)"', answer.read())
    with browser.open(f"http://127.0.0.1:{port}/", timeout=20) as answer:
        scripts = re.findall(rb'(?:src|href)="/?(static-files/[^"]+)"', answer.read())
    assert scripts
    for script in scripts:
        assert browser.open(f"http://127.0.0.1:{port}/{script.decode()}", timeout=20).status == 200
    api, bearer = "/ajax-api/2.0/mlflow", {"Authorization": f"Bearer {token_of(at)}"}
    searched = urllib.request.Request(
        f"http://127.0.0.1:{port}{api}/runs/search",
        b'{"experiment_ids": ["1"]}',
        {"Content-Type": "application/json", **bearer, "Origin": f"http://127.0.0.1:{port}"},
    )
    with urllib.request.urlopen(searched, timeout=20) as answer:
        assert len(json.load(answer)["runs"]) == 2
    for refused in (
        Asked(port, f"{api}/experiments/search?max_results=1"),
        Asked(port, f"{api}/experiments/search?max_results=1", host="localhost.evil.example", **bearer),
        Asked(port, f"{api}/experiments/create", method="POST", **bearer),
        Asked(port, f"{api}/artifacts/list?run_id=1", **bearer),
        Asked(port, "/api/2.0/mlflow-artifacts/artifacts", **bearer),
        Asked(port, "/get-artifact?path=x&run_uuid=1", **bearer),
        Asked(port, "/ajax-api/3.0/mlflow/assistant/status", **bearer),
    ):
        assert refused.status in (401, 403)
    assert (
        Asked(port, f"{api}/experiments/search?max_results=1", host=f"localhost:{port}", **bearer).status
        == 200
    )
    assert (tmp_path / "mlflow.db").read_bytes() == database
    assert {path.name for path in tmp_path.iterdir()} <= {"mlflow.db", "quick"}
    pids = programs_with("/Optuna.log")
    os.kill(min(pids), signal.SIGKILL)
    _, errors = serving.process.communicate(timeout=60)
    assert serving.process.returncode == 1
    assert "SweepError: Optuna ended; it said:" in errors
    assert gone(port)
    assert gone(dashboard_port)
    assert programs_with("/Optuna.log") == programs_with("/MLflow.log") == []
