"""The type of a command, and its output as text or JSON."""

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
    print(strict_json(value, indent=1))


def strict_json(value: Any, indent: int | None = None) -> str:
    """A value as JSON that every program reads: a loss that is no number is null, not NaN."""
    plain = json.loads(json.dumps(value, default=str), parse_constant=lambda _: None)
    return json.dumps(plain, indent=indent, allow_nan=False)
