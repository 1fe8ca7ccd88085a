"""The command `tli`: plan, upscale, verify and inspect one causal language model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tli.cli.arguments import parser
from tli.cli.console import parse, print_error, run_command


def main(arguments: Sequence[str] | None = None, *, completing: bool = False) -> int:
    """Runs one command.

    Args:
        arguments: the words after the command's name; None reads those of the process.
        completing: whether the shell asks what may follow; the process then ends with the answer.

    Returns:
        The exit code: 0, 1 when a verification failed, 2 for bad input.
    """
    options = parse(parser(), arguments, completing=completing)
    as_json = getattr(options, "json", False)
    try:
        return run_command(lambda: _run(options), as_json=as_json)
    except Exception as error:
        if as_json:
            print_error(f"{type(error).__name__}: {error}")
        raise


def _run(options: argparse.Namespace) -> int:
    # Imported now: `tli -h`, completion and a mistake in the words are answered before.
    from tli.cli import eval_commands, model_commands, plan_commands

    runs = {**plan_commands.RUNS, **model_commands.RUNS, **eval_commands.RUNS}
    return runs[options.command](options)
