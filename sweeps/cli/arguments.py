"""The options of the command `sweeps`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweeps.cli import completion
from sweeps.cli.run_options import REGISTER, Command, promotion, runner
from tli.cli.console import Parser, add_general_options, path
from tli.errors import Problem

_ARGUMENTS = frozenset(
    {
        "address",
        "at_most",
        "by",
        "control",
        "grown",
        "out",
        "ranks",
        "register",
        "runs",
        "study",
        "tokens",
        "tracking",
        "trial",
    }
)  # that are called so in the library


def parser(environment: Mapping[str, str]) -> Parser:
    """The parser of the whole command; the name of the subcommand is in `command`.

    Args:
        environment: where defaults may stand: SWEEPS_RUNS, RAY_ADDRESS, RAY_API_SERVER_ADDRESS. With the
            options go what it says of `usual_runs`, the folder that needs no `--runs`, and of `threads`.
    """
    made = Parser(
        prog="sweeps",
        description="Find the best way to grow a language model deeper, by a sweep that can be resumed.",
        epilog="Start here:\n  sweeps plan quickstart      what it would cost\n"
        "  sweeps run quickstart       run it; the same command again goes on where it stopped\n"
        "  sweeps export quickstart --out best/\n\n"
        "Completion in the shell:\n"
        '  eval "$(register-python-argcomplete sweeps tli)"',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_general_options(made)
    commands = made.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, text: str, example: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        runs = environment.get("SWEEPS_RUNS")
        usual, threads = Path(runs or "runs"), environment.get("OMP_NUM_THREADS")
        added.set_defaults(command=name, usual_runs=usual, threads=threads)
        add_general_options(added, below=True)
        shown = f"folder of all results (default: {runs or 'runs, or what the spec says'})"
        added.add_argument("--runs", metavar="DIR", default=runs, help=shown)
        return added

    _spec_commands(command, environment)
    _sweep_commands(command, environment)
    return made


def as_option(problem: Problem, options: argparse.Namespace) -> Problem:
    """A problem of the library, placed at the option that gave the argument."""
    if problem.where in _ARGUMENTS and getattr(options, problem.where, None) is not None:
        return replace(problem, where=f"--{problem.where.replace('_', '-')}")
    return problem


def _spec_commands(command: Command, environment: Mapping[str, str]) -> None:
    validate = command("validate", "check a spec, its base, data and resources", "sweeps validate my.yaml")
    plan = command(
        "plan",
        "print what a sweep would cost, before anything runs",
        "sweeps plan quickstart --calibrate",
    )
    plan.add_argument("--calibrate", action="store_true", help="train three steps here to estimate hours")
    run = command(
        "run",
        "run a sweep, or what is left of it",
        "sweeps run quickstart\n  sweeps run quickstart --set budget.trials=40     more trials, at any time\n"
        "  sweeps run quickstart --set finalists.seeds=8    more fresh seeds of its finalists",
    )
    run.add_argument(
        "--extend", action="store_true", help="allow a larger budget, or more fresh seeds, than the study has"
    )
    trial = command("trial", "run one trial in this process, for a debugger", "sweeps trial quickstart 1")
    submit = command(
        "submit",
        "run a sweep as a job of a Ray cluster",
        "sweeps submit quickstart --address http://head:8265",
    )
    for each in (validate, plan, run, trial, submit):
        spec = each.add_argument(
            "spec", metavar="SPEC", help="a YAML file, or a packaged spec such as quickstart"
        )
        _completed(spec, completion.specs)
        override = each.add_argument(
            "--set", metavar="PATH=VALUE", action="append", help="override one setting; repeatable"
        )
        _completed(override, completion.settings)
    trial.add_argument("number", metavar="N", type=int, help="number of the trial")
    trial.add_argument(
        "--out", metavar="DIR", type=path, help="new folder for what it writes (default: trial-N)"
    )
    trial.add_argument("--study", metavar="URL", help="the study's store, where it is not the sweep's own")
    runner(run, environment)
    for each in (validate, plan):
        each.add_argument("--address", metavar="ADDRESS", help="of the Ray cluster that is meant")
    for each in (validate, plan, run, trial):
        lines = "print JSON, one object a line for each measurement" if each is trial else "answer in JSON"
        each.add_argument("--json", action="store_true", help=lines)
    server = environment.get("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:8265")
    submit.add_argument(
        "--address", metavar="URL", default=server, help=f"of the jobs server (default: {server})"
    )
    submit.add_argument(
        "--working-dir", metavar="DIR", type=path, default=Path(), help="folder that the job is given"
    )
    submit.add_argument("--submission-id", metavar="ID", help="default: made from the sweep's name")
    submit.add_argument("--no-wait", action="store_true", help="do not follow the job's log")


def _resume_command(command: Command, environment: Mapping[str, str]) -> argparse.ArgumentParser:
    resume = command("resume", "go on with a sweep by its name", "sweeps resume quickstart --trials 40")
    resume.add_argument("--trials", metavar="N", type=int, help="raise the budget to N trials")
    resume.add_argument("--tokens", metavar="N", type=int, help="raise its limit of training tokens")
    resume.add_argument("--flops", metavar="X", type=float, help="raise its limit of FLOPs")
    resume.add_argument("--gpu-hours", metavar="X", type=float, help="raise its limit of GPU-hours")
    resume.add_argument("--wall", metavar="SECONDS", type=float, help="raise its limit of time")
    resume.add_argument("--seeds", metavar="N", type=int, help="raise the fresh seeds of the finalists to N")
    ladder = "run the finalists and the control again at these longer budgets of tokens, as 50M,200M"
    resume.add_argument("--ladder", metavar="TOKENS,...", help=ladder)
    rates = "raise the learning rates of the control to N, at most a quarter of the trials"
    resume.add_argument("--control-rates", metavar="N", type=int, help=rates)
    runner(resume, environment)
    return resume


def _sweep_commands(command: Command, environment: Mapping[str, str]) -> None:
    resume = _resume_command(command, environment)
    status = command(
        "status",
        "show how a sweep stands, and every trial of it",
        "sweeps status quickstart\n  sweeps status quickstart --follow    as it goes on, from any machine",
    )
    status.add_argument(
        "--follow",
        action="store_true",
        help="show it as it goes on, until it ends; with --json a line for each change, without the trials",
    )
    listed = command("list", "list the sweeps under the runs folder", "sweeps list")
    best = command("best", "show the answer, and all that it rests on", "sweeps best quickstart")
    results = command(
        "results",
        "print every trial, or every measurement, for a program or a spreadsheet",
        "sweeps results quickstart --csv > trials.csv\n  sweeps results quickstart --curves --json",
    )
    results.add_argument(
        "--csv",
        action="store_true",
        help="RFC 4180, empty where missing; a text that a spreadsheet would run begins with an apostrophe",
    )
    results.add_argument("--curves", action="store_true", help="one row a held-out measurement, not a trial")
    compare = command(
        "compare",
        "compare trials at equal steps, tokens, FLOPs and seconds",
        "sweeps compare quickstart my-sweep     the best of each, and both controls\n"
        "  sweeps compare quickstart --by injection.k\n"
        "  sweeps compare quickstart:7 quickstart:9\n"
        "  sweeps compare methods --format latex > methods.tex",
    )
    compared = compare.add_argument(
        "names", metavar="NAME[:N]", nargs="*", help="a sweep by its name or spec file, or its trial N"
    )
    _completed(compared, completion.sweeps)
    by = compare.add_argument(
        "--by",
        metavar="PATH",
        help="the best trial of each value of this setting (default: of each method, where that is searched)",
    )
    _completed(by, completion.trial_settings)
    written = compare.add_mutually_exclusive_group()
    written.add_argument(
        "--format",
        choices=("text", "md", "csv", "latex"),
        default="text",
        help="text: all tables; md, csv, latex: one table of methods, for a paper or a spreadsheet",
    )
    written.add_argument("--json", action="store_true", help="answer in JSON")
    export = command(
        "export",
        "write the model that the answer names as a folder",
        "sweeps export quickstart --out best/\n  sweeps export quickstart --grown --out grown/\n"
        "  sweeps export quickstart --at-most 1.3x --out cheap/",
    )
    export.add_argument("--out", metavar="DIR", type=path, required=True, help="new folder")
    which = export.add_mutually_exclusive_group()
    which.add_argument("--trial", metavar="N", type=int, help="this trial instead")
    which.add_argument(
        "--grown",
        action="store_true",
        help="the best grown model, also where the answer is the original, trained on",
    )
    export.add_argument(
        "--at-most",
        metavar="TIMES",
        help="the best that costs at most so many times what the original does, as 1.3x: FLOPs per token, or "
        "what the objective names",
    )
    export.add_argument("--register", **REGISTER)
    promote = promotion(command, environment)
    report = command(
        "report",
        "write the answer with its figures as one HTML page",
        "sweeps report quickstart --open\n  sweeps report quickstart --out answer.html",
    )
    report.add_argument(
        "--out", metavar="FILE", type=path, help="where to (default: report.html in the sweep's folder)"
    )
    report.add_argument("--force", action="store_true", help="replace a file that exists")
    report.add_argument("--open", action="store_true", help="open it in a browser")
    transfer = command(
        "transfer",
        "write a spec for a larger sibling of a sweep's base, with ranges narrowed by what was found",
        "sweeps transfer quickstart --base meta-llama/Llama-3.2-3B --out larger.yaml",
    )
    transfer.add_argument("--base", metavar="MODEL", required=True, help="a hub id or a folder")
    transfer.add_argument(
        "--out", metavar="FILE", type=path, help="where to (default: NAME-MODEL.yaml in this folder)"
    )
    transfer.add_argument("--force", action="store_true", help="replace a file that exists")
    ui = command("ui", "open MLflow and optuna-dashboard on a sweep's stores", "sweeps ui quickstart")
    ui.add_argument("--host", default="127.0.0.1", help="to listen on; 0.0.0.0 opens it to other machines")
    ui.add_argument(
        "--allowed-hosts",
        metavar="NAME,...",
        default="",
        help="names that this machine is known under elsewhere; its own are known",
    )
    ui.add_argument("--port", type=int, default=5000, help="of MLflow")
    ui.add_argument("--dashboard-port", type=int, default=8080, help="of optuna-dashboard")
    ui.add_argument("--open", action="store_true", help="open a browser")
    doctor = command("doctor", "check versions, cores, GPUs, disk, stores and cluster", "sweeps doctor")
    doctor.add_argument("--address", metavar="ADDRESS", help="of a Ray cluster")
    sync = command("sync", "rebuild what MLflow shows of a sweep", "sweeps sync quickstart")
    sync.add_argument(
        "--tracking",
        metavar="URI",
        help="another MLflow than the spec's: sqlite, http://..., postgresql://...",
    )
    for each in (resume, export, promote):
        each.add_argument("--tracking", metavar="URI", help="its MLflow, where the kept spec names a server")
    for each in (resume, status, best, results, export, promote, report, transfer, ui, sync):
        shown = "the sweep's name, or its spec file; may be left out where there is one sweep"
        _completed(each.add_argument("name", metavar="NAME", nargs="?", help=shown), completion.sweeps)
    for each in (resume, status, best, results, compare, export, promote, report, transfer, ui, sync, doctor):
        each.add_argument("--study", metavar="URL", help="the study's store, where it is not the sweep's own")
    for each in (resume, status, listed, best, results, export, promote, report, transfer, sync, doctor):
        each.add_argument("--json", action="store_true", help="answer in JSON")


def _completed(action: argparse.Action, completer: completion.Completer) -> None:
    """Have the shell complete an argument by this."""
    named: Any = action  # argcomplete looks for an attribute that argparse does not know
    named.completer = completer
