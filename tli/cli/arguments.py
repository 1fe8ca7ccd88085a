"""The options of the command `tli`, and what they say about an injection."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from tli.cli.console import Parser, add_general_options, path
from tli.errors import Problem
from tli.models.lineage import FILE
from tli.planning.experts import Experts
from tli.planning.injection import IDENTITIES, INITS, METHODS, PLACES, RENAMED, RULES, SOURCES, Injection

if TYPE_CHECKING:
    from tli.growth.folders import PlanKeywords

_Commands = Any  # argparse names no type for what holds subcommands

# What an option is called where the setting's own name would not be understood alone.
OPTIONS = {f"experts.{item.name}": item.name for item in fields(Experts)}
OPTIONS |= {"experts.count": "experts", "experts.noise": "expert_noise"}


def parser() -> Parser:
    """The parser of the whole command; the name of the subcommand is in `command`."""
    made = Parser(
        prog="tli",
        description="Grow a pretrained causal language model deeper by injecting layers.",
        epilog="example:\n  tli upscale builtin:tiny-llama deeper/ --k 4 --init identity --verify\n\n"
        'completion in the shell:\n  eval "$(register-python-argcomplete sweeps tli)"',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_general_options(made)
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (_plan, _upscale, _verify, _inspect, _families, _eval):
        add(commands)
    return made


def settings_of(options: argparse.Namespace) -> PlanKeywords:
    """What was given of the settings of a plan, as `tli.upscale` takes them."""
    values = vars(options)
    given: dict[str, Any] = {name: values[name] for name in _SETTINGS if values[name] is not None}
    experts = {item.name: values[OPTIONS[f"experts.{item.name}"]] for item in fields(Experts)}
    experts = {name: value for name, value in experts.items() if value is not None}
    if experts:
        given["experts"] = Experts(**experts)
    return cast("PlanKeywords", given)


def as_option(problem: Problem, *renamed: str) -> Problem:
    """A problem as `tli` has it, placed at its option; so is a remedy that names a setting.

    Args:
        problem: with a setting of an injection, or of anything else.
        renamed: further places that are options of the same name.
    """
    where, remedy = problem.where, problem.remedy
    if where.startswith("injection."):
        where = _option(where.removeprefix("injection."))
    elif where in renamed:
        where = _option(where)
    if assigned := _ASSIGNED.fullmatch(remedy):
        remedy = f"{_option(assigned[1])} {assigned[2]}"
    return replace(problem, where=where, remedy=remedy)


def _option(setting: str) -> str:
    return f"--{OPTIONS.get(setting, setting)}".replace("_", "-")


_ASSIGNED = re.compile(r"(\w+)=(\w+)")  # as `method=dus` in a remedy
_SETTINGS = (*(item.name for item in fields(Injection) if item.name != "experts"), "text")


def _command(commands: _Commands, name: str, text: str, example: str) -> Parser:
    made: Parser = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=f"example:\n{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_general_options(made, below=True)
    return made


def _plan(commands: _Commands) -> Parser:
    example = "  tli plan builtin:tiny-llama --k 3\n  tli plan --depth 32 --method dus --m 8 --save plan.json"
    text = "show which layers a deeper model would have; reads no weights"
    made = _command(commands, "plan", text, example)
    made.add_argument("model", nargs="?", help="a folder, a hub id or builtin:tiny-llama; adds its costs")
    made.add_argument("--depth", type=int, help="number of layers, instead of a model")
    _injection_options(made)
    _model_options(made)
    made.add_argument("--save", type=path, metavar="FILE", help="write the plan there, for upscale --plan")
    made.add_argument("--json", action="store_true", help="print JSON")
    return made


def _upscale(commands: _Commands) -> Parser:
    example = (
        "  tli upscale builtin:tiny-llama deeper/ --k 4 --init identity --verify\n"
        "  python -c \"from transformers import AutoModelForCausalLM as A; A.from_pretrained('deeper/')\""
    )
    text = "write the grown model of SRC to the new folder DST, without loading it"
    made = _command(commands, "upscale", text, example)
    made.add_argument("src", metavar="SRC", help="a folder, a hub id or builtin:tiny-llama")
    made.add_argument("dst", metavar="DST", type=path, help="a folder that does not exist yet")
    made.add_argument("--plan", type=path, metavar="FILE", help="a saved plan, instead of the options below")
    _injection_options(made)
    _model_options(made)
    made.add_argument("--seed", type=int, default=0, help="of all that is drawn (default 0)")
    made.add_argument("--verify", action="store_true", help="prove the result, as `tli verify` does")
    return made


def _verify(commands: _Commands) -> Parser:
    text = f"prove that a written folder is what its {FILE} says; exit code 1 when it is not"
    made = _command(commands, "verify", text, "  tli verify deeper/ && echo proven")
    made.add_argument("folder", metavar="FOLDER", type=path, help="a folder that `tli upscale` wrote")
    made.add_argument("--base", help=f"the base model, when it is not where {FILE} says")
    made.add_argument("--no-load", action="store_true", help="compare bytes only; do not run the model")
    _model_options(made)
    made.add_argument("--json", action="store_true", help="print JSON")
    return made


def _inspect(commands: _Commands) -> Parser:
    text = "show what a model is and whether it can be upscaled"
    made = _command(commands, "inspect", text, "  tli inspect builtin:tiny-llama")
    made.add_argument("model", help="a folder, a hub id or builtin:tiny-llama")
    _model_options(made)
    made.add_argument("--fingerprint", action="store_true", help="read all files and print their hash")
    made.add_argument("--json", action="store_true", help="print JSON")
    return made


def _families(commands: _Commands) -> Parser:
    text = "list the architectures, and which injections they allow"
    made = _command(commands, "families", text, "  tli families qwen3 gemma2\n  tli families --json")
    shown = "as in config.json; all of them when none is named"
    _completed(made.add_argument("model_type", nargs="*", help=shown), _model_types)
    made.add_argument("--json", action="store_true", help="print JSON")
    return made


def _eval(commands: _Commands) -> Parser:
    example = (
        "  tli eval deeper/ --tasks kobest_copa,kobest_boolq --tasks-from kobest/\n"
        "  tli eval builtin:tiny-llama --tasks kobest --tasks-from kobest/ --shots 0 --limit 100"
    )
    text = "score a model on downstream tasks with lm-evaluation-harness (the extra `eval`)"
    made = _command(commands, "eval", text, example)
    made.add_argument("model", metavar="FOLDER", help="a folder, a hub id or builtin:tiny-llama")
    made.add_argument("--tasks", required=True, metavar="NAME,NAME", help="tasks; kobest: its five")
    made.add_argument(
        "--tasks-from", metavar="DIR", help="a folder of task files, or of KoBEST's official TSV files"
    )
    made.add_argument("--shots", type=int, default=5, help="solved examples before each document (default 5)")
    made.add_argument("--limit", type=int, help="documents of each task at most, the first ones")
    made.add_argument("--batch", type=int, help="documents at once (default: as many as fit, 16 at most)")
    _model_options(made)
    made.add_argument("--json", action="store_true", help="print JSON, with each document's result")
    return made


class _Renamed(argparse.Action):
    """An option of earlier versions: an error that names the one of today."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        parser.error(f"{self.option_strings[0]} is called --{RENAMED[self.dest].replace('_', '-')} now")


