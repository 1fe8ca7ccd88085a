"""Runs a function of a test in several processes that hold a model together, and gives what each returned.

`python -m tests.ranks MODULE:FUNCTION RANK SIZE ADDRESS JSON` is one of them.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import socket
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from tests.forked import forked

_MARK = "result of this rank: "


def on_ranks(size: int, work: str, *, timeout: float = 280.0, **given: Any) -> list[Any]:
    """What `MODULE:FUNCTION`, called as `function(group, **given)`, returned on each of `size` ranks.

    They are forked, so that none of them loads torch anew. No process is left behind, whatever happens.
    """
    address = free_address()
    ends = time.monotonic() + timeout
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(forked(_main, work, rank, size, address, given, folder=Path(place)))
            for rank in range(size)
        ]
        said = ["\n".join(each.communicate(max(1.0, ends - time.monotonic()))) for each in started]
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
