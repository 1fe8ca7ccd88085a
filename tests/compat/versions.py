"""The versions that `pyproject.toml` allows of a package, and which of them the package index has."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]


def requirement(package: str, pyproject: Path = ROOT / "pyproject.toml") -> Requirement:
    """What the project asks for of a package, with its extras and its range.

    Raises:
        LookupError: the project does not depend on it.
    """
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    extras = itertools.chain.from_iterable(project["optional-dependencies"].values())
    asked = map(Requirement, [*project["dependencies"], *extras])
    found = [each for each in asked if each.name == package]
    if not found:
        raise LookupError(f"{package}: not among the dependencies in {pyproject}")
    return found[0]


def ends(wanted: Requirement, versions: Iterable[str]) -> list[str]:
    """The oldest and the newest of these versions that a requirement allows; one, where they are the same.

    Raises:
        LookupError: it allows none of them.
    """
    allowed = sorted(wanted.specifier.filter(map(Version, versions)))
    if not allowed:
        raise LookupError(f"{wanted}: the package index has no such version for this Python")
    return list(dict.fromkeys(str(version) for version in (allowed[0], allowed[-1])))


def on_index(package: str) -> list[str]:
    """The released versions of a package that this Python can install, as pip finds them.

    Raises:
        LookupError: pip finds none, or no index.
    """
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "index", "versions", "--json"]
    asked = subprocess.run([*command, package], capture_output=True, text=True, check=False)
    if asked.returncode:
        said = asked.stderr.strip().splitlines() or ["pip gave up"]
        raise LookupError(f"{package}: {said[-1]}")
    versions: list[str] = json.loads(asked.stdout)["versions"]
    return versions
