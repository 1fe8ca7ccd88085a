"""The command `tli`: plan, upscale, verify and inspect one causal language model."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tli.architectures.config import section_of
from tli.architectures.lookup import family_of, refusals, table
from tli.architectures.table import FAMILIES
from tli.checkpoint import atomic
from tli.cli.arguments import as_option, parser, settings_of
from tli.cli.console import FAILED, parse, run_command
from tli.errors import InputError, Problem
from tli.growth.cost import cost
from tli.growth.folders import decide, tried, upscale, verify
from tli.growth.verify import verify_folder
from tli.growth.verify_report import Report
from tli.models.base import Base, find
from tli.models.lineage import FILE, read_lineage
from tli.planning.plan import Plan
from tli.terminal import printable

T = TypeVar("T")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns 0, 1 when a verification failed, 2 for bad input."""
    options = parse(parser(), arguments)
    as_json = getattr(options, "json", False)
    return run_command(lambda: _RUNS[options.command](options), as_json=as_json)


def _plan(options: argparse.Namespace) -> int:
    if (options.model is None) == (options.depth is None):
        got = "neither a model nor --depth" if options.model is None else "both a model and --depth"
        raise InputError(Problem("plan", got, "one of them", "tli plan builtin:tiny-llama"))
    problems: list[Problem] = []
    base = tried(problems, lambda: _found(options, options.model)) if options.model else None
    if base and options.method != "none":
        problems += _obstacles(base)
    if options.save and options.save.is_dir():
        problems.append(Problem("--save", f"{str(options.save)!r}, a folder", "a file", "plan.json"))
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
        price = cost(base, decided, sequence_length=1, batch_tokens=1)
        before = base.facts.parameters
        value |= {
            "base": base.name,
            "parameters": price.parameters,
            "injected_parameters": price.injected_parameters,
        }
        lines += [f"parameters: {before:,} -> {price.parameters:,} ({price.parameters / before - 1:+.1%})"]
    print(json.dumps(value, indent=2, allow_nan=False) if options.json else printable("\n".join(lines)))
    return 0


def _upscale(options: argparse.Namespace) -> int:
    started = time.monotonic()
    _quieten_where_measured(options)
    grown = _as_options(
        lambda: upscale(
            options.src,
            options.dst,
            plan=options.plan,
            seed=options.seed,
            revision=options.revision,
            allow_remote_code=options.allow_remote_code,
            progress=_Progress(),
            **settings_of(options),
        ),
        "plan",
        "seed",
        "text",
    )
    seconds = time.monotonic() - started
    made = f"{grown}: {grown.plan}; {_megabytes(grown.base, grown.folder)} in {seconds:.1f} s"
    print(printable(made), file=sys.stderr)
    if options.verify:
        return _verified(lambda: verify_folder(grown.folder, grown.base), as_json=False)
    return 0


def _verify(options: argparse.Namespace) -> int:
    def report() -> Report:
        return verify(
            options.folder,
            options.base,
            load=not options.no_load,
            revision=options.revision,
            allow_remote_code=options.allow_remote_code,
        )

    return _verified(lambda: _as_options(report), as_json=options.json)


def _inspect(options: argparse.Namespace) -> int:
    base = _found(options, options.model)
    value: dict[str, Any] = {"name": base.name, "folder": str(base.folder), "revision": base.revision}
    value |= dataclasses.asdict(base.facts)
    value |= {"bytes": base.checkpoint.nbytes, "files": len(base.checkpoint.shards)}
    value["upscaling"] = "; ".join(map(str, _obstacles(base))) or "yes"
    if (base.folder / FILE).is_file():
        told = read_lineage(base.folder)
        value["lineage"] = f"{told['base']['name']}, {Plan.from_json(told['plan'])}"
    if options.fingerprint:
        value["fingerprint"] = base.fingerprint
    if options.json:
        print(json.dumps(value, indent=2, allow_nan=False))
    else:
        for name, item in value.items():
            text = f"{item:,}" if isinstance(item, int) else printable(str(item or "-"))
            print(f"{name:12} {text}")
    return 0