def _injection_options(made: Parser) -> None:
    default, no_experts = Injection(), Experts()
    group = made.add_argument_group("layers")
    add = group.add_argument
    named = partial(_one_of, group)
    named(
        "--method",
        METHODS,
        help=f"{', '.join(METHODS)} (default {default.method}; none: the unchanged control)",
    )
    add("--k", type=int, help=f"tli: layers in a set that gets a new one (default {default.k})")
    named("--place", PLACES, help=f"tli: where in its set, {', '.join(PLACES)} (default {default.place})")
    add("--layers", metavar="A:B", help="tli, repeat: only layers A to B, from 0, B excluded")
    add("--after", metavar="N,N", help="tli: a new layer after each of these, instead of --k")
    add(
        "--least-important-sets",
        type=int,
        help="tli: only so many sets, those that change the hidden state least",
    )
    add("--sets", action=_Renamed, help=argparse.SUPPRESS)
    add("--text", help="text that --least-important-sets measures on: builtin:stdlib, files by name or glob")
    add("--block", type=int, help="tli: layers injected together (default 1)")
    add("--m", type=int, help="dus: layers dropped from the end of one copy and the start of the other")
    add("--g", type=int, help=f"stack, repeat: how many times (default {default.g})")
    group = made.add_argument_group("first weights of new layers")
    add = group.add_argument
    named = partial(_one_of, group)
    named("--init", INITS, help=f"{', '.join(INITS)} (default identity for tli, copy for the others)")
    add("--scale", type=_scale, help=f"residual scale, from 0 to 1, or {' or '.join(RULES)}")
    named("--source", SOURCES, help=f"what copy, identity, damped start from: {', '.join(SOURCES)} (layers)")
    add("--noise", type=float, help="deviation of noise on top, relative to each matrix's own")
    named("--identity", IDENTITIES, help=f"{' or '.join(IDENTITIES)}, where a norm follows a sublayer")
    group = made.add_argument_group("experts (mixture of experts, after the layers)")
    add = group.add_argument
    add("--experts", type=int, help="feed-forward parts become so many experts (8 for --method moe)")
    add("--top-k", type=int, help=f"experts a token goes through (default {no_experts.top_k})")
    add(
        "--router-scale",
        type=float,
        help="deviation of the router, relative to the initialiser's (default 1)",
    )
    add("--drop", type=float, help="share of each expert's neurons that are drawn anew (default 0)")
    add("--expert-noise", type=float, help="deviation of noise on experts, relative (default 0)")
    add("--granularity", type=int, help="parts that each expert is cut into (default 1)")


def _one_of(group: argparse._ArgumentGroup, option: str, names: Sequence[str], **given: Any) -> None:
    """An option that the shell completes; another name is refused with all other problems, not here."""
    _completed(group.add_argument(option, **given), lambda **_: list(names))


def _completed(action: argparse.Action, completer: Callable[..., list[str]]) -> None:
    named: Any = action  # argcomplete looks for an attribute that argparse does not know
    named.completer = completer


def _model_types(**_: Any) -> list[str]:
    from tli.architectures.table import FAMILIES

    return [*FAMILIES]


def _scale(text: str) -> float | str:
    """A number where it is one; whether the rest is a rule is said with all other problems."""
    try:
        return float(text)
    except ValueError:
        return text


def _model_options(made: Parser) -> None:
    made.add_argument("--revision", help="branch, tag or commit of a hub id")
    made.add_argument("--allow-remote-code", action="store_true", help="accept a model that brings code")
