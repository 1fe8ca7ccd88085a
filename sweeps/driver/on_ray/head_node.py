"""Whether a Ray cluster can be joined at an address, asked in a process of its own."""

from __future__ import annotations

import subprocess
import sys

from sweeps.environment import FOR_RAY, for_child
from sweeps.errors import Problem
from sweeps.wording import masked

_HEAD_PATIENCE = 20.0  # to load Ray and ask a head node


def head_problem(address: str) -> Problem | None:
    """Why no Ray cluster can be joined at HOST:PORT, or None.

    Asked in a process of its own: where something else listens, Ray tries for minutes and prints all along.
    """
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    expected = "the address of a Ray cluster that runs"
    try:
        asked = subprocess.run(
            command,
            env=for_child(*FOR_RAY),
            capture_output=True,
            text=True,
            timeout=_HEAD_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        got = f"{address!r}, where something listens that is not the head node of a Ray cluster"
        return Problem("--address", got, expected, cluster_remedy(""))
    if asked.returncode == 0:
        return None
    said = [line.strip() for line in asked.stderr.splitlines() if line.strip()] or ["Ray gave up"]
    reason = next((line for line in said if "ersion mismatch" in line), said[-1])
    return Problem(
        "--address", f"{address!r} ({masked(reason)[:300]})", expected, cluster_remedy(asked.stderr)
    )


def cluster_remedy(error: str) -> str:
    """What to try where a cluster cannot be joined, by what Ray said."""
    if "ersion mismatch" in error:
        return "the same Python and Ray here and on every node"
    if "uthentication" in error or "token" in error:
        return "RAY_AUTH_MODE=token with the head node's token (ray get-auth-token)"
    return "ray status on its head node; HOST:6379 is the usual address"
