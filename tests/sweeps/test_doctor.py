"""What the doctor finds, on this machine and on made-up troubles, and that it never falls over."""

from __future__ import annotations

import http.server
import json
import sqlite3
import stat
import sys
import threading
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy

from sweeps.addresses import driven
from sweeps.cli import doctor, health
from sweeps.cli.doctor import Finding, examine, text
from sweeps.driver.on_ray import head_node


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    assert len({finding.name for finding in findings}) == len(findings)
    return {finding.name: finding for finding in findings}


def test_a_healthy_machine(tmp_path: Path) -> None:
    began = time.monotonic()
    findings = by_name(examine(tmp_path / "runs"))
    assert time.monotonic() - began < 5
    assert {"python", "torch", "transformers", "ray", "optuna", "mlflow", "cores", "OMP_NUM_THREADS"} <= set(
        findings
    )
    assert {"memory", "GPUs", "disk", "study", "MLflow"} <= set(findings)
    assert [name for name, finding in findings.items() if finding.ok is False] == []
    assert findings["optuna"].detail == metadata.version("optuna")
    assert sys.executable in findings["python"].detail
    assert findings["study"].detail == f"{tmp_path}/runs/study.db will be made by the first run"
    assert list(tmp_path.iterdir()) == []


def test_it_loads_none_of_what_it_looks_at(tmp_path: Path) -> None:
    import subprocess

    script = (
        "import sys; from pathlib import Path; from sweeps.cli.doctor import examine; examine(Path(sys.argv[1]));"
        "print({'torch', 'transformers', 'ray', 'optuna', 'mlflow'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


def test_versions_out_of_range_and_missing_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name == "rich":
            raise metadata.PackageNotFoundError(name)
        return {"optuna": "4.9.0", "torch": "2.13.0+cpu", "pyyaml": "5.1"}.get(name, real(name))

    monkeypatch.setattr(doctor.metadata, "version", version)
    findings = by_name(examine(tmp_path))
    assert findings["optuna"] == Finding(
        "optuna", ok=False, detail="4.9.0, and <6,>=5.0 is needed", remedy="pip install 'optuna<6,>=5.0'"
    )
    assert findings["rich"] == Finding(
        "rich", ok=False, detail="missing; >=13 is needed", remedy="pip install 'rich>=13'"
    )
    assert findings["pyyaml"].ok is False
    assert findings["torch"].ok is True
    assert "sqlalchemy" not in findings  # right, and of no interest
    assert "hypothesis" not in findings  # of the extra for developers


@pytest.mark.parametrize(
    ("value", "ok", "detail"),
    [
        (None, True, "not set"),
        ("1", True, "1"),
        ("100000", False, "more than the"),
        ("two", False, "'two' is no number of threads"),
        ("0", False, "'0' is no number of threads"),
        ("", False, "'' is no number of threads"),
    ],
)
def test_threads(tmp_path: Path, value: str | None, ok: bool, detail: str) -> None:
    finding = by_name(examine(tmp_path, threads=value))["OMP_NUM_THREADS"]
    assert finding.ok is ok
    assert detail in finding.detail


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": "what\n"}, None),
        ({}, None),
    ],
)
def test_a_container_that_may_use_less_than_it_sees(
    tmp_path: Path, files: dict[str, str], limit: float | None
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert doctor._cgroup_cores(tmp_path) == limit


def test_a_limit_of_the_container_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "cores", lambda: 8)
    monkeypatch.setattr(doctor, "_cgroup_cores", lambda: 2.5)
    finding = doctor._cores()
    assert finding.ok is None
    assert "but the container may use 2.5 at a time" in finding.detail
    assert finding.remedy == "--set resources.parallel=2"


def test_little_disk_and_little_memory_are_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "free_space", lambda _: 2**20)
    monkeypatch.setattr(doctor, "_available", lambda: 2**20)
    findings = by_name(examine(tmp_path))
    assert findings["disk"].ok is False
    assert findings["memory"].ok is False


def test_a_driver_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def with_program(script: str) -> Finding:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return by_name(examine(tmp_path))["GPUs"]

    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    failed = with_program("echo 'NVIDIA-SMI has failed'; exit 9")
    assert (failed.ok, failed.detail) == (False, "nvidia-smi says: NVIDIA-SMI has failed")
    two = with_program("echo 'H100, 81559 MiB, 570.1'; echo 'H100, 81559 MiB, 570.1'")
    assert (two.ok, two.detail) == (True, "H100, 81559 MiB, 570.1; H100, 81559 MiB, 570.1")


def test_stores_in_files(tmp_path: Path) -> None:
    def study(file: Path) -> Finding:
        return by_name(examine(tmp_path, study_url=f"sqlite:///{file}"))["study"]

    good, other, broken = tmp_path / "good.db", tmp_path / "other.db", tmp_path / "broken.db"
    for name in ("one", "two"):
        optuna.create_study(storage=f"sqlite:///{good}", study_name=name)
    with sqlite3.connect(other) as base:
        base.execute("CREATE TABLE recipes (id INTEGER)")
    broken.write_bytes(b"no database at all " * 100)
    assert study(good) == Finding("study", ok=True, detail=f"{good}, 2 studies")
    assert study(other).detail == f"{other} holds something else (it has no table studies)"
    assert study(other).ok is False
    assert study(broken) == Finding(
        "study",
        ok=False,
        detail=f"{broken}: file is not a database",
        remedy="another file, or the last copy of this one",
    )


