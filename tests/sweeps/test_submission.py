"""Submitting before there is a cluster: what is uploaded, what is asked for, and what is told when no server answers.

The way through a real cluster with a token is tested with `ray start` elsewhere.
"""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("ray")

import sweeps
from sweeps.cli import health
from sweeps.driver.on_ray import jobs_server, packing
from sweeps.driver.on_ray import submit as room
from sweeps.driver.on_ray.jobs_server import connect
from sweeps.driver.on_ray.submit import submit
from sweeps.errors import InputError, SweepError


def problem(caught: pytest.ExceptionInfo[InputError]) -> str:
    return str(caught.value)


def test_nobody_there_is_said_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # taken and not listening: refuses
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(InputError) as caught:
            connect(address)
    assert time.monotonic() - began < 5
    assert problem(caught) == (
        f"--address: got {address}, where no server answers ([Errno 111] Connection refused); expected a Ray jobs "
        "server; try cluster/local.sh start, or the address of your cluster's dashboard"
    )


def test_a_server_that_accepts_and_says_nothing_is_not_waited_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs_server, "_ANSWER_SECONDS", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(4)
        began = time.monotonic()
        with pytest.raises(InputError, match="where no server answers"):
            connect(f"127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("address", ["ray://head:10001", "file:///etc/passwd"])
def test_an_address_of_another_kind(address: str) -> None:
    with pytest.raises(InputError) as caught:
        connect(address)
    assert problem(caught) == (
        f"--address: got {address}; expected the address of a Ray jobs server, http://HOST:8265; "
        "try http://127.0.0.1:8265"
    )


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`answering(403, "text")`: the address of an HTTP server that gives this answer to everything."""
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    servers = []

    def start(status: int, text: str) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "text", "got"),
    [
        (
            401,
            "Unauthorized: Missing authentication token",
            "with no token; expected the token of that cluster",
        ),
        (403, "Forbidden: Invalid authentication token", "with a token that is not the cluster's; expected"),
        (404, "not here", "which says: Version check returned 404."),
        (500, "oh", "which says: 500 Server Error"),
        (200, "<html>a page</html>", "which says: "),
        (200, '{"something": "else"}', "which says: "),
    ],
)
def test_servers_that_are_no_open_jobs_server(answering: Any, status: int, text: str, got: str) -> None:
    address = answering(status, text)
    with pytest.raises(InputError) as caught:
        connect(address)
    assert f"--address: got {address}" in problem(caught)
    assert got in problem(caught)
    assert len(caught.value.problems) == 1


def test_a_jobs_server_of_another_ray(answering: Any) -> None:
    address = answering(200, '{"version": "4", "ray_version": "2.9.9"}')
    assert jobs_server.ray_version(connect(address)) == "2.9.9"
    found = health.cluster(address)
    assert found.ok is False
    assert found.detail == f"{address}: Ray 2.9.9, and {metadata.version('ray')} here"


@pytest.mark.parametrize(("working_dir", "where"), [("missing", "--working-dir"), ("other", "SPEC")])
def test_the_job_must_find_its_spec(tmp_path: Path, working_dir: str, where: str) -> None:
    (tmp_path / "other").mkdir()
    spec = tmp_path / "mine.yaml"
    spec.write_text((Path(sweeps.__file__).parent / "specs" / "quickstart-small.yaml").read_text())
    with pytest.raises(InputError) as caught:
        submit(
            str(spec), address="127.0.0.1:1", runs=tmp_path / "runs", working_dir=str(tmp_path / working_dir)
        )
    assert problem(caught).startswith(f"{where}: got ")


class Jobs:
    """A jobs server's memory: an id is taken once, and the refusal is a traceback, as Ray's is."""

    def __init__(self, **jobs: str) -> None:
        self.jobs = {name.replace("_", "-"): status for name, status in jobs.items()}
        self.submitted: list[dict[str, Any]] = []
        self.lock = threading.Lock()

    def list_jobs(self) -> list[Any]:
        with self.lock:
            return [SimpleNamespace(submission_id=job, status=status) for job, status in self.jobs.items()]

    def submit_job(self, **asked: Any) -> str:
        time.sleep(0.05)  # everybody has looked by now
        with self.lock:
            if asked["submission_id"] in self.jobs:
                raise RuntimeError(
                    "status code 500: Traceback ...\nValueError: Job with submission_id already exists."
                )
            self.jobs[asked["submission_id"]] = "RUNNING"
            self.submitted.append(asked)
            return str(asked["submission_id"])


def claim(server: Any, submission_id: str | None = None) -> tuple[str, bool]:
    return room._claim(server, submission_id, "sweep-a", "python -m sweeps run a", {"working_dir": "."})


def test_of_twenty_at_once_one_submits_and_the_others_find_its_job() -> None:
    server = Jobs()
    found: list[tuple[str, bool]] = []
    threads = [threading.Thread(target=lambda: found.append(claim(server))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(found) == [("sweep-a", False)] * 19 + [("sweep-a", True)]
    assert len(server.submitted) == 1


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ({}, ("sweep-a", True)),
        ({"sweep_a": "PENDING"}, ("sweep-a", False)),
        ({"sweep_a": "FAILED"}, ("sweep-a-2", True)),
        ({"sweep_a": "STOPPED", "sweep_a_2": "RUNNING"}, ("sweep-a-2", False)),
        ({"sweep_a": "SUCCEEDED", "sweep_a_2": "FAILED", "sweep_b": "RUNNING"}, ("sweep-a-3", True)),
    ],
)
def test_a_job_that_has_ended_is_followed_by_the_next_id(
    jobs: dict[str, str], expected: tuple[str, bool]
) -> None:
    assert claim(Jobs(**jobs)) == expected


def test_an_id_that_was_asked_for_is_taken_as_it_is() -> None:
    assert claim(Jobs(), "mine") == ("mine", True)
    assert claim(Jobs(mine="RUNNING"), "mine") == ("mine", False)
    with pytest.raises(InputError) as caught:
        claim(Jobs(mine="SUCCEEDED"), "mine")
    assert problem(caught) == (
        "--submission-id: got mine, a job that has succeeded; expected an id that is not taken; try mine-2"
    )


def test_a_server_in_trouble_is_quoted_and_not_asked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Jobs):
        def submit_job(self, **asked: Any) -> str:
            raise RuntimeError("status code 500: Traceback\n  File x\nNo available agent to submit job.")

    monkeypatch.setattr(room.time, "sleep", lambda _: None)
    with pytest.raises(SweepError) as caught:
        claim(Broken())
    assert str(caught.value) == "the jobs server did not take sweep-a: No available agent to submit job."


@pytest.mark.parametrize(("status", "tries"), [(413, 1), (403, 1), (429, 6), (503, 6)])
def test_what_the_server_will_never_take_is_sent_once(
    status: int, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing(Jobs):
        def submit_job(self, **asked: Any) -> str:
            self.submitted.append(asked)
            raise RuntimeError(
                f"Request failed with status code {status}: Maximum request body size exceeded."
            )

    monkeypatch.setattr(room.time, "sleep", lambda _: None)
    server = Refusing()
    with pytest.raises(SweepError, match="Maximum request body size"):
        claim(server)
    assert len(server.submitted) == tries


def sparse(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)


def test_a_folder_that_is_too_large_is_refused_before_it_is_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Jobs()
    monkeypatch.setattr("sweeps.driver.on_ray.submit.connect", lambda _: server)
    (tmp_path / "s.yaml").write_text(
        (Path(sweeps.__file__).parent / "specs/quickstart-small.yaml").read_text()
    )
    sparse(tmp_path / "weights.safetensors", 2600 * 2**20)
    sparse(tmp_path / "deep" / "text.bin", 60 * 2**20)
    started = time.perf_counter()
    with pytest.raises(InputError) as caught:
        submit(str(tmp_path / "s.yaml"), address="x", runs=tmp_path / "runs", working_dir=str(tmp_path))
    assert time.perf_counter() - started < 10
    assert "largest: weights.safetensors 2.5 GiB, deep/text.bin 60 MiB, s.yaml" in problem(caught)
    assert "expected less than 100 MiB" in problem(caught)
    assert ".gitignore" in problem(caught)
    assert server.submitted == []


def test_what_would_be_packed_is_what_ray_packs(tmp_path: Path) -> None:
    """Names and size, with files that are left out in each of the ways that there are."""
    from ray._private import ray_constants
    from ray._private.runtime_env.packaging import create_package

    folder = tmp_path / "work"
    for name in (
        "a.py",
        "deep/b.txt",
        "deep/c.bin",
        "big.bin",
        "deep/own/d.log",
        "x/e.txt",
        ".venv/f",
        "ü.txt",
    ):
        sparse(folder / name, 1000 + len(name))
    (folder / ".gitignore").write_text("big.bin\n")
    (folder / "deep" / ".gitignore").write_text("*.log\n")
    (folder / ".rayignore").write_text("x/\n")
    assert set(packing.packed(folder, [".venv", "c.bin"])) == {
        ".gitignore", ".rayignore", "a.py", "deep/.gitignore", "deep/b.txt", "ü.txt",
    }  # fmt: skip
    left_out = [*ray_constants.get_runtime_env_default_excludes(), ".venv", "c.bin"]
    create_package(str(folder), tmp_path / "package.zip", include_gitignore=True, excludes=left_out)
    real = (tmp_path / "package.zip").stat().st_size
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ray_constants, "DASHBOARD_CLIENT_MAX_SIZE", real + 600)
        assert packing.packing_problem(folder, [".venv", "c.bin"]) is None
        patched.setattr(ray_constants, "DASHBOARD_CLIENT_MAX_SIZE", real)
        assert packing.packing_problem(folder, [".venv", "c.bin"]) is not None


def test_a_folder_that_cannot_be_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").mkdir()
    inside = Path.iterdir

    def listed(folder: Path) -> Any:
        if folder.name == "secret":
            raise PermissionError(13, "Permission denied", str(folder))
        return inside(folder)

    monkeypatch.setattr(Path, "iterdir", listed)
    found = packing.packing_problem(tmp_path, [])
    assert found is not None
    assert "secret: Permission denied" in found.got


def test_runs_and_environments_are_not_uploaded(tmp_path: Path) -> None:
    assert "/results/sweeps/" in room._excludes(tmp_path, tmp_path / "results" / "sweeps")
    assert {".venv", ".git", "/runs/"} <= set(room._excludes(tmp_path, Path("/data/runs")))


@pytest.mark.parametrize("name", ["a[b]", "!x", "#y", "w*", "q?", "b\\c", "my runs", "50%"])
def test_a_runs_folder_is_left_out_whatever_it_is_called(name: str, tmp_path: Path) -> None:
    pathspec = pytest.importorskip("pathspec")  # with which Ray reads them
    left_out = pathspec.PathSpec.from_lines("gitwildmatch", room._excludes(tmp_path, tmp_path / name))
    assert left_out.match_file(f"{name}/study.db")
    assert not left_out.match_file("other/study.db")


def test_words_are_quoted_for_the_shell_of_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Jobs()
    server.get_address = lambda: "http://head:8265"  # type: ignore[attr-defined]
    monkeypatch.setattr("sweeps.driver.on_ray.submit.connect", lambda _: server)
    spec = tmp_path / "my spec.yaml"
    spec.write_text((Path(sweeps.__file__).parent / "specs" / "quickstart-small.yaml").read_text())
    code = submit(
        str(spec),
        address="head:8265",
        runs=Path("/data/my runs"),
        working_dir=str(tmp_path),
        wait=False,
        extra_args=["--set", "name=other"],
    )
    assert code == 0
    (job,) = server.submitted
    assert job["submission_id"] == "sweep-other"
    assert job["entrypoint"] == "python -m sweeps run 'my spec.yaml' --runs '/data/my runs' --set name=other"
    assert job["runtime_env"]["working_dir"] == str(tmp_path)
