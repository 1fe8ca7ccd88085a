"""Tripwires: what the documents, the lock file and the cluster files promise is what the code has."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from docs.generate_reference import pages
from sweeps.cli.arguments import parser as sweeps_parser
from tli.cli.arguments import parser as tli_parser
from tli.data.dataset import EXTRA
from tli.training.recipe_checks import EXTRA as MOMENTS

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    path
    for place in ("*.md", "cluster/**/*.md", "dashboards/**/*.md", "docs/**/*.md", "tests/**/*.md")
    for path in ROOT.glob(place)
)
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(text: str, language: str) -> Iterator[str]:
    """The fenced code blocks of one language; "" for those that name none."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    yield from (block for named, block in fenced if named == language)


def shell_lines(path: Path) -> Iterator[list[str]]:
    """The commands in a document's shell blocks, one a line, as words; `console` blocks mark them with `$`."""
    text = path.read_text(encoding="utf-8")
    lines = [line for block in blocks(text, "sh") for line in block.replace("\\\n", " ").splitlines()]
    lines += [
        line[2:] for block in blocks(text, "console") for line in block.splitlines() if line.startswith("$ ")
    ]
    yield from (words for line in lines if (words := simple_command(line)))


def simple_command(line: str) -> list[str]:
    """The words of a line's first command, without what the shell does with its output."""
    words = shlex.split(line, comments=True)
    ends = [place for place, word in enumerate(words) if word in {">", "|", "&&", "||", ";", "&"}]
    return words[: min(ends, default=len(words))]


@cache
def parser(program: str) -> argparse.ArgumentParser:
    found = tli_parser() if program == "tli" else sweeps_parser({})
    assert isinstance(found, argparse.ArgumentParser)
    return found


def subcommands(program: str) -> set[str]:
    (action,) = (a for a in parser(program)._actions if isinstance(a, argparse._SubParsersAction))
    return set(action.choices)


