"""`python -m tests.faults [KIND ...]`: do something to a sweep, run it again, and see that nothing was lost.

`--seeds 10` tries seeds 0 to 9 of every kind and prints what survived, `--seed 7` replays one; Ctrl-C ends it with
what has been tried so far.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from tests.faults.kinds import KINDS
from tests.faults.world import Arena


def main() -> int:
    """Returns 1 when some seed of some kind did not survive."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"all, or some of: {', '.join(KINDS)}")
    parser.add_argument("--seeds", type=int, default=1, help="how many of each kind")
    parser.add_argument("--first", type=int, default=0, help="the first of these seeds")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument(
        "--keep", metavar="DIR", type=Path, help="leave the worlds in a new folder, to look at"
    )
    options = parser.parse_args()
    unknown = set(options.kinds) - set(KINDS)
    if unknown:
        parser.error(f"no such kind: {', '.join(sorted(unknown))}")
    seeds = range(options.first, options.first + options.seeds) if options.seed is None else (options.seed,)
    kinds = options.kinds or list(KINDS)
    table = {kind: Tried() for kind in kinds}
    with tempfile.TemporaryDirectory(prefix="faults-") as scratch, suppress(KeyboardInterrupt):
        arena = Arena(options.keep or Path(scratch))
        try:
            for seed, kind in product(seeds, kinds):  # all kinds first, for who stops it by Ctrl-C
                _try(arena, kind, seed, table[kind])
        finally:
            arena.close()
    print(f"\n{'kind':<28}{'seeds':>6}{'survived':>10}{'seconds':>9}")
    for kind, tried in table.items():
        print(f"{kind:<28}{tried.seeds:>6}{tried.survived:>10}{tried.seconds:>9.0f}")
    return 0 if all(tried.survived == tried.seeds for tried in table.values()) else 1


@dataclass
class Tried:
    """What came of one kind."""

    seeds: int = 0
    survived: int = 0
    seconds: float = 0.0


def _try(arena: Arena, kind: str, seed: int, tried: Tried) -> None:
    began = time.monotonic()
    try:
        KINDS[kind](arena, random.Random(f"{kind} {seed}"), seed)
    except Exception:  # noqa: BLE001 - the next one is tried whatever this one does
        print(traceback.format_exc())
        print(f"NOT survived; replay: python -m tests.faults {kind} --seed {seed}", flush=True)
    else:
        tried.survived += 1
        print(f"survived: {kind} --seed {seed}", flush=True)
    tried.seeds += 1
    tried.seconds += time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