def _families(options: argparse.Namespace) -> int:
    unknown = [name for name in options.model_type if name not in FAMILIES]
    if unknown:
        raise InputError(
            *[
                Problem(
                    "model_type",
                    repr(name),
                    "one that `tli families` lists",
                    next(iter(difflib.get_close_matches(name, FAMILIES, n=1)), ""),
                )
                for name in unknown
            ]
        )
    rows = [row for row in table() if not options.model_type or row["model_type"] in options.model_type]
    if options.json:
        print(json.dumps(rows, indent=2, allow_nan=False))
        return 0
    width = max(len(str(row["model_type"])) for row in rows)
    print(f"{'architecture':{width}}  grows  {'identity':22}  notes")
    for row in rows:
        grows = "yes" if row["grows"] else "no"
        print(f"{row['model_type']:{width}}  {grows:5}  {row['identity']:22}  {row['reason']}".rstrip())
    if not options.model_type:
        exact = sum(row["identity"] not in ("-", "no") for row in rows)
        grown = sum(bool(row["grows"]) for row in rows)
        print(f"\n{len(rows)} architectures: {grown} can be grown, {exact} of them by identity")
    return 0


def _found(options: argparse.Namespace, model: str) -> Base:
    return find(model, revision=options.revision, allow_remote_code=options.allow_remote_code)


def _obstacles(base: Base) -> list[Problem]:
    """Why layers cannot be injected into this model; empty when they can."""
    problems: list[Problem] = []
    family = tried(problems, lambda: family_of(base.facts.model_type))
    return refusals(family, section_of(base.config)) if family else problems


def _as_options(step: Callable[[], T], *renamed: str) -> T:
    """The result of a step, its problems placed at options (`as_option`)."""
    try:
        return step()
    except InputError as error:
        raise InputError(*[as_option(problem, *renamed) for problem in error.problems]) from None


def _stack(decided: Plan) -> str:
    """`0 1 2 3 [3] 4 ...`: the old layer behind each new one, injected ones in brackets."""
    new = set(decided.injected)
    return " ".join(f"[{source}]" if i in new else str(source) for i, source in enumerate(decided.sources))


class _Progress:
    """A bar with bytes, rate and time left; silent where standard error is no terminal."""

    def __init__(self) -> None:
        self.started = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if not sys.stderr.isatty():
            return
        seconds = max(time.monotonic() - self.started, 1e-3)
        left = (total - done) * seconds / max(done, 1)
        bar = "#" * (30 * done // max(total, 1))
        told = f"[{bar:30}] {done / 1e6:,.1f} of {total / 1e6:,.1f} MB, {done / 1e6 / seconds:,.0f} MB/s"
        told += "\033[K\n" if done == total else f", {left:.0f} s left\033[K"
        print(f"\r{told}", end="", file=sys.stderr, flush=True)


def _megabytes(base: Base, folder: Path) -> str:
    written = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return f"{base.checkpoint.nbytes / 1e6:,.1f} -> {written / 1e6:,.1f} MB"


def _verified(proof: Callable[[], Report], *, as_json: bool) -> int:
    from tli.models.loading import quieten

    quieten()  # what transformers has to say about loading is in the report
    report = proof()
    if as_json:
        print(json.dumps(report.to_json(), indent=2, allow_nan=False))
    else:
        for check in report.checks:
            print(printable(f"{'ok' if check.ok else 'FAILED':7} {check.name:11} {check.detail}"))
        report.require()
    return 0 if report.ok else FAILED


def _quieten_where_measured(options: argparse.Namespace) -> None:
    """Before a model is loaded: no progress bars of other libraries."""
    if options.sets is not None:
        from tli.models.loading import quieten

        quieten()


_RUNS = {"plan": _plan, "upscale": _upscale, "verify": _verify, "inspect": _inspect, "families": _families}
