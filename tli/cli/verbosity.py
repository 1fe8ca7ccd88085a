"""How much a command says beside its answer: -q, nothing, or -v."""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys

QUIET, USUAL, VERBOSE = logging.ERROR, logging.INFO, logging.DEBUG
_PACKAGES = ("tli", "sweeps")


def level_of(options: argparse.Namespace) -> int:
    """The level of the log that the options ask for."""
    return QUIET if options.quiet else VERBOSE if options.verbose else USUAL


def set_up(level: int) -> None:
    """Have the log of both packages on standard error; called once, by the command that was started.

    Args:
        level: `QUIET`: errors alone. `USUAL`: notes, too. `VERBOSE`: what is done, and when.
    """
    handler = _StandardError()
    handler.setFormatter(_Formatter())
    for name in _PACKAGES:
        log = logging.getLogger(name)
        log.handlers[:] = [handler]  # a second command in one process takes the first one's place
        log.propagate = False
        log.setLevel(level)


class _StandardError(logging.Handler):
    """Prints to what standard error is now: a program that calls a command may have replaced it since."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):  # closed by its reader, who wants no more
            print(self.format(record), file=sys.stderr, flush=True)


class _Formatter(logging.Formatter):
    """Notes as they are; what is done with the time and the module."""

    def format(self, record: logging.LogRecord) -> str:
        from tli.terminal import printable

        said = printable(record.getMessage())
        if record.levelno >= logging.INFO:
            return f"note: {said}"
        return f"{self.formatTime(record, '%H:%M:%S')} {record.name}: {said}"
