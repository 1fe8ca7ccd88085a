"""The commands that plan: `tli plan` and `tli upscale`."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tli.checkpoint import atomic
from tli.cli.arguments import as_option, settings_of
from tli.cli.console import print_json, print_text
from tli.cli.models import at_options, found, obstacles, verified
from tli.errors import InputError, Problem
from tli.growth.cost import cost
from tli.growth.folders import decide, read_plan, tried, upscale
from tli.growth.verify import verify_folder
from tli.models.base import Base
from tli.models.descriptions import Description
from tli.planning.plan import Plan
from tli.terminal import printable

_LOG = logging.getLogger(__name__)


def _plan(options: argparse.Namespace) -> int:
    if (options.model is None) == (options.depth is None):
        got = "neither a model nor --depth" if options.model is None else "both a model and --depth"
        raise InputError(Problem("plan", got, "one of them", "tli plan builtin:tiny-llama"))
    problems: list[Problem] = []
    weights = options.least_important_sets is not None  # which sets these are is measured
    base = tried(problems, lambda: found(options, options.model, weights=weights)) if options.model else None
    if base and options.method != "none":
        problems += obstacles(base)
    if options.save and options.save.is_dir():
        problems.append(Problem("--save", f"{str(options.save)!r}, a folder", "a file", "plan.json"))
    elif options.save and options.save.exists() and tried([], lambda: read_plan(options.save)) is None:
        got, expected = f"{str(options.save)!r}, which is no plan", "a new file, or a plan to replace"
        problems.append(Problem("--save", got, expected, "plan.json"))
    _quieten_where_measured(options)
    depth = base.facts.depth if base else options.depth
    decided = decide(settings_of(options), base, depth, problems)
    if decided is None:
        raise InputError(*[as_option(problem, "depth", "text") for problem in problems])
    if options.save:
        atomic.write_text(options.save, json.dumps(decided.to_json(), indent=2, allow_nan=False) + "\n")
    value = decided.to_json()
    lines = [str(decided), f"new stack: {_stack(decided)}"]
    if decided.block_influence:
        lines += [
            f"change of the hidden state: {' '.join(f'{change:.3f}' for change in decided.block_influence)}"
        ]
    if base and not decided.unchanged:
        price = cost(base, decided, sequence_length=1)
        before = base.facts.parameters
        value |= {
            "base": base.name,
            "parameters": price.parameters,
            "injected_parameters": price.injected_parameters,
            "described": base.revision if isinstance(base, Description) else None,
        }
        lines += [f"parameters: {before:,} -> {price.parameters:,} ({price.parameters / before - 1:+.1%})"]
    if isinstance(base, Description):
        lines += [
            f"from the packaged description of {base.name}, at {base.revision}: no weight was looked at"
        ]
    if options.json:
        print_json(value)
    else:
        print_text("\n".join(lines))
    return 0


def _upscale(options: argparse.Namespace) -> int:
    started = time.monotonic()
    _quieten_where_measured(options)
    _LOG.debug("growing %s into %s, seed %s", options.src, options.dst, options.seed)
    grown = at_options(
        lambda: upscale(
            options.src,
            options.dst,
            plan=options.plan,
            seed=options.seed,
            revision=options.revision,
            allow_remote_code=options.allow_remote_code,
            progress=_Progress(silent=options.quiet),
            **settings_of(options),
        ),
        "plan",
        "seed",
        "text",
    )
    seconds = time.monotonic() - started
    made = f"{grown}: {grown.plan}; {_megabytes(grown.base, grown.folder)} in {seconds:.1f} s"
    if not options.quiet:
        print(printable(made), file=sys.stderr)
    if options.verify:
        return verified(lambda: verify_folder(grown.folder, grown.base), as_json=False)
    return 0


def _quieten_where_measured(options: argparse.Namespace) -> None:
    """Before a model is loaded: no progress bars of other libraries."""
    if options.least_important_sets is not None:
        from tli.models.loading import quieten

        quieten()


def _stack(decided: Plan) -> str:
    """`0 1 2 3 [3] 4 ...`: the old layer behind each new one, injected ones in brackets."""
    new = set(decided.injected)
    return " ".join(f"[{source}]" if i in new else str(source) for i, source in enumerate(decided.sources))


class _Progress:
    """A bar with bytes, rate and time left; silent where there is no terminal."""

    def __init__(self, *, silent: bool) -> None:
        self.started, self.silent = time.monotonic(), silent

    def __call__(self, done: int, total: int) -> None:
        if self.silent or not sys.stderr.isatty():
            return
        seconds = max(time.monotonic() - self.started, 1e-3)
        left = (total - done) * seconds / max(done, 1)
        bar = "#" * (30 * done // max(total, 1))
        line = f"[{bar:30}] {done / 1e6:,.1f} of {total / 1e6:,.1f} MB, {done / 1e6 / seconds:,.0f} MB/s"
        line += "\033[K\n" if done == total else f", {left:.0f} s left\033[K"
        print(f"\r{line}", end="", file=sys.stderr, flush=True)


def _megabytes(base: Base, folder: Path) -> str:
    written = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return f"{base.checkpoint.nbytes / 1e6:,.1f} -> {written / 1e6:,.1f} MB"


RUNS: Mapping[str, Callable[[argparse.Namespace], int]] = {"plan": _plan, "upscale": _upscale}
