"""The faces of the two packages: what they offer, at which price, and that every example in them runs."""

from __future__ import annotations

import csv
import doctest
import importlib
import inspect
import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import sweeps
import tli
from sweeps.__main__ import main
from sweeps.results.ranking import best_of, ranking
from sweeps.results.tables import TRIAL_COLUMNS
from tests.sweeps.conftest import SPEC
from tli.cli.commands import main as tli_main
from tli.errors import InputError

ROOT = Path(__file__).parent.parent
TLI = "plan grow upscale verify find load_model evaluate Plan Injection Experts Recipe Training InputError DivergedError __version__"
SWEEPS = (
    "run load_spec find compare export Spec Sweep Verdict TrialRecord InputError SpecError SweepError "
    "LedgerHeldError __version__"
)
HEAVY = {"torch", "transformers", "numpy", "pydantic", "yaml", "optuna", "ray", "mlflow", "pandas"}
PROGRAM = """
import tli
tli.upscale("my-model/", "grown/", k=4, init="identity")   # folder to folder
model = tli.load_model("my-model/")
deeper = tli.grow(model, tli.plan(model.config.num_hidden_layers, k=4))

import sweeps
sweep = sweeps.run("mine.yaml")
print(sweep.verdict.best, sweep.to_dataframe().head())
sweep.export("best/")
"""
_STARS = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
FACES = [(module, name) for module in (tli, sweeps) for name in module.__all__ if name != "__version__"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a text and a spec."""
    from tests.conftest import save_tiny_model

    folder = tmp_path_factory.mktemp("face")
    save_tiny_model(folder / "my-model")
    lines = (f"{n} bottles of beer on the wall, {n} bottles of beer.\n" for n in range(200))
    (folder / "text.txt").write_text("".join(lines))
    values = {"model": "my-model", "text": "text.txt", "trials": 4, "study": "sqlite", "runs": "runs"}
    (folder / "mine.yaml").write_text(SPEC.format(name="mine", tracking="null", **values))
    return folder


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def ran(here: Path) -> sweeps.Sweep:
    """The sweep, run once and then gone on with."""
    return sweeps.run("mine.yaml", runner="inline")


@pytest.mark.parametrize(("module", "names"), [(tli, TLI), (sweeps, SWEEPS)], ids=["tli", "sweeps"])
def test_a_face_offers_what_it_says_and_no_more(module: Any, names: str) -> None:
    assert sorted(module.__all__) == sorted(names.split())
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        assert getattr(module, name) is not None
    assert re.match(r"\d+\.\d+", module.__version__)


@pytest.mark.parametrize("package", ["tli", "sweeps"])
def test_importing_a_face_is_cheap(package: str) -> None:
    """In processor time: on a busy machine a clock on the wall tells of other programs."""
    code = (
        "import sys, time; started = time.process_time()\n"
        f"import {package}; took = time.process_time() - started\n"
        f"print(took, *sorted({HEAVY} & set(sys.modules)))"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
        ).stdout.split()
        for _ in range(3)
    ]
    assert min(float(each[0]) for each in told) < 0.1
    assert [each[1:] for each in told] == [[]] * 3


@pytest.mark.parametrize("package", ["tli", "sweeps", "sweeps.spec", "sweeps.ledger"])
def test_no_name_that_is_offered_late_is_a_module_of_the_package(package: str) -> None:
    """Importing that module would put it in the name's place."""
    folder = ROOT / package.replace(".", "/")
    modules = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert set(importlib.import_module(package).__all__) & modules == set()


def test_a_mistyped_name_is_answered_with_the_near_one() -> None:
    with pytest.raises(AttributeError, match="did you mean 'grow'"):
        tli.grwo  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(AttributeError, match="did you mean 'compare'"):
        sweeps.compere  # type: ignore[attr-defined]  # noqa: B018
    assert not hasattr(tli, "nothing_like_it")


def test_the_first_program_of_a_user(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = PROGRAM.replace('"mine.yaml"', '"mine.yaml", runner="inline"')
    scope: dict[str, Any] = {}
    exec(program, scope)
    best = scope["sweep"].verdict.answer.trial
    printed = capsys.readouterr().out
    assert printed.startswith(f"{best} ")
    assert "injection.k" in printed or "..." in printed
    assert tli.find("grown").facts.depth == scope["deeper"].config.num_hidden_layers == 5
    told = json.loads((here / "best/lineage.json").read_text())
    assert told["heldout_loss"] == {r.number: r.value for r in scope["sweep"].records}[best]


@pytest.mark.slow
@pytest.mark.ray
def test_the_first_program_on_ray(place: Path, tmp_path: Path) -> None:
    for name in ("my-model", "text.txt", "mine.yaml"):
        (tmp_path / name).symlink_to(place / name)
    spec = (tmp_path / "mine.yaml").read_text()
    (tmp_path / "mine.yaml").unlink()
    (tmp_path / "mine.yaml").write_text(spec.replace('"runs"', "runs"))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "best/lineage.json").is_file()


def test_upscale_reports_every_problem_as_the_command_does(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "taken").mkdir(exist_ok=True)
    with pytest.raises(InputError) as caught:
        tli.upscale("./nowhere", "taken", k=0, init="x", g=3, seed=-1)
    places = [problem.where for problem in caught.value.problems]
    assert places == ["taken", "seed", "model", "injection.g"]
    assert caught.value.problems[-1].remedy == "method=stack"
    command = ["upscale", "./nowhere", "taken", "--k", "0", "--init", "x", "--g", "3", "--seed", "-1"]
    assert tli_main(command) == 2
    told = capsys.readouterr().err
    assert [line.split(": ")[1] for line in told.splitlines()] == ["taken", "--seed", "model", "--g"]
    assert "--method stack" in told
    assert sorted(path.name for path in (here / "taken").iterdir()) == []


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"inti": "copy"}, "injection.inti"),
        ({"experts": 8}, "injection.experts"),
        ({"plan": 3}, "plan"),
        ({"plan": "nowhere.json"}, "nowhere.json"),
        ({"k": "4"}, "injection.k"),
        ({"method": ["tli"]}, "injection.method"),
        ({"seed": 1.5}, "seed"),
        ({"revision": "main"}, "revision"),
    ],
)
def test_upscale_refuses_what_it_cannot_read(here: Path, given: dict[str, Any], where: str) -> None:
    with pytest.raises(InputError) as caught:
        tli.upscale("my-model", "never", **given)
    assert [problem.where for problem in caught.value.problems] == [where]
    assert not (here / "never").exists()


