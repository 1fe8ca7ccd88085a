"""The sweep that is meant where none is named: the only one there is."""

from __future__ import annotations

import argparse
from pathlib import Path

from sweeps.cli.output import note
from sweeps.commands import command as shown
from sweeps.errors import Problem, SpecError


def fill_in(options: argparse.Namespace) -> None:
    """Set `name`, or `names`, where a command that takes one was given none.

    Raises:
        SpecError: there is no sweep under the folder of all results, or there are several.
    """
    several = "names" in options
    if not several and "name" not in options:
        return
    if options.names if several else options.name is not None:
        return
    name = _only(Path(options.runs or "runs"), options.command)
    options.name = name
    if several:
        options.names = [name]


def _only(runs: Path, command: str) -> str:
    if runs.exists() and not runs.is_dir():
        raise SpecError(Problem("--runs", f"{str(runs)!r}, a file", "the folder of all results"))
    from sweeps.ownership import names_under

    names = names_under(runs)
    if not names:
        run = "sweeps run quickstart, or --runs with the folder of all results"
        raise SpecError(Problem("NAME", f"nothing, and no sweep in {runs}", "a sweep that was run", run))
    if len(names) > 1:
        got = f"nothing, and {len(names)} sweeps in {runs}"
        remedy = shown(command, names[0], runs=runs)
        raise SpecError(Problem("NAME", got, f"one of {', '.join(names)}", remedy))
    note(f"{names[0]} is taken, the one sweep in {runs}")
    return names[0]