def test_a_database_nobody_answers_at_is_wrong_and_its_password_is_not_shown(tmp_path: Path) -> None:
    found = by_name(examine(tmp_path, study_url="postgresql+psycopg2://me:hunter2@127.0.0.1:1/x"))["study"]
    assert found.ok is False
    assert "postgresql+psycopg2://me:***@127.0.0.1:1/x" in found.detail
    assert "hunter2" not in json.dumps(found.to_json())


@pytest.mark.postgres
def test_a_database_on_a_server_is_in_use_once_it_has_its_table(postgres_url: str) -> None:
    for state in ("empty so far", "in use"):
        found = health.store("study", postgres_url, "of_the_doctor")
        assert (found.ok, found.detail.rpartition(", ")[-1]) == (True, state)
        engine = sqlalchemy.create_engine(driven(postgres_url))
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS of_the_doctor (number INTEGER)")
        engine.dispose()


def test_an_address_that_nothing_understands_is_told_and_not_raised(tmp_path: Path) -> None:
    findings = by_name(examine(tmp_path, study_url="what is this", mlflow_uri="http://[", address="nowhere"))
    assert findings["study"].ok is False
    assert findings["MLflow"].ok is None
    assert findings["cluster"].ok is False


def test_a_tracking_server_may_be_away(tmp_path: Path) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    assert by_name(examine(tmp_path, mlflow_uri=address))["MLflow"] == Finding(
        "MLflow", ok=True, detail=f"{address} answers"
    )
    refused = by_name(examine(tmp_path, mlflow_uri=f"{address}/elsewhere"))["MLflow"]
    assert (refused.ok, refused.detail) == (None, f"{address}/elsewhere answers 404")
    server.shutdown()
    server.server_close()
    away = by_name(examine(tmp_path, mlflow_uri=address))["MLflow"]
    assert away.ok is None
    assert "no answer" in away.detail


def test_a_cluster_nobody_answers_at_is_wrong_at_once(tmp_path: Path) -> None:
    began = time.monotonic()
    for address in ("127.0.0.1:1", "http://127.0.0.1:1"):
        found = by_name(examine(tmp_path, address=address))["cluster"]
        assert found.ok is False
        assert "answer" in found.detail
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (
            "Version mismatch: The cluster was started with: Ray: 2.59",
            "the same Python and Ray here and on every node",
        ),
        (
            "AuthenticationError: no token",
            "RAY_AUTH_MODE=token with the head node's token (ray get-auth-token)",
        ),
        ("lost", "ray status on its head node; HOST:6379 is the usual address"),
    ],
)
def test_what_to_do_about_a_cluster(monkeypatch: pytest.MonkeyPatch, error: str, remedy: str) -> None:
    monkeypatch.setattr(
        head_node, "_JOIN", f"print('noise'); print('ANSWER ' + {json.dumps({'error': error})!r})"
    )
    assert health.cluster("auto") == Finding("cluster", ok=False, detail=f"auto: {error}", remedy=remedy)


def test_a_cluster_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_node, "_JOIN", "import time; time.sleep(60)")
    monkeypatch.setattr(head_node, "_LONGEST", 0.5)  # nothing that loads
    assert health.cluster("auto").detail == "auto does not answer"
    monkeypatch.setattr(head_node, "_LONGEST", 60.0)
    monkeypatch.setattr(head_node, "_CLUSTER_PATIENCE", 0.1)
    monkeypatch.setattr(head_node, "_SLACK", 0.5)
    monkeypatch.setattr(head_node, "_JOIN", "loaded()\ntime.sleep(60)")  # it waits for what does not come
    assert health.cluster("auto").detail == "auto does not answer"
    monkeypatch.setattr(head_node, "_SLACK", 20.0)
    monkeypatch.setattr(head_node, "_JOIN", "time.sleep(0.5)\nloaded()\ntime.sleep(0.3)\nraise SystemExit(3)")
    assert health.cluster("auto").detail == "auto: Ray gave up", (
        "a machine on which loading takes long has longer"
    )
    monkeypatch.setattr(head_node, "_JOIN", "raise SystemExit(3)")
    assert health.cluster("auto").detail == "auto: Ray gave up"


def test_a_look_that_fails_is_a_note_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken() -> Finding:
        raise RuntimeError("\nmore of it")

    monkeypatch.setattr(doctor, "_memory", broken)
    findings = by_name(examine(tmp_path))
    assert findings["memory"] == Finding("memory", ok=None, detail="could not be looked at: more of it")
    assert findings["disk"].ok is True


def test_how_it_reads() -> None:
    findings = [
        Finding.good("python", "3.11"),
        Finding.wrong("optuna", "4.9, and >=5 is needed", "pip install 'optuna>=5'"),
        Finding.note("MLflow", "no answer", "to start it"),
    ]
    assert text(findings) == (
        "ok     python  3.11\n"
        "WRONG  optuna  4.9, and >=5 is needed\n"
        "               try pip install 'optuna>=5'\n"
        "note   MLflow  no answer\n"
        "               try to start it\n"
        "\n"
        "1 thing is wrong"
    )
    assert text(findings[:1]).endswith("\n\nnothing is wrong")
    assert text([findings[1]] * 2).endswith("\n\n2 things are wrong")
    assert json.loads(json.dumps([finding.to_json() for finding in findings]))[0] == {
        "name": "python",
        "ok": True,
        "detail": "3.11",
        "remedy": "",
    }
