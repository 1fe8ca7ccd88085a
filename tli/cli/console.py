"""Runs a command: parsing, exit codes, errors as lines or as JSON, closed pipes."""

from __future__ import annotations

import argparse
import errno
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NoReturn

from tli.errors import InputError, Problem, TliError
from tli.terminal import printable

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130


class UsageError(SystemExit):
    """Words that are no command of ours; already printed."""

    def __init__(self, message: str) -> None:
        super().__init__(BAD_INPUT)
        self.message = message


class Parser(argparse.ArgumentParser):
    """Ends a mistyped command as every other mistake ends."""

    def error(self, message: str) -> NoReturn:
        """Print the mistake in one line, without the usage.

        Raises:
            UsageError: always.
        """
        told = f"{message}; try {self.prog} -h"
        sys.stderr.write(f"error: {told}\n")
        raise UsageError(told)


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of one command; None reads those of the process.

    Raises:
        UsageError: with `--json` among the words, the mistake stands on standard output as well.
    """
    try:
        return parser.parse_args(arguments)
    except UsageError as error:
        if "--json" in (sys.argv[1:] if arguments is None else arguments):
            _print_json(error.message, ())
        raise


def run_command(
    command: Callable[[], int], *, as_json: bool = False, hide: Callable[[str], str] = str
) -> int:
    """Run one command and report how it ended. Anything but our errors and the system's is a bug and raised.

    Args:
        command: gives the exit code.
        as_json: an error is also one JSON object on standard output: `error`, the text, and `problems`, each
            with `file`, `line`, `column` and `path` (null where unknown), `got`, `expected` and `try`.
        hide: takes secrets out of a text that an error shows.

    Returns:
        The command's own code; 1 failed, 2 bad input, 130 interrupted. A closed pipe is no failure: 0.
    """
    _replace_what_cannot_be_encoded()
    try:
        code = command()
        sys.stdout.flush()
        return code
    except InputError as error:
        problems = tuple(
            replace(problem, where=hide(problem.where), got=hide(problem.got)) for problem in error.problems
        )
        text, code = "\n".join(map(str, problems)), BAD_INPUT
        lines = [f"error: {problem}" for problem in problems]
    except TliError as error:
        text, problems, code = hide(str(error)), (), FAILED
        lines = [f"error: {text}"]
    except KeyboardInterrupt:
        text, problems, code = "stopped", (), INTERRUPTED
        lines = ["\nstopped"]
    except BrokenPipeError:
        _drop_output()
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        text, problems, code = hide(f"{where}{error.strerror or error}"), (), FAILED
        lines = [f"error: {text}"]
        if error.errno == errno.ENOSPC:
            _drop_output()
    print(printable("\n".join(lines)), file=sys.stderr)
    if as_json:
        _print_json(text, problems)
    return code


def _print_json(error: str, problems: Sequence[Problem]) -> None:
    try:
        value = {"error": error, "problems": [problem.to_json() for problem in problems]}
        print(json.dumps(value, indent=1, allow_nan=False), flush=True)
    except OSError:  # whatever stopped the command may have taken its output too; the exit code stays
        _drop_output()


def _replace_what_cannot_be_encoded() -> None:
    """A terminal or file that takes ASCII alone gets `?` in place of `±`, not a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _drop_output() -> None:
    """Let go of what could not be printed, or Python would complain once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
