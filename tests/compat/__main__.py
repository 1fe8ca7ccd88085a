"""`python -m tests.compat`: the tests of the two folders that use private parts of Optuna and of Ray, under the
oldest and the newest version of each that `pyproject.toml` allows and the package index has.

`python -m tests.compat optuna` tries one package, `optuna==4.9.0 ray==2.50.0` other versions, in the range or not.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from tests.compat.environments import Environment, Run
from tests.compat.versions import ROOT, ends, on_index, requirement

PLACE = ROOT / "build" / "compat"
# By package: the tests of the folder that may use its private parts, and of what stands right upon it.
FILES = {
    "optuna": (
        "ledger", "mirror", "lease", "sampling", "stopping", "others", "retrying", "looking", "ownership", "agenda",
    ),
    "ray": ("tuner", "placing", "runners", "submission", "jobs", "cluster_checks", "temp_dirs", "secrets"),
}  # fmt: skip
ALL = ("-m", "not gpu")  # the slow ones too: some alone look at a cluster that runs
_NAMED = 12  # failures of one version


def main(words: Sequence[str] | None = None) -> int:
    """Returns 1 when a test failed under some version, or none ran; 2 when there is no such version."""
    parser = argparse.ArgumentParser(prog="python -m tests.compat", description=__doc__)
    parser.add_argument(
        "packages", nargs="*", metavar="PACKAGE[==VERSION]", help=f"all of {', '.join(FILES)}"
    )
    parser.add_argument("--pytest", default="", metavar="ARGS", help="arguments for pytest, in one word")
    options = parser.parse_args(words)
    try:
        environments = [each for word in options.packages or FILES for each in environments_of(word)]
    except (LookupError, InvalidRequirement) as error:
        parser.error(str(error.args[0] if error.args else error))
    runs = []
    for environment in environments:
        print(f"{environment.folder.name}: installing", flush=True)
        runs.append(tried(environment, shlex.split(options.pytest)))
        print(f"{environment.folder.name}: {'passed' if runs[-1].ok else 'FAILED'}", flush=True)
    print(table(runs))
    return 0 if all(run.ok for run in runs) else 1


def environments_of(word: str, place: Path = PLACE) -> list[Environment]:
    """The environments for a package (both ends of its range) or for one version of it.

    Raises:
        LookupError: there is no such package here, or no such version.
    """
    named = Requirement(word)
    if named.name not in FILES:
        raise LookupError(f"{word}: expected one of {', '.join(FILES)}")
    wanted = requirement(named.name)
    asked = Requirement(f"{wanted.name}{named.specifier or wanted.specifier}")
    return [Environment(place, wanted, version) for version in ends(asked, on_index(wanted.name))]


def tried(environment: Environment, more: Sequence[str] = ()) -> Run:
    """What the tests say in an environment that is made for it."""
    package = environment.wanted.name
    try:
        environment.make()
    except RuntimeError as error:
        return Run(package, environment.version, environment.log, failures=[str(error)])
    return environment.test([f"tests/sweeps/test_{name}.py" for name in FILES[package]], [*ALL, *more])


def table(runs: Sequence[Run]) -> str:
    """A row a version, then the tests that failed."""
    lines = [
        f"\n{'package':<10}{'version':<10}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}  installed"
    ]
    for run in runs:
        counts = run.counts
        figures = f"{counts['passed']:>8}{counts['failed']:>8}{counts['skipped']:>9}{run.seconds:>9.0f}"
        own = ", ".join(f"{name} {version}" for name, version in sorted(run.installed.items()))
        lines.append(f"{run.package:<10}{run.version:<10}{figures}  {own}")
    for run in runs:
        named = f"{run.package} {run.version}"
        lines += [f"{named}: {failure}" for failure in run.failures[:_NAMED]]
        if len(run.failures) > _NAMED:
            lines.append(f"{named}: and {len(run.failures) - _NAMED} more, in {run.log}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
