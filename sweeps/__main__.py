"""The command `sweeps`: check, plan, run, resume, inspect and export a sweep."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from sweeps.cli import COMMANDS
from sweeps.cli.arguments import parser
from sweeps.wording import masked
from tli.cli.console import BAD_INPUT, FAILED, parse, run_command
from tli.places import expanded
from tli.terminal import printable

MISSING_EXTRA = "sweeps: the parts that run sweeps are not installed; pip install 'tli-sweeps[sweeps]'"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0 done, 1 failed, 2 bad input, 130 stopped by hand."""
    options = parse(parser(os.environ), arguments)
    as_json = getattr(options, "json", False)
    try:
        return run_command(lambda: _run(options), as_json=as_json, hide=masked)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] in _OF_THE_EXTRA:
            print(MISSING_EXTRA, file=sys.stderr)
            return BAD_INPUT
        return _bug()
    except Exception:  # noqa: BLE001 - a fault of ours; the libraries below may quote an address
        return _bug()


def _run(options: argparse.Namespace) -> int:
    if options.runs is not None:
        options.runs = str(expanded(options.runs, "--runs"))
    options.usual_runs = expanded(options.usual_runs, "--runs")
    return COMMANDS[options.command](options)


def _bug() -> int:
    print(printable(masked(traceback.format_exc())), end="", file=sys.stderr)
    return FAILED


_OF_THE_EXTRA = frozenset(
    {"ray", "optuna", "mlflow", "pydantic", "yaml", "rich", "sqlalchemy", "optuna_dashboard"}
)


if __name__ == "__main__":
    sys.exit(main())