def test_upscale_takes_paths_plans_and_their_files(here: Path, tmp_path: Path) -> None:
    plan = tli.plan(4, k=2, init="random")
    (tmp_path / "plan.json").write_text(json.dumps(plan.to_json()))
    given: list[Any] = [plan, tmp_path / "plan.json", str(tmp_path / "plan.json")]
    grown = [
        tli.upscale(here / "my-model", tmp_path / str(n), plan=each, seed=7) for n, each in enumerate(given)
    ]
    written = [(each.folder / "model.safetensors").read_bytes() for each in grown]
    assert written[0] == written[1] == written[2]
    assert os.fspath(grown[0]) == str(grown[0]) == str(tmp_path / "0")
    assert grown[0].plan == plan
    with pytest.raises(InputError, match="k too"):
        tli.upscale("my-model", "never", plan=plan, k=2)
    assert tli.verify(str(grown[0]), here / "my-model", load=False)
    assert not tli.verify(grown[0], "builtin:tiny-llama", load=False)


def test_verify_names_the_base_where_the_lineage_cannot(here: Path, tmp_path: Path) -> None:
    tli.upscale("my-model", tmp_path / "out", k=2)
    told = json.loads((tmp_path / "out/lineage.json").read_text())
    told["base"]["name"] = "./gone"
    (tmp_path / "out/lineage.json").write_text(json.dumps(told))
    with pytest.raises(InputError) as caught:
        tli.verify(tmp_path / "out")
    assert caught.value.problems[-1].remedy == "base=FOLDER"
    assert tli.verify(tmp_path / "out", "my-model", load=False)


