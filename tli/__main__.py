"""The command `tli`: plan, upscale, verify and inspect one causal language model."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from tli import aside
from tli.base import Base, find
from tli.cost import cost
from tli.errors import InputError, Problem, TliError
from tli.families import family_of, refusals
from tli.lineage import FILE, read_lineage
from tli.plan import INITS, METHODS, Injection, Plan, injection_problems, plan_for

T = TypeVar("T")
_WRONG, _BAD_INPUT, _INTERRUPTED = 1, 2, 130


class _Parser(argparse.ArgumentParser):
    """Ends a mistyped command as every other mistake ends."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {message}; try {self.prog} -h", file=sys.stderr)
        raise SystemExit(_BAD_INPUT)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns 0, 1 when a verification failed, 2 for bad input."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except InputError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return _BAD_INPUT
    except (TliError, OSError) as error:  # a full disk, a torn network
        print(f"error: {error}", file=sys.stderr)
        return _WRONG
    except KeyboardInterrupt:
        return _INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="tli",
        description="Grow a pretrained causal language model deeper by injecting layers.",
        epilog="example:\n  tli upscale builtin:tiny-llama deeper/ --k 4 --init identity --verify",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _plan_command(commands)
    _upscale_command(commands)
    _verify_command(commands)
    _inspect_command(commands)
    return parser


def _command(
    commands: argparse._SubParsersAction[_Parser],
    run: Callable[[argparse.Namespace], int],
    text: str,
    example: str,
) -> _Parser:
    name = run.__name__.lstrip("_")
    parser = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=f"example:\n{example}",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _plan_command(commands: argparse._SubParsersAction[_Parser]) -> None:
    example = "  tli plan builtin:tiny-llama --k 3\n  tli plan --depth 32 --k 4 --json > plan.json"
    parser = _command(
        commands, _plan, "show which layers a deeper model would have; reads no weights", example
    )
    parser.add_argument("model", nargs="?", help="a folder, a hub id or builtin:tiny-llama; adds its costs")
    parser.add_argument("--depth", type=int, help="number of layers, instead of a model")
    _injection_options(parser)
    _model_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _upscale_command(commands: argparse._SubParsersAction[_Parser]) -> None:
    example = (
        "  tli upscale builtin:tiny-llama deeper/ --k 4 --init identity --verify\n"
        "  python -c \"from transformers import AutoModelForCausalLM as A; A.from_pretrained('deeper/')\""
    )
    text = "write the deeper model of SRC to the new folder DST, without loading it"
    parser = _command(commands, _upscale, text, example)
    parser.add_argument("src", metavar="SRC", help="a folder, a hub id or builtin:tiny-llama")
    parser.add_argument("dst", metavar="DST", type=Path, help="a folder that does not exist yet")
    _injection_options(parser)
    _model_options(parser)
    parser.add_argument("--seed", type=int, default=0, help="of --init random (default 0)")
    parser.add_argument("--verify", action="store_true", help="prove the result, as `tli verify` does")


def _verify_command(commands: argparse._SubParsersAction[_Parser]) -> None:
    example = "  tli verify deeper/ && echo proven"
    text = f"prove that a written folder is what its {FILE} says; exit code 1 when it is not"
    parser = _command(commands, _verify, text, example)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="a folder that `tli upscale` wrote")
    parser.add_argument("--base", help=f"the base model, when it is not where {FILE} says")
    parser.add_argument("--no-load", action="store_true", help="compare bytes only; do not run the model")
    _model_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _inspect_command(commands: argparse._SubParsersAction[_Parser]) -> None:
    example = "  tli inspect builtin:tiny-llama"
    parser = _command(commands, _inspect, "show what a model is and whether it can be upscaled", example)
    parser.add_argument("model", help="a folder, a hub id or builtin:tiny-llama")
    _model_options(parser)
    parser.add_argument("--fingerprint", action="store_true", help="read all files and print their hash")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _injection_options(parser: argparse.ArgumentParser) -> None:
    default = Injection()
    parser.add_argument("--k", type=int, default=default.k, help=f"layers in a set (default {default.k})")
    inits = ", ".join(INITS)
    parser.add_argument(
        "--init", default=default.init, help=f"first weights: {inits} (default {default.init})"
    )
    parser.add_argument(
        "--method", default=default.method, help=f"{' or '.join(METHODS)} (the unchanged control)"
    )
    scale = f"residual scale of --init damped, from 0 to 1 (default {default.scale})"
    parser.add_argument("--scale", type=float, default=default.scale, help=scale)


