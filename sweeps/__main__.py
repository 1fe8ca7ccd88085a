# PYTHON_ARGCOMPLETE_OK
"""The command `sweeps`: check, plan, run, resume, inspect and export a sweep."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from sweeps.cli import COMMANDS
from sweeps.cli.arguments import as_option, parser
from sweeps.cli.names import fill_in
from tli.cli.console import parse, print_error, run_command
from tli.cli.usage import BAD_INPUT, FAILED
from tli.errors import InputError

MISSING_EXTRA = "sweeps: the parts that run sweeps are not installed; pip install 'tli-sweeps[sweeps]'"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0 done, 1 failed, 2 bad input, 130 stopped by hand."""
    options = parse(parser(os.environ), arguments, completing="_ARGCOMPLETE" in os.environ)
    as_json = getattr(options, "json", False)
    # After the words are read: `-h`, completion and a mistake among them need neither.
    from sweeps.wording import masked

    try:
        return run_command(lambda: _run(options), as_json=as_json, hide=masked)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] in _OF_THE_EXTRA:
            print(MISSING_EXTRA, file=sys.stderr)
            if as_json:
                print_error(MISSING_EXTRA)
            return BAD_INPUT
        return _bug(error, as_json=as_json)
    except Exception as error:  # noqa: BLE001 - a fault of ours; the libraries below may quote an address
        return _bug(error, as_json=as_json)


def _run(options: argparse.Namespace) -> int:
    from tli.places import expanded

    if options.runs is not None:
        options.runs = str(expanded(options.runs, "--runs"))
    options.usual_runs = expanded(options.usual_runs, "--runs")
    fill_in(options)
    try:
        return COMMANDS[options.command](options)
    except InputError as error:
        raise type(error)(*(as_option(problem, options) for problem in error.problems)) from error


def _bug(error: Exception, *, as_json: bool) -> int:
    import traceback

    from sweeps.wording import masked
    from tli.terminal import printable

    print(printable(masked(traceback.format_exc())), end="", file=sys.stderr)
    if as_json:
        print_error(masked(f"{type(error).__name__}: {error}"))
    return FAILED


_OF_THE_EXTRA = frozenset(
    {"ray", "optuna", "mlflow", "pydantic", "yaml", "rich", "sqlalchemy", "optuna_dashboard"}
)


if __name__ == "__main__":
    sys.exit(main())
