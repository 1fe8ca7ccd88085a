"""Options of commands that train: where trials run, and those of `sweeps promote`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from tli.cli.console import path

Command = Callable[[str, str, str], argparse.ArgumentParser]  # name, what it does, an example
REGISTER: Mapping[str, Any] = {
    "nargs": "?",
    "const": True,
    "metavar": "MODEL",
    "help": "register it in MLflow as a version of this model (default: of the sweep's name)",
}


def promotion(command: Command, environment: Mapping[str, str]) -> argparse.ArgumentParser:
    """Add `sweeps promote`, but for the options that all commands of a sweep have."""
    promote = command(
        "promote",
        "train a trial on a larger budget: the model that the answer names",
        "sweeps promote quickstart --tokens 2B --plan     what it would take\n"
        "  sweeps promote quickstart --tokens 2B --control --out long/\n"
        "  sweeps promote quickstart --tokens 2B --ranks 8 --register mine",
    )
    amount = "all that it is trained on: 2B, 500M, 1_000_000; more than the trial was"
    promote.add_argument("--tokens", metavar="N", required=True, help=amount)
    which = promote.add_mutually_exclusive_group()
    which.add_argument("--trial", metavar="N", type=int, help="this trial instead")
    which.add_argument(
        "--grown",
        action="store_true",
        help="the best grown model, also where the answer is the original, trained on",
    )
    promote.add_argument(
        "--control", action="store_true", help="train the best control beside it, with as many FLOPs"
    )
    promote.add_argument("--ranks", metavar="N", type=int, help="processes that train it together")
    promote.add_argument("--out", metavar="DIR", type=path, help="new folder that the model is copied to")
    promote.add_argument("--register", **REGISTER)
    promote.add_argument("--plan", action="store_true", help="print what it would take, and run nothing")
    runner(promote, environment)
    return promote


def runner(each: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    """Add where trials run."""
    each.add_argument(
        "--runner",
        choices=("ray", "inline"),
        default="ray",
        help="inline: one trial at a time in this process",
    )
    address = environment.get("RAY_ADDRESS")  # set in every job of a cluster
    shown = f"of a Ray cluster (default: {address or 'one of its own'})"
    each.add_argument("--address", metavar="ADDRESS", default=address, help=shown)
