"""The type of a command, and its output as text or JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tli.cli.console import document, print_text

__all__ = ["Command", "note", "print_json", "print_line", "print_notes", "print_text", "step"]

Command = Callable[[argparse.Namespace], int]  # gives the exit code


def note(text: str) -> None:
    """A note on standard error, unless `--quiet`."""
    import logging

    logging.getLogger(__name__).info("%s", text)


def step(text: str) -> None:
    """What the command does now, on standard error with `--verbose`."""
    import logging

    from sweeps.wording import masked

    logging.getLogger(__name__).debug("%s", masked(text))


def print_notes(notes: Iterable[str], options: argparse.Namespace) -> None:
    """Notes that belong to an answer, below it on standard output, unless `--quiet`."""
    for each in () if options.quiet else notes:
        print_text(f"note: {each}")


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON document on standard output, for `--json`."""
    print(_strict(document(value), indent=1))


def print_line(value: Mapping[str, Any]) -> None:
    """One JSON document on a line of its own, at once, for a command that gives many."""
    print(_strict(document(value)), flush=True)


def _strict(value: Any, indent: int | None = None) -> str:
    """A value as JSON that every program reads: a loss that is no number is null, not NaN."""
    plain = json.loads(json.dumps(value, default=str), parse_constant=lambda _: None)
    return json.dumps(plain, indent=indent, allow_nan=False)
