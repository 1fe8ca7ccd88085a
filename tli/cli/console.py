"""Runs a command: parsing, exit codes, errors as lines or as JSON, closed pipes."""

from __future__ import annotations

import argparse
import errno
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from tli.cli.usage import BAD_INPUT, FAILED, INTERRUPTED, SHAPED, UsageError, problem_of
from tli.errors import InputError, Problem, TliError
from tli.places import expanded
from tli.terminal import printable

SCHEMA = 2  # of all that is answered in JSON; raised when a key goes, or means something else
DISTRIBUTION = "tli-sweeps"


class Parser(argparse.ArgumentParser):
    """Ends a mistyped command as every other mistake ends; every option is spelled out."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **given})

    def error(self, message: str) -> NoReturn:
        """Print the mistake in one line, without the usage.

        Raises:
            UsageError: always.
        """
        problem = problem_of(message, f"{self.prog} -h")
        text = str(problem) if SHAPED in message else f"{message}; try {self.prog} -h"
        sys.stderr.write(f"{printable(f'error: {text}')}\n")
        raise UsageError(text, problem)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """The options; what none of the parsers knows is refused with what may have been meant.

        Raises:
            UsageError: there is something.
        """
        words = list(sys.argv[1:] if args is None else args)
        options, unknown = self.parse_known_args(words, namespace)
        if unknown:
            command = getattr(options, "command", None)
            known = self._options_of(command)
            near = [f"did you mean {_nearest(each, known)}?" for each in unknown if _nearest(each, known)]
            self.of(command).error("; ".join([f"unrecognized arguments: {' '.join(unknown)}", *near]))
        return options

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        choices = list(action.choices or ())
        if action.choices is None or value in choices:
            return
        near = _nearest(str(value), map(str, choices))
        said = f"invalid choice: {value!r} (choose from {', '.join(map(str, choices))})"
        raise argparse.ArgumentError(action, f"{said}; did you mean {near}?" if near else said)

    def _options_of(self, command: str | None) -> list[str]:
        """The options of a subcommand, and those that stand before it."""
        return [name for parser in (self, self.of(command)) for name in parser._option_string_actions]

    def of(self, command: str | None) -> argparse.ArgumentParser:
        """The parser of a subcommand, whose mistakes name its own help; this one where there is none."""
        of_commands = (each for each in self._actions if isinstance(each, argparse._SubParsersAction))
        return next((each.choices[command] for each in of_commands if command in each.choices), self)


def path(text: str) -> Path:
    """The type of an option that names a file or folder: `~` is replaced, also where no shell has done it.

    Raises:
        argparse.ArgumentTypeError: it begins with the home folder of a user that this system does not know.
    """
    try:
        return expanded(text, "")
    except InputError as error:
        (problem,) = error.problems
        words = f"got {problem.got}; expected {problem.expected}; try {problem.remedy}"
        raise argparse.ArgumentTypeError(words) from None


def _nearest(word: str, known: Iterable[str]) -> str | None:
    """What was meant by a word that is mistyped, if that can be known."""
    from difflib import get_close_matches

    word, equals, _ = word.partition("=")
    known = list(known)
    near = [each for each in known if len(word) > 3 and each.startswith(word)]
    found = near if len(near) == 1 else get_close_matches(word, known, n=1, cutoff=0.6)
    return f"{found[0]}{equals}..." if found and equals else (found[0] if found else None)


class _Version(argparse.Action):
    """Prints the version; it is looked up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:  # noqa: A002 - argparse's
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        import platform
        from importlib import metadata

        try:
            version = metadata.version(DISTRIBUTION)
        except metadata.PackageNotFoundError:
            version = "(not installed)"
        print(f"{DISTRIBUTION} {version} (Python {platform.python_version()})")
        parser.exit()


def add_general_options(parser: argparse.ArgumentParser, *, below: bool = False) -> None:
    """The options of every command.

    Args:
        parser: to add them to.
        below: whether it is a subcommand's, which leaves alone what was said before its name.
    """
    default: Any = argparse.SUPPRESS if below else False
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        default=default,
        help="say what is done, and where errors arise",
    )
    loudness.add_argument(
        "-q", "--quiet", action="store_true", default=default, help="print the result and errors alone"
    )
    if not below:
        parser.add_argument("--version", action=_Version, help="print the version")


def parse(parser: Parser, arguments: Sequence[str] | None, *, completing: bool = False) -> argparse.Namespace:
    """The options of one command, with the log set up as they say; None reads those of the process.

    Args:
        parser: of the whole command.
        arguments: the words after the command's name.
        completing: whether the shell asks what may follow, which ends the process with the answer.

    Raises:
        UsageError: with `--json` among the words, the mistake stands on standard output as well.
    """
    if completing:
        import argcomplete

        argcomplete.autocomplete(parser, always_complete_options=False)
    try:
        options: argparse.Namespace = parser.parse_args(arguments)
        if options.verbose and options.quiet:
            parser.of(options.command).error("argument -q/--quiet: not allowed with argument -v/--verbose")
    except UsageError as error:
        if "--json" in (sys.argv[1:] if arguments is None else arguments):
            print_error(error.message, (error.problem,))
        raise
    from tli.cli.verbosity import level_of, set_up

    set_up(level_of(options))
    return options


def print_text(text: str) -> None:
    """Text on standard output; names and reasons in it may come from elsewhere."""
    print(printable(text))


def document(value: Mapping[str, Any]) -> dict[str, Any]:
    """What a program is answered: the version of its form, then what it says."""
    return {"schema": SCHEMA, **value}


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON document on standard output, for `--json`."""
    print(json.dumps(document(value), indent=1, allow_nan=False))


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
        code = _traced(command, hide)
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
        print_error(text, problems)
    return code


def _traced(command: Callable[[], int], hide: Callable[[str], str]) -> int:
    """Run a command; where an error arose that ends it is in the log, for `--verbose`."""
    try:
        return command()
    except Exception:
        import logging
        import traceback

        log = logging.getLogger(__name__)
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s", hide(traceback.format_exc().rstrip()))
        raise


def print_error(error: str, problems: Sequence[Problem] = ()) -> None:
    """An error as a JSON document on standard output, as far as that takes it.

    Args:
        error: its text.
        problems: with the input, where it is one.
    """
    try:
        print_json({"error": error, "problems": [problem.to_json() for problem in problems]})
        sys.stdout.flush()
    except OSError:  # whatever stopped the command may have taken its output too; the exit code stays
        _drop_output()


def _replace_what_cannot_be_encoded() -> None:
    """A terminal or file that takes ASCII alone gets `?` in place of `±`, not a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _drop_output() -> None:
    """Let go of what could not be printed, or Python would complain once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
