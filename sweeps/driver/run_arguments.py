"""The arguments of `run`: their types and names, and the spec that they stand for."""

from __future__ import annotations

import os
from typing import Literal, get_args

from sweeps.driver.watchers import WATCHER
from sweeps.errors import InputError, Problem, SpecError
from sweeps.spec import Spec, load_spec
from sweeps.spec.source import Overrides
from sweeps.wording import formatted, nearest
from tli.argument_types import FLAG, STRING, Kind, type_problems

Runner = Literal["ray", "inline"]
_SPEC = Kind("a Spec, a YAML file, or the name of a packaged spec", '"quickstart"', (Spec, str, os.PathLike))


def argument_problems(watcher: object, runner: object, address: object, extend: object) -> list[Problem]:
    """What is wrong with how a sweep is to be run, beside its spec."""
    problems = type_problems(
        {
            "watcher": (watcher, WATCHER.optional),
            "address": (address, STRING.optional),
            "extend": (extend, FLAG),
        }
    )
    runners = get_args(Runner)
    if runner not in runners:
        near = nearest(str(runner), runners) or ""
        problems.append(Problem("runner", repr(runner), f"one of {', '.join(runners)}", near))
    return problems


def read(
    spec: Spec | str | os.PathLike[str],
    overrides: Overrides,
    runs: str | os.PathLike[str] | None,
    problems: list[Problem],
) -> Spec:
    """The spec itself, or what stands under its name.

    Raises:
        SpecError: with the problems of how it is run and those in the spec.
    """
    wrong = type_problems({"spec": (spec, _SPEC)})
    problems = [*problems, *wrong]
    if isinstance(spec, Spec):
        given = {"overrides": overrides or None, "runs": runs}
        expected = "none beside a Spec, which has all settings"
        problems += [
            Problem(name, formatted(str(value)), expected, f"sweeps.load_spec with {name}")
            for name, value in given.items()
            if value is not None
        ]
    elif not wrong:
        try:
            spec = load_spec(spec, overrides=overrides, runs=runs)
        except InputError as error:
            problems += error.problems
    if problems:
        raise SpecError(*problems)
    assert isinstance(spec, Spec), "one that could not be read is a problem"
    return spec
