"""All that keeps tasks from being evaluated on this machine, in one list."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tli.errors import InputError, Problem
from tli.tasks.available import Wanted, download, installed, local_problems, too_many, unknown_problems
from tli.tasks.harness import examples_of, known_tasks


def task_problems(wanted: Wanted, where: str = "tasks") -> list[Problem]:
    """Why these tasks cannot be evaluated on this machine.

    The harness is asked for tasks that are not KoBEST's official files, which takes it seconds, and
    may download their data.

    Args:
        wanted: names, shots and where their data is.
        where: what the names are called in problems; `shots` and `tasks_from` are called so beside it.
    """
    problems = local_problems(wanted, where)
    there = wanted.folder is None or wanted.folder.is_dir()
    return [*problems, *(_other_problems(wanted, where) if wanted.others and installed() and there else ())]


def _other_problems(wanted: Wanted, where: str) -> Iterator[Problem]:
    """What the harness says of tasks whose data it finds by itself."""
    known = known_tasks(wanted)
    yield from unknown_problems(wanted.others, known, wanted, where)
    for name in (each for each in wanted.others if each in known):
        try:
            count = examples_of(name, wanted)
        except InputError as error:
            remedy = download(name, wanted)
            yield from (replace(each, where=where, remedy=each.remedy or remedy) for each in error.problems)
            continue
        if wanted.shots > count:
            yield too_many(name, wanted, count, where)
