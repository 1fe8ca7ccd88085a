"""Runs a command: parsing, exit codes, errors as lines or as JSON, closed pipes."""

from __future__ import annotations

import argparse
import errno
import io
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from tli.errors import InputError, Problem, TliError
from tli.places import expanded
from tli.terminal import printable

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130


_NAMED = re.compile(r"argument (?P<option>[^:]+): (?P<said>.+)", re.DOTALL)
_INVALID = re.compile(
    r"invalid (?P<kind>[\w.]+) value: (?P<got>.+)"
    r"|invalid choice: (?P<word>.+?) \(choose from (?P<choices>.+)\)",
    re.DOTALL,
)
_SHAPED = "; expected "
_LACKING = "the following arguments are required: "
_UNKNOWN = "unrecognized arguments: "
_KINDS = {"int": "a whole number", "float": "a number"}


class UsageError(SystemExit):
    """Words that are no command of ours; already printed."""

    def __init__(self, message: str, problem: Problem) -> None:
        super().__init__(BAD_INPUT)
        self.message, self.problem = message, problem


class Parser(argparse.ArgumentParser):
    """Ends a mistyped command as every other mistake ends."""

    def error(self, message: str) -> NoReturn:
        """Print the mistake in one line, without the usage.

        Raises:
            UsageError: always.
        """
        problem = _problem_of(message, f"{self.prog} -h")
        told = str(problem) if _SHAPED in message else f"{message}; try {self.prog} -h"
        sys.stderr.write(f"{printable(f'error: {told}')}\n")
        raise UsageError(told, problem)


def path(text: str) -> Path:
    """The type of an option that names a file or folder: `~` is replaced, also where no shell has done it.

    Raises:
        argparse.ArgumentTypeError: it begins with the home folder of a user that this system does not know.
    """
    try:
        return expanded(text, "")
    except InputError as error:
        (problem,) = error.problems
        told = f"got {problem.got}; expected {problem.expected}; try {problem.remedy}"
        raise argparse.ArgumentTypeError(told) from None


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of one command; None reads those of the process.

    Raises:
        UsageError: with `--json` among the words, the mistake stands on standard output as well.
    """
    try:
        return parser.parse_args(arguments)
    except UsageError as error:
        if "--json" in (sys.argv[1:] if arguments is None else arguments):
            _print_json(error.message, (error.problem,))
        raise


def _problem_of(message: str, usage: str) -> Problem:
    """What argparse says of a command line, in the shape of every other mistake."""
    named = _NAMED.fullmatch(message)
    where, said = (named["option"], named["said"]) if named else ("command line", message)
    if _SHAPED in said:  # as `path` says it
        got, _, rest = said.removeprefix("got ").partition(_SHAPED)
        expected, _, remedy = rest.partition("; try ")
        return Problem(where, got, expected, remedy)
    if said.startswith(_LACKING):
        return Problem(said.removeprefix(_LACKING), "nothing", "a value for each", usage)
    if said.startswith(_UNKNOWN):
        got = "words that this command does not know"
        return Problem(said.removeprefix(_UNKNOWN), got, "its options", usage)
    if invalid := _INVALID.fullmatch(said):
        if invalid["choices"]:
            return Problem(where, invalid["word"], f"one of {invalid['choices']}", usage)
        kind = invalid["kind"]
        return Problem(where, invalid["got"], _KINDS.get(kind, f"a value of {kind}"), usage)
    return Problem(where, said, "what its help says", usage)


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
