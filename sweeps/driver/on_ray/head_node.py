"""Whether a Ray cluster can be joined at an address, and its size, asked in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from sweeps.environment import FOR_RAY, for_child
from sweeps.errors import Problem
from sweeps.wording import masked

_HEAD_PATIENCE = 20.0  # to load Ray and ask a head node
_CLUSTER_PATIENCE = 60.0  # to load Ray and join

# Joining a cluster loads Ray, prints, and can wait for ever: all of that in a process of its own.
_JOIN = """
import json, sys, ray
try:
    ray.init(address=sys.stdin.readline().strip(), log_to_driver=False, logging_level="ERROR")
except BaseException as error:
    answer = {"error": " ".join(str(error).split()) or type(error).__name__}
else:
    alive = [node for node in ray.nodes() if node["Alive"]]
    each = [[node["Resources"].get(kind, 0.0) for kind in ("CPU", "GPU")] for node in alive]
    answer = {"nodes": len(alive), "each": each, "resources": ray.cluster_resources(), "ray": ray.__version__}
print("ANSWER " + json.dumps(answer), flush=True)
"""


def head_problem(address: str) -> Problem | None:
    """Why no Ray cluster can be joined at HOST:PORT, or None.

    Asked in a process of its own: where something else listens, Ray tries for minutes and prints all along.
    """
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    expected = "the address of a Ray cluster that runs"
    asked = _asked(command, _HEAD_PATIENCE)
    if asked is None:
        got = f"{address!r}, where something listens that is not the head node of a Ray cluster"
        return Problem("--address", got, expected, cluster_remedy(""))
    if asked.returncode == 0:
        return None
    said = [line.strip() for line in asked.stderr.splitlines() if line.strip()] or ["Ray gave up"]
    reason = next((line for line in said if "ersion mismatch" in line), said[-1])
    return Problem(
        "--address", f"{address!r} ({masked(reason)[:300]})", expected, cluster_remedy(asked.stderr)
    )


def joined(address: str) -> dict[str, Any] | None:
    """What a cluster says of itself once it was joined; None when it does not answer.

    Returns:
        `nodes` alive, CPUs and GPUs of `each`, `resources` of all by Ray's names and the version, `ray`; or
        `error`, why it cannot be joined.
    """
    asked = _asked([sys.executable, "-c", _JOIN], _CLUSTER_PATIENCE, said=f"{address}\n")
    if asked is None:
        return None
    answers = [line for line in asked.stdout.splitlines() if line.startswith("ANSWER ")]
    if not answers:
        return {"error": "Ray gave up"}
    answer: dict[str, Any] = json.loads(answers[-1].removeprefix("ANSWER "))
    return answer


def _asked(command: list[str], seconds: float, said: str = "") -> subprocess.CompletedProcess[str] | None:
    """A program of Ray that has ended, without secrets that it has no use for; None where it took longer."""
    try:
        return subprocess.run(
            command,
            input=said,
            env=for_child(*FOR_RAY),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None


def cluster_remedy(error: str) -> str:
    """What to try where a cluster cannot be joined, by what Ray said."""
    if "ersion mismatch" in error:
        return "the same Python and Ray here and on every node"
    if "uthentication" in error or "token" in error:
        return "RAY_AUTH_MODE=token with the head node's token (ray get-auth-token)"
    return "ray status on its head node; HOST:6379 is the usual address"
