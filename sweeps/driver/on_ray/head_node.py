"""Whether a Ray cluster can be joined at an address, and its size, asked in a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

from sweeps.environment import FOR_RAY, for_child
from sweeps.errors import Problem
from sweeps.wording import masked

_HEAD_PATIENCE = 20.0  # seconds at least for a head node to answer, once Ray is loaded
_CLUSTER_PATIENCE = 60.0  # to join
_SLACK = 5.0  # times what loading Ray took: where that was slow, so is everything else on this machine
_LONGEST = 600.0  # for all of it; as for ranks to load their libraries and meet

# A program of Ray ends itself by an alarm. What it waits for is another machine, or this one, which is busy:
# how long loading took says which.
_BOUND = """
import signal, sys, time
began = time.monotonic()
def loaded():
    least, slack = map(float, sys.argv[1:3])
    signal.setitimer(signal.ITIMER_REAL, max(least, slack * (time.monotonic() - began)))
"""
_ASK = """
from ray.scripts.scripts import cli
loaded()
cli(["health-check", "--address", sys.argv[3]])
"""
# Joining a cluster loads Ray, prints, and can wait for ever: all of that in a process of its own.
_JOIN = """
import json, ray
loaded()
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
    expected = "the address of a Ray cluster that runs"
    asked = _asked(_ASK, _HEAD_PATIENCE, address)
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
    asked = _asked(_JOIN, _CLUSTER_PATIENCE, said=f"{address}\n")
    if asked is None:
        return None
    answers = [line for line in asked.stdout.splitlines() if line.startswith("ANSWER ")]
    if not answers:
        return {"error": "Ray gave up"}
    answer: dict[str, Any] = json.loads(answers[-1].removeprefix("ANSWER "))
    return answer


def _asked(
    program: str, patience: float, *given: str, said: str = ""
) -> subprocess.CompletedProcess[str] | None:
    """A program of Ray that has ended, without secrets that it has no use for; None where it took longer.

    Args:
        program: calls `loaded` when it has loaded Ray.
        patience: seconds from then on, or more on a machine on which loading took long.
        given: to the program.
        said: to it, on its standard input.
    """
    try:
        ended = subprocess.run(
            [sys.executable, "-c", _BOUND + program, str(patience), str(_SLACK), *given],
            input=said,
            env=for_child(*FOR_RAY),
            capture_output=True,
            text=True,
            timeout=_LONGEST,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    return None if ended.returncode == -signal.SIGALRM else ended


def cluster_remedy(error: str) -> str:
    """What to try where a cluster cannot be joined, by what Ray said."""
    if "ersion mismatch" in error:
        return "the same Python and Ray here and on every node"
    if "uthentication" in error or "token" in error:
        return "RAY_AUTH_MODE=token with the head node's token (ray get-auth-token)"
    return "ray status on its head node; HOST:6379 is the usual address"
