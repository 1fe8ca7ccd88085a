"""What a command is, and how one answers a program."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

from tli.terminal import printable

Command = Callable[[argparse.Namespace], int]  # gives the exit code


def print_text(text: str) -> None:
    """Text on standard output; names and reasons in it may come from elsewhere."""
    print(printable(text))


def print_json(value: Any) -> None:
    """One JSON value on standard output, for `--json`."""
    print(json.dumps(value, indent=1, default=str))
