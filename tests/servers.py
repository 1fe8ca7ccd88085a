"""Real servers for tests and for the fault suite: MLflow's, and a small cluster of Ray with its jobs server."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody listens on.

    Processes beside each other start their search at places of their own.

    Raises:
        RuntimeError: there are none.
    """
    places = range(23000, 32000, 20)
    own = os.getpid() % len(places)
    for port in (*places[own:], *places[:own]):
        try:
            for offset in range(count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port + offset))
        except OSError:
            continue
        return port
    raise RuntimeError("no free ports")


def alive(process: int) -> bool:
    """Whether a process is there and has not ended: one that nobody has waited for yet has."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


class MlflowServer:
    """`mlflow server` on a fixed port, with its store in `database`; may be killed and started again."""

    def __init__(self, folder: Path) -> None:
        """Start nothing yet. The folder is there."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri, self.database, self._folder = f"http://127.0.0.1:{self.port}", folder / "server.db", folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, timeout: float = 120.0) -> None:
        """Start it, and wait until it answers; seconds."""
        words = (
            *(
                "--backend-store-uri",
                f"sqlite:///{self.database}",
                "--port",
                str(self.port),
                "--workers",
                "1",
            ),
            *("--default-artifact-root", str(self._folder / "art"), "--no-serve-artifacts"),
        )
        log = self._folder / "server.log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *words],
                stdout=out,
                stderr=out,
                # Its workers would outlive it.
                env={
                    **os.environ,
                    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                    "MLFLOW_DISABLE_TELEMETRY": "true",
                },
                start_new_session=True,
            )
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                return
            assert self._process.poll() is None, log.read_text()[-2000:]
            time.sleep(0.1)
        raise TimeoutError("the server did not start")

    def close(self) -> None:
        """Kill it, if it runs."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


class LocalCluster:
    """`cluster/local.sh start`: a head and a worker node, token authentication, a jobs server."""

    def __init__(self, runs: Path, given: Mapping[str, str] = os.environ) -> None:
        """Start it.

        Args:
            runs: where its jobs write.
            given: the environment of its nodes.
        """
        self.runs, self._given = runs, given
        self.folder = Path(tempfile.mkdtemp(prefix="swp", dir="/tmp"))  # Ray's sockets need a short path
        port = free_ports(6)
        self._script(
            "start", "--port", str(port), "--dashboard-port", str(port + 4), "--runs", str(runs), seconds=180
        )
        lines = self._script("env").splitlines()
        # What a shell needs to talk to it.
        self.environment = dict(line.removeprefix("export ").split("=", 1) for line in lines)
        self.address = self.environment["RAY_API_SERVER_ADDRESS"]

    def close(self) -> None:
        """End both nodes, and see that nothing of them is left."""
        theirs = [
            process.pid
            for node in psutil.process_iter(["cmdline"])
            if str(self.folder) in " ".join(node.info["cmdline"] or ())
            for process in (node, *node.children(recursive=True))
        ]
        self._script("stop")
        assert not [process for process in theirs if alive(process)]
        shutil.rmtree(self.folder, ignore_errors=True)

    def _script(self, command: str, *options: str, seconds: float = 60) -> str:
        words = ["bash", str(ROOT / "cluster" / "local.sh"), command, *options, "--dir", str(self.folder)]
        done = subprocess.run(
            words,
            env={**self._given, "PYTHON": sys.executable},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
