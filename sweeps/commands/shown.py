"""What a command is, and how one answers a program."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

Command = Callable[[argparse.Namespace], int]  # gives the exit code


def print_json(value: Any) -> None:
    """One JSON value on standard output, for `--json`."""
    print(json.dumps(value, indent=1, default=str))
