"""The model that a command is about: found, what stands against growing it, and a written one proved."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from typing import TypeVar

from tli.architectures.config import section_of
from tli.architectures.lookup import family_of, refusals
from tli.cli.arguments import as_option
from tli.cli.console import print_json
from tli.cli.usage import FAILED
from tli.errors import InputError, Problem
from tli.growth.folders import tried
from tli.growth.verify_report import Report
from tli.models.base import Base, find
from tli.models.descriptions import find_or_described
from tli.terminal import printable

T = TypeVar("T")
_LOG = logging.getLogger(__name__)


def found(options: argparse.Namespace, model: str, *, weights: bool = True) -> Base:
    """The model of this name or folder; its packaged description will do where no weights are needed.

    Raises InputError.
    """
    ways = find if weights else find_or_described
    base = ways(model, revision=options.revision, allow_remote_code=options.allow_remote_code)
    _LOG.debug("%s is in %s: %s, %s layers", model, base.folder, base.facts.model_type, base.facts.depth)
    return base


def obstacles(base: Base) -> list[Problem]:
    """Why layers cannot be injected into this model; empty when they can."""
    problems: list[Problem] = []
    family = tried(problems, lambda: family_of(base.facts.model_type))
    return refusals(family, section_of(base.config)) if family else problems


def at_options(step: Callable[[], T], *renamed: str) -> T:
    """The result of a step, its problems placed at options (`as_option`)."""
    try:
        return step()
    except InputError as error:
        raise InputError(*[as_option(problem, *renamed) for problem in error.problems]) from None


def verified(proof: Callable[[], Report], *, as_json: bool) -> int:
    """Make a proof, print its report, and give the exit code."""
    from tli.models.loading import quieten

    quieten()  # what transformers has to say about loading is in the report
    report = proof()
    if as_json:
        print_json(report.to_json())
    else:
        for check in report.checks:
            print(printable(f"{'ok' if check.ok else 'FAILED':7} {check.name:11} {check.detail}"))
        report.require()
    return 0 if report.ok else FAILED