def test_transformers_loads_what_upscale_returns(here: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    grown = tli.upscale("my-model", tmp_path / "out", k=2)
    assert AutoModelForCausalLM.from_pretrained(grown).config.num_hidden_layers == 6


def test_run_refuses_before_anything_is_written(here: Path) -> None:
    before = sorted(here.iterdir())
    with pytest.raises(InputError) as caught:
        sweeps.run("mien.yaml", runner="rya")  # type: ignore[arg-type]
    assert {problem.where: problem.remedy for problem in caught.value.problems} == {
        "runner": "ray",
        "mien.yaml": "mine.yaml",
    }
    spec = sweeps.load_spec("mine.yaml")
    with pytest.raises(InputError) as caught:
        sweeps.run(spec, overrides={"budget.trials": 3}, runs="elsewhere")
    assert [problem.where for problem in caught.value.problems] == ["overrides", "runs"]
    with pytest.raises(InputError, match="a value of type set"):
        sweeps.run("mine.yaml", overrides={"budget.trials": {1}})
    assert sorted(here.iterdir()) == before


def test_overrides_are_a_mapping_or_what_the_option_takes(here: Path) -> None:
    forms: list[Any] = [
        {"budget.trials": 9, "recipe": None} | {"trial.recipe.learning_rate": 1e-05},
        ["budget.trials=9", "trial.recipe.learning_rate=1e-05"],
    ]
    forms[0].pop("recipe")
    first, second = (sweeps.load_spec(Path("mine.yaml"), overrides=form, runs=Path("r")) for form in forms)
    assert first == second
    assert (first.budget.trials, first.trial.recipe.learning_rate, first.root) == (9, 1e-05, Path("r"))
    assert sweeps.load_spec("mine.yaml", overrides="budget.trials=9").budget.trials == 9


def test_a_run_without_a_watcher_is_silent_and_goes_on(
    ran: sweeps.Sweep,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trials, log = len(ran.records), logging.getLogger("sweeps")
    monkeypatch.setattr(log, "handlers", [])  # a command of an earlier test may have set them
    monkeypatch.setattr(log, "propagate", True)
    capfd.readouterr()
    with caplog.at_level(logging.INFO, logger="sweeps"):
        again = sweeps.run("mine.yaml", runner="inline", overrides={"budget.trials": 5})
    assert [record.number for record in again.records if record.budgeted] == [*range(4), trials]
    assert capfd.readouterr() == ("", "")


def test_a_sweep_prints_as_a_line_with_its_answer(ran: sweeps.Sweep) -> None:
    best = best_of(ran.verdict)
    assert best is not None
    told = f"Sweep mine, finished, {len(ran.records)} trials: trial {best.number} is the best"
    assert str(ran) == f"{told}, held-out loss {best.mean:.4f}"
    assert repr(ran) == f"<Sweep 'mine' in {str(ran.folders.sweep)!r}>"


def test_the_data_frame_has_every_trial_and_setting(ran: sweeps.Sweep) -> None:
    table, records, verdict = ran.to_dataframe(), ran.records, ran.verdict
    assert list(table.columns[: len(TRIAL_COLUMNS)]) == list(TRIAL_COLUMNS)
    assert {"injection.k", "injection.experts.count", "recipe.learning_rate"} <= set(table.columns)
    assert list(table["trial"]) == sorted(record.number for record in records)
    for row, record in zip(table.to_dict("records"), records, strict=True):
        assert row["injection.k"] == record.settings["injection"]["k"]
        assert row["loss"] == record.loss
        assert row["started"].timestamp() == pytest.approx(record.started, abs=1e-5)
        assert row["started"].utcoffset().total_seconds() == 0
    assert table.loc[table["best"], "trial"].tolist() == [verdict.answer.trial]
    ranked = table[table["finalist"]].sort_values("rank")["trial"].tolist()
    assert ranked == [
        n for n in ranking(verdict, records) if n in {each.number for each in verdict.finalists}
    ]
    assert table.set_index("rank")["trial"].get(1) == verdict.answer.trial
    fresh = table[table["role"] == "replicate"]
    assert fresh["test_loss"].notna().all()
    assert table[table["role"] == "search"]["test_loss"].isna().all()
    assert str(table["injection.k"].dtype) == str(table["replicate_of"].dtype) == "Int64"


def test_curves_are_those_on_disk_as_far_as_the_ledger_has_them(
    ran: sweeps.Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    curves, records = ran.curves(), {record.number: record for record in ran.records}
    assert [*zip(curves["trial"], curves["step"], strict=True)] == [
        (number, step) for number in sorted(records) for step in sorted(records[number].losses)
    ]
    assert curves["eval_loss"].tolist() == [
        records[row.trial].losses[row.step] for row in curves.itertuples()
    ]
    last = curves[curves["trial"] == 0].iloc[-1]
    assert (last["tokens"], last["flops"]) == (records[0].tokens, records[0].flops)
    assert curves.loc[curves["step"] > 0, "train_loss"].notna().all()
    assert curves.loc[curves["step"] == 0, "train_loss"].isna().all()
    monkeypatch.setattr("sweeps.results.sweep.read_curve", lambda *_: [])
    lost = ran.curves()
    assert lost["eval_loss"].equals(curves["eval_loss"])
    assert lost["tokens"].isna().all()


def test_without_pandas_a_data_frame_names_it(ran: sweeps.Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="pip install pandas"):
        ran.to_dataframe()
    assert len(ran.rows()) == len(ran.records)


def test_results_print_the_same_rows(ran: sweeps.Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["results", "mine", "--csv"]) == 0
    text = capsys.readouterr().out
    assert text.count("\r\n") == text.count("\n") == len(ran.records) + 1
    read = list(csv.DictReader(io.StringIO(text)))
    assert main(["results", "mine", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["sweep"] == "mine"
    assert [list(row) for row in value["trials"]] == [list(read[0])] * len(read)
    for row, told, record in zip(read, value["trials"], ran.records, strict=True):
        assert float(row["loss"]) == told["loss"] == record.loss
        assert row["replicate_of"] == ("" if record.replicate_of is None else str(record.replicate_of))
        started = datetime.fromisoformat(row["started"])
        assert started == datetime.fromisoformat(told["started"])
        assert started.tzinfo == UTC
    assert main(["results", "mine", "--curves", "--csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "trial,step,tokens,flops,seconds,eval_loss,train_loss,time"
    assert len(lines) == 1 + sum(len(record.losses) for record in ran.records)
    assert main(["results", "mine", "--curves", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["curves"]) == len(lines) - 1


@pytest.mark.parametrize("options", [[], ["--csv", "--json"], ["--curves"]])
def test_results_take_one_form(options: list[str], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["results", "mine", *options]) == 2
    assert "results: got " in capsys.readouterr().err


def test_csv_runs_no_formula_and_loses_no_number() -> None:
    from sweeps.report.delimited import csv_text

    values = ["=1+1", "+x", "-2", "@a", "a,b", 'say "x"', "two\nlines", "\x1b[2J", -2.5, 1e-300]
    values = [*values, float("nan"), float("-inf"), None, True, 2**60]
    (header, row) = csv.reader(io.StringIO(csv_text([dict(enumerate(values))], range(len(values)))))  # type: ignore[arg-type, list-item]
    assert header == [str(number) for number in range(len(values))]
    assert row == [
        *("'=1+1", "'+x", "'-2", "'@a", "a,b", 'say "x"', "two\nlines", r"\x1b[2J", "-2.5", "1e-300"),
        *("nan", "-inf", "", "true", str(2**60)),
    ]


# -- docstrings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("module", "name"), FACES, ids=[f"{m.__name__}.{n}" for m, n in FACES])
def test_every_docstring_has_its_sections(module: Any, name: str) -> None:
    for title, thing in documented(getattr(module, name), f"{module.__name__}.{name}"):
        found = sections(thing.__doc__ or "")
        if inspect.isclass(thing):
            wanted = {item.name for item in fields(thing)} if is_dataclass(thing) else set()
            assert wanted <= set(found.get("Attributes", ())), title
            continue
        given = [
            _STARS.get(each.kind, "") + each.name
            for each in inspect.signature(thing).parameters.values()
            if each.name not in ("self", "cls")
        ]
        assert [*found.get("Parameters", ())] == given, title
        if inspect.signature(thing).return_annotation not in ("None", inspect.Signature.empty):
            assert "Returns" in found or "Yields" in found, title
    assert "Examples" in sections(getattr(module, name).__doc__), "an example of each name"


def documented(thing: Any, title: str) -> Iterator[tuple[str, Any]]:
    """A function or a class, and the public methods of a class that are ours."""
    yield title, thing
    if inspect.isclass(thing):
        ours = [each for each in thing.__mro__ if each.__module__.startswith(("tli.", "sweeps."))]
        for name, each in {
            name: each for kind in reversed(ours) for name, each in vars(kind).items()
        }.items():
            each = each.__func__ if isinstance(each, classmethod) else each  # noqa: PLW2901
            here = inspect.isfunction(each) and each.__module__.startswith(("tli.", "sweeps."))
            if here and not name.startswith("_"):
                yield f"{title}.{name}", each


def sections(text: str) -> dict[str, list[str]]:
    """The sections of a NumPy docstring by title: what each describes, by name."""
    lines = inspect.cleandoc(text).splitlines()
    found: dict[str, list[str]] = {}
    title = ""
    for line, under in zip(lines, [*lines[1:], ""], strict=True):
        if under and set(under) == {"-"} and len(under) == len(line):
            title = line
            found[title] = []
        elif title and line and not line.startswith(" ") and set(line) != {"-"}:
            found[title] += [name.strip() for name in line.partition(" : ")[0].split(",")]
    return found


@pytest.mark.parametrize("module", [tli, sweeps], ids=["tli", "sweeps"])
def test_every_example_runs(
    module: Any, ran: sweeps.Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("my-model", "text.txt", "mine.yaml", "runs"):
        (tmp_path / name).symlink_to(Path.cwd() / name)
    monkeypatch.chdir(tmp_path)
    run = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    things = [(module.__name__, module)]
    for name in module.__all__:
        if name != "__version__":
            things += documented(getattr(module, name), f"{module.__name__}.{name}")
    out = io.StringIO()
    examples = 0
    for title, thing in things:
        for test in doctest.DocTestFinder(recurse=False).find(thing, title, globs={}):
            examples += len(test.examples)
            run.run(test, out=out.write)
    assert run.summarize(verbose=False).failed == 0, out.getvalue()
    assert examples > 2 * len(module.__all__)
