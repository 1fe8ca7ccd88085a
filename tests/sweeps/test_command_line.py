"""The two commands as programs: fast, complete in the shell, with a name that may be left out and JSON that is written down."""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeps.__main__ import main
from sweeps.cli import documents
from sweeps.cli.completion import setting_paths
from sweeps.spec.model import CATALOGUE
from sweeps.tracking.sync import Synced
from tests.sweeps.conftest import copied, ran_in
from tli.architectures.table import FAMILIES
from tli.cli import verbosity
from tli.cli.commands import main as tli
from tli.planning.injection import INITS

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs/reference/json.md").read_text(encoding="utf-8")
HEAVY = {
    "optuna",
    "sqlalchemy",
    "alembic",
    "numpy",
    "torch",
    "ray",
    "mlflow",
    "transformers",
    "plotly",
    "yaml",
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, save_model: Any) -> Path:
    """A folder with `tiny.yaml` and its sweep under `runs`. Shared: copy it."""
    root = tmp_path_factory.mktemp("command")
    ran_in(root, save_model(root / "model"), trials=4)
    return root


@pytest.fixture
def place(ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a copy of that sweep."""
    return copied(ran, tmp_path, monkeypatch)


@pytest.fixture(autouse=True)
def usual_log() -> Iterator[None]:
    """A command sets the log up for its own process, which is the tests' here."""
    yield
    for name in ("tli", "sweeps"):
        log = logging.getLogger(name)
        log.handlers.clear()
        log.setLevel(logging.NOTSET)
        log.propagate = True


def answered(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert main(list(words)) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


# -- speed ---------------------------------------------------------------------------------------------------------


def seconds(command: list[str], where: Path, times: int = 3) -> float:
    """Processor time of a command, user and system: the least of several runs."""
    spent = []
    for _ in range(times):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=where, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(spent)


# What is measured is divided by what a bare interpreter with a few modules of Python's own takes on the same machine
# at the same time; that is 0.05 s on the machine where 0.5 s was asked for.
@pytest.mark.parametrize(
    ("module", "words", "most"),
    [("sweeps", ["-h"], 4), ("tli", ["-h"], 4), ("sweeps", ["best", "tiny"], 14), ("sweeps", ["list"], 14)],
)
def test_an_answer_takes_a_few_times_what_python_takes(
    module: str, words: list[str], most: float, place: Path
) -> None:
    bare = seconds([sys.executable, "-c", "import argparse, dataclasses, json, inspect"], place)
    ours = seconds(
        [sys.executable, "-c", f"import sys; from {module}.__main__ import main; main()", *words], place, 3
    )
    assert ours / bare < most


@pytest.mark.parametrize("words", [["list"], ["status"], ["best", "tiny", "--json"]])
def test_looking_loads_nothing_heavy(words: list[str], place: Path) -> None:
    code = (
        "import json, sys; from sweeps.__main__ import main; code = main(sys.argv[1:]);"
        " print(); print(json.dumps([code, sorted(sys.modules)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=place, capture_output=True, text=True, check=True
    )
    returned, loaded = json.loads(done.stdout.splitlines()[-1])
    assert returned == 0
    assert {name.partition(".")[0] for name in loaded} & HEAVY == set()


# -- what may be left out ------------------------------------------------------------------------------------------

NAMED = (["status"], ["best"], ["compare"], ["resume", "--runner", "inline"], ["export", "--out", "grown"])


@pytest.mark.parametrize("words", NAMED, ids=lambda words: words[0])
def test_the_one_sweep_there_is_need_not_be_named(
    words: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0
    err = capsys.readouterr().err
    assert "note: tiny is taken, the one sweep in runs\n" in err


@pytest.mark.parametrize("words", [*NAMED, ["sync"], ["ui"]], ids=lambda words: words[0])
def test_one_of_several_is_named_or_else(
    words: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "runs/tiny", place / "runs/other")
    assert main(words) == 2
    err = capsys.readouterr().err
    assert (
        err
        == f"error: NAME: got nothing, and 2 sweeps in runs; expected one of other, tiny; try sweeps {words[0]} other\n"
    )
    assert main([*words, "--runs", "nowhere"]) == 2
    assert "no sweep in" in (err := capsys.readouterr().err)
    assert "sweeps run quickstart" in err
    assert not (place / "nowhere").exists()


# -- how much is said ----------------------------------------------------------------------------------------------


def test_quiet_prints_the_result_alone(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["best"]) == 0
    shown = capsys.readouterr().out
    for words in (["-q", "best"], ["best", "--quiet"]):
        assert main(words) == 0
        assert capsys.readouterr() == (shown, "")
    assert main(["run", "tiny.yaml", "--runner", "inline", "-q", "--json"]) == 0
    out, err = capsys.readouterr()
    assert (json.loads(out)["sweep"], err) == ("tiny", "")
    assert main(["-q", "best", "nothing"]) == 2
    assert capsys.readouterr().err.startswith("error: nothing: ")


def test_verbose_says_what_is_done_and_where_an_error_arose(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["-v", "best", "tiny"], ["best", "tiny", "--verbose"]):
        assert main(words) == 0
        assert re.search(
            r"^\d\d:\d\d:\d\d sweeps\.\S+: study 'tiny' in .*, read by SQL$",
            capsys.readouterr().err,
            re.MULTILINE,
        )
    assert main(["best", "nothing", "-v"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("error: nothing: ")
    assert main(["best", "nothing"]) == 2
    assert "Traceback" not in capsys.readouterr().err
    for words in (["-v", "-q", "best"], ["-v", "best", "-q"]):
        with pytest.raises(SystemExit):
            main(words)
        assert "not allowed with argument" in capsys.readouterr().err


def test_a_traceback_shows_no_secret(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    address = "postgresql://me:hunter2@127.0.0.1:1/sweeps"
    for words in (
        ["-v", "best", "tiny", "--study", address],
        ["validate", "tiny.yaml", "-v", "--set", f"storage.study={address}"],
    ):
        assert main(words) == 2
        out, err = capsys.readouterr()
        assert "hunter2" not in out + err
        assert "me:***@" in err


def test_tli_says_more_and_less(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["upscale", "model", "grown", "--k", "2"]
    assert tli([*words, "-v"]) == 0
    assert "growing model into grown" in capsys.readouterr().err
    shutil.rmtree("grown")
    assert tli(["-q", *words]) == 0
    assert capsys.readouterr() == ("", "")
    assert tli(["-q", *words]) == 2
    assert capsys.readouterr().err.startswith("error: grown: ")


@pytest.mark.parametrize("command", [main, tli], ids=["sweeps", "tli"])
def test_the_version_is_a_line(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command(["--version"])
    assert not stopped.value.code
    assert re.fullmatch(r"tli-sweeps \d\S* \(Python 3\.\d+\.\d+\)\n", capsys.readouterr().out)


def test_ray_speaks_when_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    from sweeps.driver.on_ray import tuner

    given: dict[str, Any] = {}
    monkeypatch.setattr(tuner.ray, "init", lambda **words: given.update(words))
    for level, said in ((verbosity.VERBOSE, True), (verbosity.USUAL, False), (verbosity.QUIET, False)):
        verbosity.set_up(level)
        tuner._init(address="local")
        assert (given["log_to_driver"], given["logging_level"] <= logging.INFO) == (said, said)


# -- mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "words", "meant"),
    [
        (main, ["bset"], "best"),
        (main, ["best", "--jsno"], "--json"),
        (main, ["best", "--js"], "--json"),  # no option is shortened, or a new one would break what works
        (main, ["plan", "tiny.yaml", "--calibarte"], "--calibrate"),
        (main, ["best", "--sutdy=x"], "--study=..."),
        (main, ["run", "tiny.yaml", "--runner", "inlin"], "inline"),
        (main, ["--verison", "best"], "--version"),
        (tli, ["inspct", "x"], "inspect"),
        (tli, ["plan", "--depth", "8", "--metod", "tli"], "--method"),
    ],
)  # fmt: skip
def test_what_was_meant_is_said(
    command: Any, words: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        command([*words, "--json"])
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert f"did you mean {meant}?" in err
    answer = json.loads(out)
    (problem,) = answer.pop("problems")
    assert problem["try"] == meant
    assert answer == {"schema": 2, "error": err.removeprefix("error: ").rstrip("\n")}


def test_a_fault_of_ours_answers_programs_too(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("could not open postgresql://me:s3cret@host/db")

    monkeypatch.setattr("sweeps.results.finding.find", broken)
    assert main(["status", "tiny", "--json"]) == 1
    out, err = capsys.readouterr()
    error = "RuntimeError: could not open postgresql://me:***@host/db"
    assert json.loads(out) == {"schema": 2, "error": error, "problems": []}
    assert err.startswith("Traceback")
    monkeypatch.setattr("tli.cli.model_commands.found", broken)
    with pytest.raises(RuntimeError):
        tli(["inspect", "x", "--json"])
    assert json.loads(capsys.readouterr().out)["error"].startswith("RuntimeError: ")


def test_words_that_steer_a_terminal_are_shown_as_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["best", "--\x1b[2J"])
    assert "\x1b" not in capsys.readouterr().err


# -- completion ----------------------------------------------------------------------------------------------------


def completed(line: str, where: Path) -> tuple[set[str], float]:
    """What the shell would offer at the end of a line, as argcomplete's own protocol has it; and processor time."""
    answer = where / "completions"
    module = line.partition(" ")[0]
    environment = {
        **{name: value for name, value in os.environ.items() if name not in ("SWEEPS_RUNS", "RAY_ADDRESS")},
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "PYTHONPATH": str(ROOT),
    }
    code = f"from {module}.__main__ import main; main()"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], cwd=where, env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {each.strip() for each in answer.read_text().split("\n") if each}, spent


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("sweeps exp", {"export"}),
        ("sweeps best ", {"tiny"}),
        ("sweeps best ti", {"tiny"}),
        ("sweeps best tiny.", {"tiny.yaml"}),
        ("sweeps status m", {"model/"}),
        ("sweeps best --js", {"--json"}),
        ("sweeps -v best --js", {"--json"}),
        ("sweeps run qui", {"quickstart", "quickstart-small"}),
        ("sweeps run ti", {"tiny.yaml"}),
        ("sweeps run tiny.yaml --runner ", {"ray", "inline"}),
        ("sweeps run tiny.yaml --set budget.t", {"budget.trials=", "budget.tokens="}),
        ("sweeps compare tiny --by injection.experts.c", {"injection.experts.count"}),
        ("tli ver", {"verify"}),
        ("tli plan --router", {"--router-scale"}),
        ("tli plan --depth 8 --init ", set(INITS)),
        ("tli upscale a b --method re", {"repeat"}),
        ("tli families qwen3_5", {name for name in FAMILIES if name.startswith("qwen3_5")}),
    ],
)
def test_the_shell_completes(line: str, offered: set[str], place: Path) -> None:
    found, spent = completed(line, place)
    assert found == offered
    bare = seconds([sys.executable, "-c", "import argparse, dataclasses, json, inspect"], place, 2)
    assert spent / bare < 7


def test_the_settings_that_are_completed_are_those_of_the_spec() -> None:
    assert set(setting_paths()) == {path for path, each in CATALOGUE.items() if not each.section}


# -- JSON ----------------------------------------------------------------------------------------------------------


def documented(heading: str) -> set[str]:
    """The keys in the table under a heading of the page."""
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        titles, _, body = section.partition("\n")
        if heading in titles.split(", "):
            return set(re.findall(r"^\| `([^`]+)` \|", body, re.MULTILINE))
    pytest.fail(f"no heading {heading}")


def keys(value: Any, known: set[str], path: str = "") -> Iterator[str]:
    """The keys of a document as the page writes them, down to where the page goes no further."""
    if isinstance(value, list):
        if any(each.startswith(f"{path}[]") for each in known):
            for each in value:
                yield from keys(each, known, f"{path}[]")
    elif isinstance(value, dict) and (not path or any(each.startswith(f"{path}.") for each in known)):
        for name, each in value.items():
            inner = f"{path}.{name}" if path else name
            yield inner
            yield from keys(each, known, inner)


def below_null(answer: Any, key: str) -> bool:
    """Whether a key is of something that is null here."""
    for name in key.split(".")[:-1]:
        answer = answer.get(name) if isinstance(answer, dict) else None
    return answer is None


def test_every_document_is_as_it_is_written_down(
    place: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found = {
        "sweeps validate": answered(capsys, "validate", "tiny.yaml", "--json"),
        "sweeps plan": answered(capsys, "plan", "tiny.yaml", "--json"),
        "sweeps run": answered(capsys, "run", "tiny.yaml", "--runner", "inline", "--json"),
        "sweeps resume": answered(capsys, "resume", "--runner", "inline", "--json"),
        "sweeps status": answered(capsys, "status", "--json"),
        "sweeps status --follow": answered(capsys, "status", "--follow", "--json"),
        "sweeps list": answered(capsys, "list", "--json"),
        "sweeps best": answered(capsys, "best", "--json"),
        "sweeps compare": answered(capsys, "compare", "--json"),
        "sweeps results": answered(capsys, "results", "--json"),
        "sweeps results --curves": answered(capsys, "results", "--curves", "--json"),
        "sweeps export": answered(capsys, "export", "--out", "grown", "--json"),
        "sweeps promote": answered(capsys, "promote", "--tokens", "4K", "--plan", "--json"),
        "sweeps sync": {"schema": 2, **documents.synced("tiny", Synced("sqlite:///mlflow.db", 4, 15, (1,)))},
        "an error": answered(capsys, "status", "nothing", "--json", code=2),
    }
    main(["doctor", "--json"])
    found["sweeps doctor"] = json.loads(capsys.readouterr().out)
    assert main(["trial", "tiny", "1", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) > 2
    found["sweeps trial"] = lines[-1]
    model = str(place / "model")
    for words in (
        ["plan", model, "--k", "2"],
        ["inspect", "grown", "--fingerprint"],
        ["families", "llama"],
        ["verify", "grown", "--no-load"],
    ):
        tli([*words, "--json"])
        found[f"tli {words[0]}"] = json.loads(capsys.readouterr().out)
    wrong = {}
    for heading, answer in found.items():
        known = documented(heading)
        there = set(keys(answer, known))
        missing = {each for each in known - there if "[]" not in each and not below_null(answer, each)}
        if there - known or missing:
            wrong[heading] = (there - known, missing)
        assert next(iter(answer)) == "schema", heading
        assert answer["schema"] == 2
    assert wrong == {}
    assert {each["trial"] for each in found["sweeps status"]["trials"]} >= {found["sweeps best"]["best"]}
    assert {answer["sweep"] for answer in found.values() if "sweep" in answer} == {"tiny"}
    assert set(found["sweeps run"]["verdict"]) == documented("sweeps best") - {"schema", "sweep"} - {
        each
        for each in documented("sweeps best")
        if "[]" in each or "." in each or each in ("progress", "promotions")
    }


def test_every_command_with_json_is_on_the_page() -> None:
    for module, parser in (("sweeps", "sweeps_parser"), ("tli", "tli_parser")):
        from sweeps.cli.arguments import parser as sweeps_parser
        from tli.cli.arguments import parser as tli_parser

        made = {"sweeps_parser": lambda: sweeps_parser({}), "tli_parser": tli_parser}[parser]()
        (commands,) = (each.choices for each in made._actions if isinstance(each.choices, dict))
        for name, command in commands.items():
            if "--json" in command._option_string_actions:
                assert documented(f"{module} {name}") >= {"schema"}