def _model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--revision", help="branch, tag or commit of a hub id")
    parser.add_argument("--allow-remote-code", action="store_true", help="accept a model that brings code")


def _plan(options: argparse.Namespace) -> int:
    if (options.model is None) == (options.depth is None):
        got = "neither a model nor --depth" if options.model is None else "both a model and --depth"
        raise InputError(Problem("plan", got, "one of them", "tli plan builtin:tiny-llama"))
    problems: list[Problem] = []
    base = _tried(problems, lambda: _found(options, options.model)) if options.model else None
    if base and options.method != "none":
        problems += _obstacles(base)
    decided = _decided(options, base.facts.depth if base else options.depth, problems)
    value = decided.to_json()
    lines = [str(decided), f"new stack: {_stack(decided)}"]
    if base and decided.injected:
        price = cost(base, decided, sequence_length=1, batch_tokens=1)
        before = base.facts.parameters
        value |= {
            "base": base.name,
            "parameters": price.parameters,
            "injected_parameters": price.injected_parameters,
        }
        lines += [f"parameters: {before:,} -> {price.parameters:,} ({price.parameters / before - 1:+.1%})"]
    print(json.dumps(value, indent=2) if options.json else "\n".join(lines))
    return 0


def _upscale(options: argparse.Namespace) -> int:
    problems = aside.taken(options.dst)
    base = _tried(problems, lambda: _found(options, options.src))
    decided = _decided(options, base.facts.depth if base else None, problems)
    assert base is not None, "a base that was not found is a problem, and problems were raised"
    from tli.upscale import upscale_folder

    started = time.monotonic()
    upscale_folder(base, options.dst, decided, seed=options.seed, progress=_progress)
    seconds = time.monotonic() - started
    print(f"{options.dst}: {decided}; {_megabytes(base, options.dst)} in {seconds:.1f} s", file=sys.stderr)
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
        print(json.dumps(value, indent=2))
    else:
        for name, item in value.items():
            print(f"{name:12} {item:,}" if isinstance(item, int) else f"{name:12} {item or '-'}")
    return 0


def _found(options: argparse.Namespace, model: str) -> Base:
    return find(model, revision=options.revision, allow_remote_code=options.allow_remote_code)


def _obstacles(base: Base) -> list[Problem]:
    """Why layers cannot be injected into this model; empty when they can."""
    problems: list[Problem] = []
    family = _tried(problems, lambda: family_of(base.facts.model_type))
    return refusals(family, base.config) if family else problems


def _tried(problems: list[Problem], step: Callable[[], T]) -> T | None:
    """The result of a step; its problems go to the others, so that all are told at once."""
    try:
        return step()
    except InputError as error:
        problems.extend(error.problems)
        return None


def _decided(options: argparse.Namespace, depth: int | None, problems: list[Problem]) -> Plan:
    """The plan for these options, or one InputError with its problems and those found before."""
    injection = Injection(options.method, options.k, options.init, options.scale)
    if depth is not None and depth < 1:
        problems.append(Problem("--depth", str(depth), "a model of at least 1 layer"))
        depth = None
    problems += [
        dataclasses.replace(problem, where=problem.where.replace("injection.", "--"))
        for problem in injection_problems(injection, depth)
    ]
    if problems or depth is None:
        raise InputError(*problems)
    return plan_for(injection, depth)


def _stack(decided: Plan) -> str:
    """`0 1 2 3 [3] 4 ...`: the old layer behind each new one, injected ones in brackets."""
    new = set(decided.injected)
    return " ".join(f"[{source}]" if i in new else str(source) for i, source in enumerate(decided.sources))


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        bar = "#" * (30 * done // max(total, 1))
        print(
            f"\r[{bar:30}] {done / 1e6:,.1f} of {total / 1e6:,.1f} MB", end=end, file=sys.stderr, flush=True
        )


def _megabytes(base: Base, folder: Path) -> str:
    written = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return f"{base.checkpoint.nbytes / 1e6:,.1f} -> {written / 1e6:,.1f} MB"


def _verified(folder: Path, base: Base, *, load: bool, as_json: bool) -> int:
    from transformers.utils import logging

    from tli.verify import verify_folder

    logging.set_verbosity_error()  # what it has to say about loading is in the report
    logging.disable_progress_bar()
    report = verify_folder(folder, base, load=load)
    if as_json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        for check in report.checks:
            print(f"{'ok' if check.ok else 'FAILED':7} {check.name:11} {check.detail}")
        report.require()
    return 0 if report.ok else _WRONG


if __name__ == "__main__":
    sys.exit(main())
