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
from tli.architectures.mixtures import moe_problems
from tli.architectures.table import FAMILIES, family_of, refusals, table
from tli.checkpoint import atomic
from tli.cli.arguments import OPTIONS, injection_of, parser
from tli.cli.console import FAILED, parse, run_command
from tli.errors import InputError, PlanError, Problem
from tli.growth.cost import cost
from tli.json_files import read_json, reason_of
from tli.models.base import Base, find
from tli.models.lineage import FILE, read_lineage
from tli.planning.injection import Injection, injection_problems
from tli.planning.plan import Plan, plan_for
from tli.terminal import printable

T = TypeVar("T")
_OF_PLANS = {*Injection.__dataclass_fields__, *OPTIONS.values(), "text"}


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
    base = _tried(problems, lambda: _found(options, options.model)) if options.model else None
    if base and options.method != "none":
        problems += _obstacles(base)
    if options.save and options.save.is_dir():
        problems.append(Problem("--save", f"{str(options.save)!r}, a folder", "a file", "plan.json"))
    decided = _decided(options, base, base.facts.depth if base else options.depth, problems)
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
    problems = atomic.exists_problems(options.dst)
    base = _tried(problems, lambda: _found(options, options.src))
    if options.plan:
        decided = _saved(options, problems)
        if problems:
            raise InputError(*problems)
    else:
        decided = _decided(options, base, base.facts.depth if base else None, problems)
    assert decided is not None
    assert base is not None, "a base that was not found is a problem, and problems were raised"
    from tli.growth.on_disk import upscale_folder

    started = time.monotonic()
    upscale_folder(base, options.dst, decided, seed=options.seed, progress=_Progress())
    seconds = time.monotonic() - started
    made = f"{options.dst}: {decided}; {_megabytes(base, options.dst)} in {seconds:.1f} s"
    print(printable(made), file=sys.stderr)
    if options.verify:
        return _verified(options.dst, base, load=True, as_json=False)
    return 0


def _verify(options: argparse.Namespace) -> int:
    told = read_lineage(options.folder)["base"]
    if options.base is None and options.revision is None:
        options.revision = told["revision"]
    try:
        base = _found(options, options.base or told["name"])
    except InputError as error:
        if options.base is not None:
            raise
        place = f"{options.folder / FILE}: base"
        elsewhere = Problem(
            place, f"{told['name']!r}, which cannot be used from here", "the base model", "--base"
        )
        raise InputError(*error.problems, elsewhere) from None
    return _verified(options.folder, base, load=not options.no_load, as_json=options.json)


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
    family = _tried(problems, lambda: family_of(base.facts.model_type))
    return refusals(family, section_of(base.config)) if family else problems


def _tried(problems: list[Problem], step: Callable[[], T]) -> T | None:
    """The result of a step; its problems go to the others, so that all are told at once."""
    try:
        return step()
    except InputError as error:
        problems.extend(error.problems)
        return None


def _decided(
    options: argparse.Namespace, base: Base | None, depth: int | None, problems: list[Problem]
) -> Plan:
    """The plan for these options, or one InputError with its problems and those found before."""
    injection = _tried(problems, lambda: injection_of(options))
    if depth is not None and depth < 1:
        problems.append(Problem("--depth", str(depth), "a model of at least 1 layer"))
        depth = None
    if injection:
        problems += [_option(problem) for problem in _settings_problems(injection, base, depth)]
    influence = None
    if injection and injection.least_important_sets is not None and not problems:
        influence = _tried(problems, lambda: _measured_influence(options, base))
    if problems or depth is None or injection is None:
        raise InputError(*problems)
    return plan_for(injection, depth, block_influence=influence)


def _settings_problems(injection: Injection, base: Base | None, depth: int | None) -> list[Problem]:
    """What is wrong with the settings, by themselves and for this model."""
    problems = injection_problems(injection, depth)
    if problems or base is None:
        return problems
    experts = injection.resolved().experts
    return moe_problems(base.config, experts) if experts.count is not None else []


def _option(problem: Problem) -> Problem:
    """A problem with a setting, placed at its option."""
    if not problem.where.startswith("injection."):
        return problem
    name = problem.where.removeprefix("injection.")
    return dataclasses.replace(problem, where=f"--{OPTIONS.get(name, name)}".replace("_", "-"))


def _measured_influence(options: argparse.Namespace, base: Base | None) -> tuple[float, ...]:
    """How much each layer changes the hidden state, for --least-important-sets."""
    if base is None:
        raise InputError(
            Problem("--least-important-sets", "no model", "one to measure", "naming it in place of --depth")
        )
    from tli.data.dataset import Source
    from tli.data.sources import name_problems
    from tli.growth.importance import measure
    from tli.models.loading import quieten

    text = options.text if options.text is not None else "builtin:stdlib"
    if problems := list(name_problems(text, "--text")):
        raise InputError(*problems)
    quieten()
    return measure(base, Source(text, where="--text"), where="--text")


def _saved(options: argparse.Namespace, problems: list[Problem]) -> Plan | None:
    """The plan of --plan. Options that would say the same again, or otherwise, are problems."""
    said = vars(options).items()
    given = [name for name, value in said if name in _OF_PLANS and value is not None]
    if given:
        got = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        problems.append(Problem("--plan", f"{got} too", "a plan, or options for one"))
    return _tried(problems, lambda: read_plan(options.plan))


def read_plan(path: Path) -> Plan:
    """A plan as `tli plan --save` writes it. Raises PlanError."""
    try:
        value = read_json(path)
    except (OSError, ValueError) as error:
        reason = f"no JSON ({reason_of(error)})"
        raise PlanError(Problem(str(path), reason, "a plan", "tli plan --save")) from None
    return Plan.from_json(value if isinstance(value, dict) else {}, str(path))


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


def _verified(folder: Path, base: Base, *, load: bool, as_json: bool) -> int:
    from transformers.utils import logging

    from tli.growth.verify import verify_folder

    logging.set_verbosity_error()  # what it has to say about loading is in the report
    logging.disable_progress_bar()
    report = verify_folder(folder, base, load=load)
    if as_json:
        print(json.dumps(report.to_json(), indent=2, allow_nan=False))
    else:
        for check in report.checks:
            print(printable(f"{'ok' if check.ok else 'FAILED':7} {check.name:11} {check.detail}"))
        report.require()
    return 0 if report.ok else FAILED


_RUNS = {"plan": _plan, "upscale": _upscale, "verify": _verify, "inspect": _inspect, "families": _families}
