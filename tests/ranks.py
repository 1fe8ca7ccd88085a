"""Runs a function of a test in several processes that hold a model together, and gives what each returned.

`python -m tests.ranks MODULE:FUNCTION RANK SIZE ADDRESS JSON` is one of them.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
_MARK = "result of this rank: "


def on_ranks(size: int, work: str, *, timeout: float = 280.0, **given: Any) -> list[Any]:
    """What `MODULE:FUNCTION`, called as `function(group, **given)`, returned on each of `size` ranks.

    No process is left behind, whatever happens.
    """
    address = free_address()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.ranks", work, str(rank), str(size), address, json.dumps(given)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        for rank in range(size)
    ]
    ends = time.monotonic() + timeout
    try:
        said = [process.communicate(timeout=max(1.0, ends - time.monotonic()))[0] for process in started]
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
    texts = "\n".join(f"--- rank {rank}\n{text}" for rank, text in enumerate(said))
    assert all(process.returncode == 0 for process in started), texts
    return [json.loads(text.rpartition(_MARK)[2].partition("\n")[0]) for text in said]


def free_address() -> str:
    """Host and port that nothing listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{found.getsockname()[1]}"


def _main(work: str, rank: int, size: int, address: str, given: dict[str, Any]) -> None:
    from tli.models.loading import quieten
    from tli.sharded.processes import joined
    from tli.training.ranks import Ranks

    quieten(threads=1)
    module, _, function = work.partition(":")
    try:
        with joined(address, Ranks(rank, size), timeout=120.0) as group:
            result = getattr(importlib.import_module(module), function)(group, **given)
    except BaseException:
        traceback.print_exc()
        raise
    print(f"\n{_MARK}{json.dumps(result)}", flush=True)


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], json.loads(sys.argv[5]))
