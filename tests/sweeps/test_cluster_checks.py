"""Clusters that are not there: said at once, in one line, before anything is made."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sweeps.__main__ import main
from sweeps.checks import stores
from sweeps.checks.preflight import check
from sweeps.driver.on_ray import head_node
from sweeps.errors import SpecError
from sweeps.spec import load_spec
from tests.sweeps.conftest import WriteSpec

FORMS = "expected HOST:PORT of its head node, ray://HOST:PORT, or auto"
RUNS = "expected the address of a Ray cluster that runs"
REMEDY = "try `ray status` on its head node"


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port where something takes connections and says nothing."""
    with socket.create_server(("", 0)) as server:
        held: list[socket.socket] = []

        def take() -> None:
            with contextlib.suppress(OSError):
                while True:
                    held.append(server.accept()[0])

        threading.Thread(target=take, daemon=True).start()
        yield server.getsockname()[1]


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("nonsense", f"got 'nonsense'; {FORMS}; try 127.0.0.1:6379"),
        ("host:port", f"got 'host:port'; {FORMS}; try 127.0.0.1:6379"),
        ("127.0.0.1:99999", f"got '127.0.0.1:99999'; {FORMS}; try 127.0.0.1:6379"),
        ("ray://host", f"got 'ray://host'; {FORMS}; try 127.0.0.1:6379"),
        ("ssh://host:22", f"got 'ssh://host:22'; {FORMS}; try 127.0.0.1:6379"),
        (
            "http://127.0.0.1:8265",
            f"got 'http://127.0.0.1:8265', the address of a jobs server; {FORMS}; try sweeps submit, which",
        ),
        ("127.0.0.1:1", f"got '127.0.0.1:1' (127.0.0.1:1: Connection refused); {RUNS}; {REMEDY}"),
        ("ray://127.0.0.1:1", f"got 'ray://127.0.0.1:1' (127.0.0.1:1: Connection refused); {RUNS}; {REMEDY}"),
        ("[::1]:1", "got '[::1]:1' (::1:1: "),
    ],
)  # fmt: skip
def test_addresses_of_no_cluster(address: str, said: str) -> None:
    (problem,) = stores.cluster(address)
    assert str(problem).startswith(f"address: {said}")


def test_what_listens_or_is_found_by_ray_is_no_problem(silent_port: int) -> None:
    for address in ("auto", "local", f"127.0.0.1:{silent_port}", f"ray://localhost:{silent_port}"):
        assert list(stores.cluster(address)) == []


@pytest.mark.parametrize("command", [["validate"], ["plan"], ["run"]])
def test_commands_refuse_a_cluster_that_is_away(
    command: list[str],
    write_spec: Callable[..., Path],
    free_port: int,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    spec = write_spec()
    capfd.readouterr()
    started = time.perf_counter()
    code = main([*command, str(spec), "--address", f"127.0.0.1:{free_port}"])
    assert time.perf_counter() - started < 4
    address = f"127.0.0.1:{free_port}"
    line = f"error: --address: got '{address}' ({address}: Connection refused); {RUNS}; {REMEDY}\n"
    said = capfd.readouterr()
    assert (code, said.err) == (2, line)
    assert all(re.match(r"\S+ \S+Z  ", each) for each in said.out.splitlines()), "what is done, if anything"
    assert bool(said.out) == (command == ["run"])
    assert not (tmp_path / "runs").exists()


def test_the_word_local_means_this_machine(
    write_spec: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.checks.machine.gpus", lambda: 0)
    spec = load_spec(str(write_spec()), overrides=["resources.gpus=0.5"])
    with pytest.raises(SpecError, match=r"resources.gpus=0.5: got 0.5; expected 0: this machine has no GPU"):
        check(spec, cluster="local")


@pytest.mark.ray
def test_a_port_of_something_else(
    write_spec: Callable[..., Path],
    silent_port: int,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(head_node, "_HEAD_PATIENCE", 2.0)
    monkeypatch.setattr(head_node, "_SLACK", 0.5)
    spec = write_spec()
    capfd.readouterr()
    code = main(["run", str(spec), "--address", f"127.0.0.1:{silent_port}"])
    out, err = capfd.readouterr()
    (line,) = [line for line in err.splitlines() if line]  # and nothing of Ray's
    assert code == 2, out
    assert line.startswith(
        f"error: --address: got '127.0.0.1:{silent_port}', where something listens that is not the head node "
        f"of a Ray cluster; {RUNS}; try "
    )


@pytest.mark.ray
@pytest.mark.slow
def test_a_head_node_is_known_and_sigterm_stays_ours(write_spec: Callable[..., Path]) -> None:
    import ray

    from sweeps.driver.on_ray.tuner import start_cluster, stop_cluster

    before = signal.getsignal(signal.SIGTERM)
    start_cluster(load_spec(str(write_spec())), None)
    try:
        assert signal.getsignal(signal.SIGTERM) is before
        assert head_node.head_problem(ray.get_runtime_context().gcs_address) is None
    finally:
        stop_cluster()


def test_a_machine_too_busy_to_start_ray_is_an_error_in_one_line(
    write_spec: WriteSpec, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray

    def late(**_: object) -> None:
        raise Exception("The current node timed out during startup.\nThe GCS may be overloaded.")  # noqa: TRY002

    monkeypatch.setattr(ray, "init", late)
    assert main(["run", str(write_spec())]) == 1
    told = capsys.readouterr().err
    assert told == "error: Ray did not start on this machine: The current node timed out during startup.\n"
