"""`python -m tests.faults [KIND ...]`: do something to a sweep, run it again, and see that nothing was lost.

`--seeds 10` tries seeds 0 to 9 of every kind and prints what survived; `--seed 7` replays one.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.faults.kinds import KINDS
from tests.faults.world import Arena


def main() -> int:
    """Returns 1 when some seed of some kind did not survive."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"all, or some of: {', '.join(KINDS)}")
    parser.add_argument("--seeds", type=int, default=1, help="how many of each kind")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument(
        "--keep", metavar="DIR", type=Path, help="leave the worlds in a new folder, to look at"
    )
    options = parser.parse_args()
    unknown = set(options.kinds) - set(KINDS)
    if unknown:
        parser.error(f"no such kind: {', '.join(sorted(unknown))}")
    seeds = range(options.seeds) if options.seed is None else (options.seed,)
    with tempfile.TemporaryDirectory(prefix="faults-") as scratch:
        arena = Arena(options.keep or Path(scratch))
        table = {kind: _tried(arena, kind, seeds) for kind in options.kinds or KINDS}
        arena.close()
    print(f"\n{'kind':<28}{'seeds':>6}{'survived':>10}{'seconds':>9}")
    for kind, (survived, seconds) in table.items():
        print(f"{kind:<28}{len(seeds):>6}{survived:>10}{seconds:>9.0f}")
    return 0 if all(survived == len(seeds) for survived, _ in table.values()) else 1


def _tried(arena: Arena, kind: str, seeds: range | tuple[int, ...]) -> tuple[int, float]:
    survived, began = 0, time.monotonic()
    for seed in seeds:
        try:
            KINDS[kind](arena, random.Random(f"{kind} {seed}"), seed)
        except Exception:  # noqa: BLE001 - the next seed is tried whatever this one does
            print(traceback.format_exc())
            print(f"NOT survived; replay: python -m tests.faults {kind} --seed {seed}", flush=True)
        else:
            survived += 1
            print(f"survived: {kind} --seed {seed}", flush=True)
    return survived, time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
