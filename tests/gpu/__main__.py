"""`python -m tests.gpu`: every GPU check within a time limit, the most important first; one table, and JSON."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

RESULTS = "gpu.json"


@dataclass(frozen=True)
class Check:
    """A part of the run: its name, the seconds it takes on an H100 or H200, and what it does."""

    name: str
    needs: float
    rows: Callable[[], Iterator[object]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks; the exit status is 1 where one failed."""
    given = _parsed(arguments)
    import torch
    import transformers

    from tests.gpu.table import Table

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    device = torch.device(given.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        print("error: --device cuda: torch finds no GPU here; try --device cpu --size tiny", file=sys.stderr)
        return 2
    size = given.size or ("full" if device.type == "cuda" else "tiny")
    if device.type == "cpu":
        torch.set_num_threads(given.threads)
    facts = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
        "size": size,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }
    table = Table(facts, Path(given.out) / RESULTS if given.out else None)
    print(", ".join(f"{name} {value}" for name, value in facts.items()), flush=True)
    ended = threading.Timer(given.limit, _time_is_up, (table,))
    ended.daemon = True
    ended.start()
    try:
        for check in _checks(size, device, lambda: given.limit - table.seconds):
            if not given.only or check.name in given.only:
                _run(check, table, given.limit, on_gpu=device.type == "cuda")
    finally:
        ended.cancel()
    return table.finish(whole=True)


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    parser.add_argument("--limit", type=float, default=480.0, help="seconds for everything (default 480)")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="default: a GPU where there is one")
    parser.add_argument("--size", choices=("full", "60m", "builtin", "tiny"), help="default: full on a GPU")
    parser.add_argument("--out", default=os.environ.get("OUT", ""), help="folder of the JSON (default: $OUT)")
    parser.add_argument("--only", nargs="+", metavar="CHECK", help="some of the checks, by name")
    parser.add_argument("--threads", type=int, default=1, help="of a CPU (default 1)")
    return parser.parse_args(arguments)


def _checks(size: str, device: object, left: Callable[[], float]) -> list[Check]:
    """In the order of their weight: what is right, what is fast, what lasts."""
    import torch

    from tests.gpu import correctness, loss, settings, speed, trials
    from tests.gpu.shapes import SIZES

    assert isinstance(device, torch.device)
    gpu = device.type == "cuda"
    shapes = SIZES[size]
    first, last = shapes[0], shapes[-1]
    checks = [
        Check("correctness", 10, lambda: correctness.rows(device)),
        Check("speed", 30, lambda: speed.rows(first, device, enough=lambda: left() > (12 if gpu else 3))),
        Check(
            "compiled", 60,
            lambda: speed.rows(first, device, compiled=True, enough=lambda: left() > (20 if gpu else 3)),
        ),
        Check("trials", 30, lambda: trials.rows(first, device, count=20)),
    ]  # fmt: skip
    if last is not first:
        checks.append(Check("less kept", 45, lambda: speed.rows(last, device, enough=lambda: left() > 20)))
    checks.append(Check("loss", 10, lambda: loss.rows(first, device)))
    checks.append(
        Check(
            "settings", 30,
            lambda: settings.rows(first, device, compiled=gpu, enough=lambda: left() > (15 if gpu else 3)),
        )
    )  # fmt: skip
    if size != "tiny":
        checks.append(Check("at once", 60, lambda: trials.rows_at_once(first, device, 8.0)))
    if not gpu:  # compilers of C++ take minutes, and other checks are of what only a GPU has
        checks = [check for check in checks if check.name != "compiled"]
    return checks


def _run(check: Check, table: object, limit: float, *, on_gpu: bool) -> None:
    """The rows of a check, or why there are none: a check that fails does not keep the others from running."""
    import torch

    from tests.gpu.memory import release
    from tests.gpu.table import FAILED, Row, Table, skipped

    assert isinstance(table, Table)
    left = limit - table.seconds
    if on_gpu and left < check.needs:
        table.add(
            check.name, skipped(check.name, f"{left:.0f} s are left, and it takes about {check.needs:.0f}")
        )
        return
    try:
        for row in check.rows():
            assert isinstance(row, Row)
            table.add(check.name, row)
    except Exception as error:  # noqa: BLE001 - whatever it is, the others run
        traceback.print_exc()
        said = next((line for line in str(error).splitlines() if line.strip()), "")
        table.add(check.name, Row(check.name, FAILED, f"{type(error).__name__}: {said}"))
    release(torch.device("cuda" if on_gpu else "cpu"))


def _time_is_up(table: object) -> None:
    from tests.gpu.table import Table

    assert isinstance(table, Table)
    os._exit(table.finish(whole=False))


if __name__ == "__main__":
    sys.exit(main())
