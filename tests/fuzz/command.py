"""The command line that the fuzz targets share."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable


def command(what: str, run: Callable[[int, int], tuple[int, int]]) -> int:
    """Fuzzes `what` as often as the command line says; `run(runs, seed)` gives how many were accepted and refused."""
    parser = argparse.ArgumentParser(description=f"Fuzz {what}.")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.monotonic()
    accepted, refused = run(options.runs, options.seed)
    sys.stdout.write(f"{accepted} accepted, {refused} refused in {time.monotonic() - started:.1f} s\n")
    return 0
