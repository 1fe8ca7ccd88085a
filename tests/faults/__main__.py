"""`python -m tests.faults [KIND ...]`: do something to a sweep, run it again, and see that nothing was lost.

`--seeds 10` tries seeds 0 to 9 of every kind and prints what survived, `--seed 7` replays one; Ctrl-C ends it with
what has been tried so far.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from tests.faults.kinds import KINDS
from tests.faults.trying import one_by_one, several_at_once


def main() -> int:
    """Returns 1 when some seed of some kind did not survive, or was not tried."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"all, or some of: {', '.join(KINDS)}")
    parser.add_argument("--seeds", type=int, default=1, help="how many of each kind")
    parser.add_argument("--first", type=int, default=0, help="the first of these seeds")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--jobs", type=int, default=1, help="how many at once, each with its own servers")
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
    tried = list(product(seeds, kinds))  # all kinds first, for who stops it by Ctrl-C
    with (
        tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as scratch,
        suppress(KeyboardInterrupt),
    ):
        place = options.keep or Path(scratch)
        ends = one_by_one(place, tried) if options.jobs == 1 else several_at_once(place, tried, options.jobs)
        for kind, survived, seconds in ends:
            table[kind].add(survived, seconds)
    print(f"\n{'kind':<28}{'seeds':>6}{'survived':>10}{'seconds':>9}")
    for kind, each in table.items():
        print(f"{kind:<28}{each.seeds:>6}{each.survived:>10}{each.seconds:>9.0f}")
    whole = sum(each.seeds for each in table.values()) == len(tried)
    return 0 if whole and all(each.survived == each.seeds for each in table.values()) else 1


@dataclass
class Tried:
    """What came of one kind."""

    seeds: int = 0
    survived: int = 0
    seconds: float = 0.0

    def add(self, survived: bool, seconds: float) -> None:
        """One more seed."""
        self.seeds += 1
        self.survived += survived
        self.seconds += seconds


if __name__ == "__main__":
    sys.exit(main())
