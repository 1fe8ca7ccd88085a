"""The command that scores a model on downstream tasks: `tli eval`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from tli.cli.console import print_json
from tli.cli.models import found
from tli.errors import InputError, Problem
from tli.tasks.available import Wanted
from tli.tasks.scores import TaskScore
from tli.terminal import printable

_OPTIONS = {"tasks": "--tasks", "shots": "--shots", "tasks_from": "--tasks-from", "limit": "--limit"}


def _eval(options: argparse.Namespace) -> int:
    from tli.models.loading import quieten
    from tli.tasks.checks import task_problems
    from tli.tasks.harness import evaluate_tasks

    names = tuple(name.strip() for name in options.tasks.split(",") if name.strip())
    wanted = Wanted(names, options.shots, options.limit, options.tasks_from)
    problems = [*_amounts(options, names)] or [*map(_as_option, task_problems(wanted))]
    try:
        base = found(options, options.model)
    except InputError as error:
        problems = [*error.problems, *problems]
    if problems:
        raise InputError(*problems)
    quieten()
    scores = []
    if not options.json:
        print(_header(wanted.names))
    for score in evaluate_tasks(base, wanted, batch=options.batch):
        scores.append(score)
        if not options.json:
            print("\n".join(_lines(score, wanted.names)), flush=True)
    if options.json:
        print_json({"model": base.name, "tasks": [score.to_json() for score in scores]})
    return 0


def _amounts(options: argparse.Namespace, names: Sequence[str]) -> Iterator[Problem]:
    if not names:
        yield Problem("--tasks", repr(options.tasks), "names of tasks", "--tasks kobest_copa")
    for name, least in (("shots", 0), ("limit", 1), ("batch", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            yield Problem(f"--{name}", str(value), f"a whole number of at least {least}", f"--{name} {least}")


def _as_option(problem: Problem) -> Problem:
    """A problem at its option, and so is a remedy that names one."""
    name, bracket, _ = problem.where.partition("[")
    remedy = problem.remedy
    for setting, option in _OPTIONS.items():
        remedy = remedy.replace(f"{setting}: ", f"{option} ")
    return replace(
        problem, where=_OPTIONS.get(name if bracket else problem.where, problem.where), remedy=remedy
    )


def _width(names: Sequence[str]) -> int:
    return max(map(len, ("task", *names)))


def _header(names: Sequence[str]) -> str:
    columns = f"{'metric':8}  {'score':>7}  {'stderr':>7}  {'chance':>7}  {'documents':>9}  seconds"
    return f"{'task':{_width(names)}}  {columns}"


def _lines(score: TaskScore, names: Sequence[str]) -> Iterator[str]:
    """A line for each metric; what is said of the task alone stands in the first."""
    for index, (name, metric) in enumerate(score.metrics.items()):
        error = "-" if metric.stderr is None else f"{metric.stderr:.4f}"
        guess = f"{score.chance:.4f}" if score.chance is not None and name == "acc" else "-"
        last = f"{score.count:9}  {score.seconds:7.1f}" if index == 0 else ""
        task = score.task if index == 0 else ""
        line = f"{task:{_width(names)}}  {name:8}  {metric.value:7.4f}  {error:>7}  {guess:>7}  {last}"
        yield printable(line.rstrip())


RUNS: Mapping[str, Callable[[argparse.Namespace], int]] = {"eval": _eval}
