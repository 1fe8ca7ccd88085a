"""The command `sweeps`: check, plan, run, resume, look at, and take home a sweep."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

from sweeps.arguments import parser
from sweeps.commands import COMMANDS, STOPPED
from tli.errors import InputError, TliError
from tli.places import expanded

MISSING_EXTRA = "sweeps: the parts that run sweeps are not installed; pip install 'tli-sweeps[sweeps]'"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0 done, 1 failed, 2 bad input, 130 stopped by hand."""
    options = parser(os.environ).parse_args(arguments)
    try:
        if options.runs is not None:
            options.runs = str(expanded(options.runs, "--runs"))
        options.usual_runs = expanded(options.usual_runs, "--runs")
        result = COMMANDS[options.command](options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return STOPPED
    except InputError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return 2
    except TliError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _OF_THE_EXTRA:
            raise
        print(MISSING_EXTRA, file=sys.stderr)
        return 2
    except BrokenPipeError:
        _close_output()  # the reader of a pipe has seen enough
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        if error.errno == errno.ENOSPC:
            _close_output()
        return 1
    return result


def _close_output() -> None:
    """Let go of what could not be printed, or Python would complain once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_OF_THE_EXTRA = frozenset(
    {"ray", "optuna", "mlflow", "pydantic", "yaml", "rich", "sqlalchemy", "optuna_dashboard"}
)


if __name__ == "__main__":
    sys.exit(main())
