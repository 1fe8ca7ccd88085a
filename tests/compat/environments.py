"""A virtual environment with one package in another version; all else is shared with this one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import venv
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement

from tests.compat.versions import ROOT

OUTCOMES = ("passed", "failed", "skipped")


@dataclass
class Run:
    """What the tests said under one version."""

    package: str
    version: str
    log: Path  # of pip and pytest
    installed: dict[str, str] = field(default_factory=dict)  # in the environment's own folder, by name
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    failures: list[str] = field(default_factory=list)  # file::test, or why no test ran
    seconds: float = 0.0  # of the tests

    @property
    def ok(self) -> bool:
        """Whether tests ran and all of them passed."""
        return not self.failures and self.counts["passed"] > 0


def shared_folders() -> list[str]:
    """The folders of installed packages that this interpreter looks in."""
    return [place for place in sys.path if Path(place).name in ("site-packages", "dist-packages")]


class Environment:
    """A folder `PACKAGE-VERSION` with the environment, the log of its tests and their outcomes."""

    def __init__(self, place: Path, wanted: Requirement, version: str) -> None:
        """Make nothing yet.

        Args:
            place: where its folder is to be.
            wanted: the package, with the extras that are needed of it.
            version: of the package.
        """
        self.wanted, self.version = wanted, version
        self.folder = place / f"{wanted.name}-{version}"
        self.python = self.folder / "bin" / "python"
        self.log = self.folder / "log.txt"

    @property
    def _packages(self) -> Path:
        return self.folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"

    def make(self) -> None:
        """Make it anew: its own version first on the path, then this interpreter's packages, then the project.

        pip installs beside the package only those of its dependencies that the shared ones do not satisfy, and
        leaves the shared ones, which are outside the environment, where they are.

        Raises:
            RuntimeError: pip cannot install the version.
        """
        venv.create(self.folder, clear=True, with_pip=False)
        # After the environment's own folder on the path, for that is where this file is read.
        (self._packages / "shared.pth").write_text("\n".join([str(ROOT), *shared_folders()]) + "\n")
        extras = f"[{','.join(sorted(self.wanted.extras))}]" if self.wanted.extras else ""
        command = [sys.executable, "-m", "pip", "--python", str(self.python), "install", "--quiet"]
        command += ["--disable-pip-version-check", "--no-warn-script-location"]
        steps = (
            # Itself even where the shared version is this one: its programs lie beside the interpreter then.
            ["--ignore-installed", "--no-deps", f"{self.wanted.name}=={self.version}"],
            [f"{self.wanted.name}{extras}=={self.version}"],
        )
        with self.log.open("w") as log:
            for step in steps:
                if subprocess.run(
                    [*command, *step], stdout=log, stderr=subprocess.STDOUT, check=False
                ).returncode:
                    raise RuntimeError(f"pip cannot install {step[-1]}; log: {self.log}")

    def installed(self) -> dict[str, str]:
        """Versions of the packages that are in its own folder, by name."""
        found = distributions(path=[str(self._packages)])
        return {each.metadata["Name"]: each.version for each in found}

    def test(self, files: Sequence[str], more: Sequence[str] = ()) -> Run:
        """Run test files of the project in it, which `make` has made.

        Args:
            files: from the project's root.
            more: arguments for pytest.
        """
        report = self.folder / "outcomes.xml"
        report.unlink(missing_ok=True)
        command = [self.python, "-m", "pytest", "-q", f"--junitxml={report}", "-p", "no:cacheprovider"]
        search = os.pathsep.join([str(self.folder / "bin"), os.environ.get("PATH", os.defpath)])
        started = time.monotonic()
        with self.log.open("a") as log:
            code = subprocess.run(
                [*command, *more, *files],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**os.environ, "PATH": search},
                check=False,
            ).returncode
        run = Run(
            self.wanted.name, self.version, self.log, self.installed(), seconds=time.monotonic() - started
        )
        if report.exists():
            run.counts, run.failures = outcomes(report)
        if code and not run.failures:
            run.failures = [f"pytest ended with {code}: {self.log}"]
        return run


def outcomes(report: Path) -> tuple[dict[str, int], list[str]]:
    """How many tests of a JUnit report passed, failed and were skipped, and the names of those that failed."""
    counts, failures = dict.fromkeys(OUTCOMES, 0), []
    for case in ET.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"}:
            counts["failed"] += 1
            failures.append(f"{case.get('classname')}::{case.get('name')}")
        else:
            counts["skipped" if "skipped" in kinds else "passed"] += 1
    return counts, failures
