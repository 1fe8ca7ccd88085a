"""The trial of other versions: ranges are read from the project, and a version that breaks tests is seen."""

from __future__ import annotations

import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.compat.__main__ import FILES, PLACE, environments_of, main, table
from tests.compat.environments import Environment, Run
from tests.compat.versions import ROOT, ends, requirement

PROJECT = """
[project]
name = "any"
dependencies = ["torch>=2"]
[project.optional-dependencies]
sweeps = ["thing[a,b]>=1.2,<2"]
"""


def test_the_range_is_the_one_of_the_project(tmp_path: Path) -> None:
    project = tmp_path / "pyproject.toml"
    project.write_text(PROJECT)
    found = requirement("thing", project)
    assert (found.extras, str(found.specifier)) == ({"a", "b"}, "<2,>=1.2")
    with pytest.raises(LookupError, match="other"):
        requirement("other", project)
    for package in FILES:
        assert requirement(package).specifier.contains(version(package))


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("thing>=1.2,<2", ["1.2.0", "1.10.1"]),  # 1.10 is newer than 1.9, and no release candidate counts
        ("thing>=1.10", ["1.10.1", "2.0"]),
        ("thing==1.9", ["1.9"]),
    ],
)
def test_both_ends_of_a_range(wanted: str, found: list[str]) -> None:
    assert ends(Requirement(wanted), ["1.9", "2.0", "1.10.1", "1.2.0", "1.1", "3.0rc1"]) == found


def test_a_range_that_the_index_has_nothing_of() -> None:
    with pytest.raises(LookupError, match="thing>=4"):
        ends(Requirement("thing>=4"), ["3.0"])


@pytest.mark.parametrize("word", ["numpy", "optuna=5", "optuna @"])
def test_what_is_not_tried_is_refused(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main([word])
    assert refused.value.code == 2
    assert word.split(maxsplit=1)[0] in capsys.readouterr().err


def test_the_files_that_are_run_are_there() -> None:
    assert [
        name
        for names in FILES.values()
        for name in names
        if not (ROOT / f"tests/sweeps/test_{name}.py").exists()
    ] == []
    assert PLACE.is_relative_to(ROOT / "build")  # which git ignores and `make clean` removes


def test_both_versions_of_a_range_are_tried_each_in_its_own_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.compat.__main__.on_index", lambda _: ["2.0.0", version("ray"), "999.0"])
    upper = environments_of("ray")[-1]
    assert upper.wanted.extras == requirement("ray").extras
    assert [each.folder.name for each in environments_of("ray==2.0.0")] == ["ray-2.0.0"]


def wheel(folder: Path, version: str) -> None:
    """A package `sweepsthing` whose one number is its version's first."""
    info = f"sweepsthing-{version}.dist-info"
    with zipfile.ZipFile(folder / f"sweepsthing-{version}-py3-none-any.whl", "w") as packed:
        packed.writestr("sweepsthing.py", f"NUMBER = {version[0]}\n")
        packed.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: sweepsthing\nVersion: {version}\n")
        packed.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        packed.writestr(f"{info}/RECORD", "")


def test_another_version_is_tried_over_the_shared_packages_and_leaves_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version 1 is shared; under version 2 one test of two fails. The shared folder is not touched."""
    shared = tmp_path / "site-packages"
    shared.mkdir()
    for number in ("1.0", "2.0"):
        wheel(tmp_path, number)
    zipfile.ZipFile(tmp_path / "sweepsthing-1.0-py3-none-any.whl").extractall(shared)
    before = {path: path.stat().st_mtime_ns for path in shared.rglob("*")}
    monkeypatch.setattr(sys, "path", [*sys.path, str(shared)])
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    tests = tmp_path / "test_thing.py"
    tests.write_text(
        "import sweepsthing, tli, packaging\n"
        "def test_here(): assert sweepsthing.NUMBER == 2\n"
        "def test_old(): assert sweepsthing.NUMBER == 1\n"
    )
    environment = Environment(tmp_path / "compat", Requirement("sweepsthing"), "2.0")
    environment.make()
    run = environment.test([str(tests)], ["--rootdir", str(tmp_path), "-c", "/dev/null"])
    assert run.installed == {"sweepsthing": "2.0"}
    assert (run.counts, run.ok) == ({"passed": 1, "failed": 1, "skipped": 0}, False)
    assert run.failures == ["test_thing::test_old"]
    assert {path: path.stat().st_mtime_ns for path in shared.rglob("*")} == before
    same = Environment(tmp_path / "compat", Requirement("sweepsthing"), "1.0")
    same.make()
    assert same.installed() == {"sweepsthing": "1.0"}
    with pytest.raises(RuntimeError, match=r"sweepsthing==3\.0"):
        Environment(tmp_path / "compat", Requirement("sweepsthing"), "3.0").make()


def test_a_run_without_a_test_is_none_that_passed() -> None:
    assert not Run("ray", "1.0", Path("log.txt")).ok
    run = Run("ray", "1.0", Path("log.txt"), failures=[f"a::test_{number}" for number in range(20)])
    assert not run.ok
    head, row, *failures = table([run]).strip().splitlines()
    assert head.split()[:4] == ["package", "version", "passed", "failed"]
    assert row.split() == ["ray", "1.0", "0", "0", "0", "0"]
    assert failures[0] == "ray 1.0: a::test_0"
    assert failures[-1] == "ray 1.0: and 8 more, in log.txt"
