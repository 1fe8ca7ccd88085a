"""The two views on real stores: they answer, and nothing of them is left afterwards, however it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("optuna_dashboard")

from sweeps.errors import InputError, SweepError
from sweeps.ui import serve

SERVE = "import json, sys; from sweeps.ui import serve; sys.exit(serve(**json.loads(sys.argv[1])))"


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
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("Ctrl-C"):
                return
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
            started_by_serve = b"console_scripts" in words or b"uvicorn" in words
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
            serve("sqlite:///none.db", "sqlite:///no.db", port=ports[0], dashboard_port=ports[1])
    lines = str(caught.value).splitlines()
    assert [line.split(": got ")[0] for line in lines] == ["--port", "--dashboard-port"]
    for line, port in zip(lines, ports, strict=True):
        assert f"{port} (Address already in use); expected a free port; try --" in line


def test_one_port_for_both_is_a_mistake_and_so_is_one_that_does_not_exist() -> None:
    port = free_port()
    with pytest.raises(InputError, match=rf"--dashboard-port: got {port} \(asked for twice\)"):
        serve("sqlite:///none.db", "sqlite:///no.db", port=port, dashboard_port=port)
    with pytest.raises(InputError, match="--dashboard-port: got 99999"):
        serve("sqlite:///none.db", None, dashboard_port=99999)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_dashboard_answers_and_ends_with_us(
    study: str, servings: list[Serving], sign: signal.Signals
) -> None:
    port = free_port()
    serving = Serving(
        study_url=study, mlflow_uri="http://me:secret@mlflow:5000", dashboard_port=port, study="quick"
    )
    servings.append(serving)
    assert serving.pages == {
        "MLflow": "http://me:***@mlflow:5000",
        "Optuna": f"http://127.0.0.1:{port}/dashboard/studies/1",
    }
    with urllib.request.urlopen(serving.pages["Optuna"], timeout=10) as page:
        assert b"<html" in page.read().lower()
    assert serving.end(sign) == (-9 if sign is signal.SIGKILL else 0)
    assert gone(port)


def test_a_program_that_does_not_start_is_quoted() -> None:
    with pytest.raises(SweepError) as caught:
        serve("postgresql://me:secret@127.0.0.1:1/none", None, dashboard_port=free_port())
    assert str(caught.value).startswith("Optuna ended; it said:\n")
    assert "StorageInternalError" in str(caught.value)
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
    arguments = {"study_url": study, "mlflow_uri": uri, "port": port, "dashboard_port": dashboard_port}
    serving = Serving(**arguments, study="quick")
    servings.append(serving)
    assert serving.pages["MLflow"].startswith(f"http://127.0.0.1:{port}/#/experiments/1/runs?workflowType=")
    for page in serving.pages.values():
        with urllib.request.urlopen(page, timeout=20) as answer:
            assert answer.status == 200
    pids = programs_with("/Optuna.log")
    os.kill(min(pids), signal.SIGKILL)  # it has a child, which must go too
    _, errors = serving.process.communicate(timeout=60)
    assert serving.process.returncode == 1
    assert "SweepError: Optuna ended; it said:" in errors
    assert gone(port)
    assert gone(dashboard_port)
    assert programs_with("/Optuna.log") == programs_with("/MLflow.log") == []