def ours(words: list[str]) -> tuple[str, list[str]] | None:
    """The program and its arguments when a command line runs one of ours, directly or as a cluster job."""
    if words[:3] == ["ray", "job", "submit"] and "--" in words:
        words = words[words.index("--") + 1 :]
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    if words[:2] == ["python", "-m"]:
        words = words[2:]
    return (words[0], words[1:]) if words and words[0] in ("sweeps", "tli") else None


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_documents_are_commands_we_have(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for words in shell_lines(path):
        if words[0] == "make":
            asked = {word for word in words[1:] if "=" not in word}
            assert asked <= targets, words
        if (found := ours(words)) is not None:
            program, arguments = found
            try:
                parser(program).parse_args(arguments)
            except SystemExit:
                pytest.fail(f"{' '.join(words)}\n{capsys.readouterr().err}")


def test_the_readme_shows_real_commands_of_every_kind() -> None:
    shown = [found for words in shell_lines(ROOT / "README.md") if (found := ours(words))]
    assert {"run", "best", "export", "plan", "validate", "ui", "submit", "resume"} <= {
        arguments[0] for program, arguments in shown if program == "sweeps"
    }
    assert {"plan", "upscale", "verify"} <= {arguments[0] for program, arguments in shown if program == "tli"}


@pytest.mark.parametrize("program", ["sweeps", "tli"])
def test_the_readme_names_every_subcommand(program: str) -> None:
    prose = README.replace("```", "")
    named = set(re.findall(rf"{program} ([a-z]+)", prose)) | set(re.findall(r"`([a-z]+)`", prose))
    assert subcommands(program) - named == set()


@pytest.mark.parametrize("program", ["sweeps", "tli"])
def test_help_teaches_with_an_example(program: str) -> None:
    """Every subcommand's help ends in an example, and the example is a command line that we have."""
    (action,) = (a for a in parser(program)._actions if isinstance(a, argparse._SubParsersAction))
    for name, subparser in action.choices.items():
        examples = re.findall(rf"^ *{program} (.*)$", subparser.epilog or "", re.MULTILINE)
        assert examples, name
        for example in examples:
            arguments = simple_command(re.split(r" {3,}", example)[0])
            assert parser(program).parse_args(arguments) is not None
            assert arguments[0] == name


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_point_at_files_that_exist(path: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8"))
    local = [link for link in links if not re.match(r"[a-z]+:", link)]
    made = {ROOT / "docs" / page for page in pages()}  # when the documentation is built
    missing = [link for link in local if not (path.parent / link).exists()]
    assert [link for link in missing if (path.parent / link).resolve() not in made] == []


def test_the_readme_is_a_front_door() -> None:
    assert len(README.splitlines()) < 150
    assert len(list(blocks(README, "sh"))) >= 4
    assert "](cluster/README.md)" in README
    assert "](LICENSE)" in README


def tree() -> dict[str, set[str]]:
    """The names in the README's file tree by folder: its lines are names, two spaces or more, then what they are."""
    (block,) = (block for block in blocks(README, "") if block.startswith("tli/"))
    found: dict[str, set[str]] = {}
    folder = ""
    for line in block.splitlines():
        names = re.split(r" {2,}", line.strip())[0].split()
        if line.startswith(" "):
            found[folder] |= set(names)
        else:
            (folder,) = names
            found[folder] = set()
    return found


@pytest.mark.parametrize("package", ["tli", "sweeps"])
def test_the_file_tree_has_every_room_and_no_other(package: str) -> None:
    real = {path.stem for path in (ROOT / package).glob("*.py")} - {"__init__"}
    real |= {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
    real |= {path.parent.name for path in (ROOT / package).glob("*/*.yaml")}
    assert tree()[f"{package}/"] == real


def test_the_file_tree_has_every_folder() -> None:
    top = {"tli/", "sweeps/", "cluster/", "dashboards/", "docs/", "tests/", "tests/bench/"}
    assert set(tree()) == top
    assert [folder for folder in top if not (ROOT / folder).is_dir()] == []


@cache
def lock() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    wrong = [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)]
    assert wrong == [], "a lock line is NAME==VERSION: no hosts, no paths, no builds such as +cpu"
    names = [canonicalize_name(pin.split("==")[0]) for pin in pins]
    assert len(set(names)) == len(names)
    return dict(zip(names, (pin.split("==")[1] for pin in pins), strict=True))


def test_the_lock_is_within_the_ranges_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    # 8-bit moments are for large models on GPUs: nothing else needs their library, and the lock leaves it out.
    extras = {name: lines for name, lines in project["optional-dependencies"].items() if name != MOMENTS}
    asked = [*project["dependencies"], *(line for lines in extras.values() for line in lines)]
    requirements = [Requirement(line) for line in asked]
    assert {canonicalize_name(r.name) for r in requirements} >= {"torch", "ray", "optuna", "mlflow", "pytest"}
    outside = [
        str(requirement)
        for requirement in requirements
        if not requirement.specifier.contains(lock().get(canonicalize_name(requirement.name), "0"))
    ]
    assert outside == []


def test_make_lock_keeps_the_version_of_torch() -> None:
    (version,) = re.findall(
        r"^TORCH := (\S+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert lock()["torch"] == version


def test_ray_has_one_version_everywhere() -> None:
    """In the lock, and wherever a cluster file names an image, a package or a version field."""
    pattern = re.compile(
        r"(?:rayproject/ray[\w-]*:|\bray(?:\[[\w,-]+\])?==|rayVersion:\s*[\"']?)(\d+\.\d+\.\d+)"
    )
    texts = {
        path: path.read_bytes().decode(errors="replace")
        for path in (ROOT / "cluster").rglob("*")
        if path.is_file()
    }
    found = {
        (str(path.relative_to(ROOT)), version)
        for path, text in texts.items()
        for version in pattern.findall(text)
    }
    assert {(path, version) for path, version in found if version != lock()["ray"]} == set()
    assert pattern.findall('image: rayproject/ray:1.2.3-py311\nray[default]==4.5.6\nrayVersion: "7.8.9"') == [
        "1.2.3",
        "4.5.6",
        "7.8.9",
    ]


def test_every_library_that_is_imported_is_declared() -> None:
    """Of `tli` in the dependencies or the extra for text, of `sweeps` there or in its own extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]

    def names(*lists: list[str]) -> set[str]:
        return {canonicalize_name(Requirement(line).name) for each in lists for line in each}

    core = names(project["dependencies"], extras[EXTRA], extras[MOMENTS], extras["eval"])
    declared = {"tli": core, "sweeps": core | names(extras["sweeps"], extras["dataframe"])}
    called = {"yaml": "pyyaml", "lm_eval": "lm-eval"}
    imported = {
        (package, top)
        for package in declared
        for path in (ROOT / package).rglob("*.py")
        for top in re.findall(
            r"^ *(?:import|from) (\w+)[\w.]*(?: import| as|$)", path.read_text(), re.MULTILINE
        )
        if top not in sys.stdlib_module_names | {"tli", "sweeps"}
    }
    assert ("tli", "huggingface_hub") in imported
    assert {
        (package, top)
        for package, top in imported
        if canonicalize_name(called.get(top, top)) not in declared[package]
    } == set()


def test_extras_that_are_named_are_there() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    known = set(extras["optional-dependencies"])
    code = [path for package in ("tli", "sweeps") for path in (ROOT / package).rglob("*.py")]
    places = [*code, *DOCUMENTS, ROOT / "Makefile"]
    named = {
        (path.name, extra)
        for path in places
        for written in re.findall(r"(?:tli-sweeps|\.)\[([a-z,]+)\]", path.read_text(encoding="utf-8"))
        for extra in written.split(",")
    }
    assert {extra for _, extra in named} >= {"sweeps", "dev"}
    assert {(place, extra) for place, extra in named if extra not in known} == set()
    assert EXTRA in known
