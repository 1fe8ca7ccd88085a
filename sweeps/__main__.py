"""The command `sweeps`: check, plan, run, resume, look at, and take home a sweep."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from sweeps.arguments import parser
from sweeps.commands import COMMANDS
from tli.console import BAD_INPUT, parse, run_command

MISSING_EXTRA = "sweeps: the parts that run sweeps are not installed; pip install 'tli-sweeps[sweeps]'"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0 done, 1 failed, 2 bad input, 130 stopped by hand."""
    options = parse(parser(os.environ), arguments)
    as_json = getattr(options, "json", False)
    try:
        return run_command(lambda: COMMANDS[options.command](options), as_json=as_json)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _OF_THE_EXTRA:
            raise
        print(MISSING_EXTRA, file=sys.stderr)
        return BAD_INPUT


_OF_THE_EXTRA = frozenset(
    {"ray", "optuna", "mlflow", "pydantic", "yaml", "rich", "sqlalchemy", "optuna_dashboard"}
)


if __name__ == "__main__":
    sys.exit(main())
