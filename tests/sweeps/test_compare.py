"""`sweeps compare` on sweeps that were run: the packaged one over methods, on a tiny model, and others beside it."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeps.__main__ import main
from sweeps.curve import read_curve
from sweeps.driver.service import run
from sweeps.records import Role, State
from sweeps.report.method_table import latex, markdown
from sweeps.results.compare import compare
from sweeps.results.sentence import sentence
from sweeps.results.sweep import Sweep
from sweeps.results.transfer import transfer
from sweeps.spec import load_spec
from sweeps.tracking import NullTracker
from sweeps.tracking.sync import show_conclusions
from tests.sweeps.conftest import Silent

TINY = {
    "data.heldout_fraction": "0.2",
    "data.sequence_length": "16",
    "data.eval_tokens": "64",
    "trial.injection.m": "1",
    "trial.recipe.tokens": "512",
    "trial.recipe.batch_tokens": "64",
    "search.recipe.learning_rate.choice": "[1.2e-3, 1e-2]",
    "budget.trials": "11",
    "data.test_tokens": "64",
    "control.matched": "false",
    "finalists.seeds": "1",
    "tracking": "null",
}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, save_model: Any) -> dict[str, str]:
    """Settings that make a packaged spec run in seconds: a random model of width 32 on a page of text."""
    place = tmp_path_factory.mktemp("compared")
    text = place / "text.txt"
    text.write_text("".join(f"{n} bottles of beer on the wall, {n} bottles of beer.\n" for n in range(200)))
    model = save_model(place / "model", "mistral")
    return {
        "base.model": str(model),
        "data.source": str(text),
        "storage.artifacts": str(place / "runs"),
        **TINY,
    }


def swept(given: dict[str, str], name: str, **changes: str) -> Sweep:
    settings = {**given, "name": name, **changes}
    overrides = [f"{path}={value}" for path, value in settings.items()]
    return run(load_spec("methods", overrides=overrides), Silent(), runner="inline")


@pytest.fixture(scope="module")
def methods(given: dict[str, str]) -> Sweep:
    return swept(given, "methods")


def compared(methods: Sweep, *arguments: str) -> list[str]:
    return ["compare", *arguments, "--runs", str(methods.folders.artifacts)]


def refused(capsys: pytest.CaptureFixture[str], command: list[str]) -> list[str]:
    assert main(command) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return [line.removeprefix("error: ") for line in captured.err.splitlines()]


def test_every_method_meets_every_rate_and_its_best_is_a_finalist(methods: Sweep) -> None:
    records = methods.records
    assert all(record.state is State.COMPLETE for record in records), [r.reason for r in records]
    searched = [r for r in records if r.role in (Role.BASELINE, Role.SEARCH)]
    met = {(r.settings["injection"]["method"], r.settings["recipe"]["learning_rate"]) for r in searched}
    methods_there = ("tli", "dus", "stack", "moe", "none")
    assert met == {(method, rate) for method in methods_there for rate in (1.2e-3, 1e-2)}
    assert len(searched) == len(met)
    verdict = methods.verdict
    assert sorted(f.settings["injection"]["method"] for f in verdict.finalists) == [
        "dus",
        "moe",
        "stack",
        "tli",
    ]
    assert verdict.control is not None
    originals = [r for r in records if r.original and r.role is not Role.REPLICATE]
    assert len(originals) == 3  # the control at the baseline's rate, and at each rate
    assert verdict.control.losses[0] == min(r.value for r in originals if r.value is not None)
    for candidate in (*verdict.finalists, verdict.control):
        assert list(candidate.losses) == [0, 1]
    for finalist in verdict.finalists:
        method = finalist.settings["injection"]["method"]
        same = [r.value for r in searched if r.settings["injection"]["method"] == method]
        assert finalist.losses[0] == min(value for value in same if value is not None)


def test_mlflow_is_told_the_same_ranking(methods: Sweep) -> None:
    told: dict[str, Any] = {}

    class Told(NullTracker):
        def rank(self, numbers: Sequence[int], first: Sequence[int] = ()) -> None:
            told.update(rank=numbers, first=first)

        def end_sweep(self, tags: Any, objectives: Any, when: float) -> None:
            told.update(tags)

    show_conclusions(Told(), methods)
    verdict = methods.verdict
    numbers = [verdict.answer.trial, *(finalist.number for finalist in verdict.finalists)]
    first = list(dict.fromkeys(numbers))
    assert told["rank"][: len(first)] == first
    assert (told["sweeps.best"], told["sweeps.best_grown"]) == (verdict.answer.trial, verdict.answer.grown)
    text = told["mlflow.note.content"]
    assert text.startswith(f"methods: {sentence(verdict, methods.records)}\n\n| run |")
    assert verdict.control is not None
    assert {*first, verdict.control.number} <= set(told["first"])


def test_the_table_of_methods(methods: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(compared(methods, "methods", "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    verdict = methods.verdict
    assert verdict.control is not None
    candidates = {c.number: c for c in (verdict.control, *verdict.finalists)}
    assert [trial["trial"] for trial in found["trials"]] == list(candidates)  # the control first
    base = verdict.control.initial_loss
    assert found["base_loss"] == pytest.approx(base)
    assert found["seeds"] == [1], "not the one that chose them"
    sizes = {}
    for trial in found["trials"]:
        candidate = candidates[trial["trial"]]
        assert trial["losses"]["8"] == pytest.approx(candidate.mean)
        assert found["equal"]["steps"]["losses"][trial["reference"]] == pytest.approx(candidate.mean)
        assert found["equal"]["tokens"]["losses"][trial["reference"]] == pytest.approx(candidate.mean)
        sizes[trial["what"]] = trial["parameters"]
        if trial["what"] in ("control", "tli K=2 identity", "moe 8 experts"):  # they are the base, at first
            assert set(trial["reached_base_loss"].values()) == {0}
            assert trial["initial_loss"] == pytest.approx(base, abs=1e-5)
    assert sizes["control"] < sizes["tli K=2 identity"] == sizes["dus m=1 copy"] < sizes["stack g=2 copy"]
    # The control has the fewest FLOPs a token: so all are read where it ends, and it alone at its last loss.
    equal = found["equal"]["flops"]
    control = f"methods:{verdict.control.number}"
    assert (equal["ended_first"], equal["losses"][control]) == (
        [control],
        pytest.approx(verdict.control.mean),
    )
    curve = read_curve(methods.folders.trial(verdict.control.number) / "curve.jsonl")
    assert equal["at"] == pytest.approx(curve[-1].flops)
    assert main(compared(methods, "methods")) == 0
    page = capsys.readouterr().out
    assert page.startswith("Compared: 5 trials of methods; one seed each\n")
    assert max(len(line) for line in page.splitlines()) <= 80


def test_the_best_of_each_value_of_another_setting(
    methods: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(compared(methods, "methods", "--by", "recipe.learning_rate", "--json")) == 0
    control, *others = json.loads(capsys.readouterr().out)["trials"]
    assert control["control"]
    assert {trial["settings"]["recipe"]["learning_rate"] for trial in others} == {1.2e-3, 1e-2}
    assert main(compared(methods, "methods", "--by", "recipe.schedule", "--json")) == 0
    _, best = json.loads(capsys.readouterr().out)["trials"]
    assert best["what"].endswith(" schedule=linear")
    assert main(compared(methods, "methods:1", "methods:1", "--json")) == 0
    named = json.loads(capsys.readouterr().out)["trials"]
    assert [trial["trial"] for trial in named] == [control["trial"], 1]


def test_mistakes_are_told_together(methods: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    last, runs = len(methods.records) - 1, methods.folders.artifacts
    assert refused(capsys, compared(methods, "methods:99", "nix", "methods", "nix")) == [
        f"methods:99: got trial 99, which is not there; expected a number from 0 to {last}",
        f"nix: got no sweep in {runs}; expected one of methods; try sweeps list --runs {runs}",
    ]
    assert refused(capsys, compared(methods, "methods", "--by", "recipe.lrr")) == [
        "--by: got 'recipe.lrr'; expected a dotted path in trial; try recipe.learning_rate"
    ]
    curve = methods.folders.trial(1) / "curve.jsonl"
    aside = curve.rename(curve.with_suffix(".aside"))
    try:
        (problem,) = refused(capsys, compared(methods, "methods:1"))
    finally:
        aside.rename(curve)
    expected = "expected a curve of two points or more; try another trial, or --runs DIR (runs=DIR)"
    assert problem == f"methods:1: got no curve at '{curve}'; {expected}"


def test_sweeps_over_another_text_are_refused_and_others_compared(
    methods: Sweep, given: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    short = {"search": "{}", "budget.trials": "2", "finalists.seeds": "1", "finalists.per": "null"}
    longer = {**short, "trial.recipe.tokens": "1024", "trial.recipe.schedule": "constant"}
    swept(given, "longer", **longer)
    other = Path(given["data.source"]).with_name("other.txt")
    shutil.copy(given["data.source"], other)
    other.write_text(other.read_text()[::-1])
    swept(given, "elsewhere", **short, **{"data.source": str(other), "data.eval_tokens": "128"})
    assert main(compared(methods, "methods", "longer", "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(t["sweep"], t["control"]) for t in found["trials"]][:2] == [("methods", True), ("longer", True)]
    assert found["equal"]["steps"]["at"] == 8
    assert len(found["equal"]["steps"]["ended_first"]) == 5
    assert [w for w in found["warnings"] if w.startswith("the budgets of methods and longer differ")]
    problems = refused(capsys, compared(methods, "methods", "longer", "elsewhere"))
    assert len(problems) == 2
    assert problems[0].startswith(f"elsewhere: got text '{other}' (digest ")
    assert problems[0].endswith(
        "), as methods has: losses over different texts are not comparable; "
        f"try each beside its own control: sweeps best elsewhere --runs {methods.folders.artifacts}"
    )
    assert problems[1].startswith("elsewhere: got data.eval_tokens 128; expected 64, as methods has: ")


def test_a_value_without_a_complete_trial_is_named(
    methods: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sweeps.results import compare as module

    every = module.compare(["methods"], by="injection.method", runs=str(methods.folders.artifacts))
    assert not any("no trial with" in warning for warning in every.warnings)
    records = [
        replace(record, state=State.PRUNED, value=None)
        if record.settings.get("injection", {}).get("method") == "dus"
        else record
        for record in methods.records
    ]
    monkeypatch.setattr(Sweep, "records", property(lambda _: records))
    found = module.compare(["methods"], by="injection.method", runs=str(methods.folders.artifacts))
    assert [each for each in found.warnings if "no trial with" in each] == [
        "methods: no trial with injection.method 'dus' is complete, so none is compared"
    ]
    # The same where it was never tried.
    records = [r for r in records if r.settings.get("injection", {}).get("method") != "dus"]
    never = module.compare(["methods"], by="injection.method", runs=str(methods.folders.artifacts))
    assert "methods: no trial with injection.method 'dus' is complete, so none is compared" in never.warnings


def test_formats_hold_the_numbers_of_json(methods: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    def printed(*arguments: str) -> str:
        assert main(compared(methods, "methods", *arguments)) == 0
        return capsys.readouterr().out

    plain = json.loads(printed("--json"))
    rows = list(csv.DictReader(io.StringIO(printed("--format", "csv"))))
    assert [row["reference"] for row in rows] == [trial["reference"] for trial in plain["trials"]]
    for row, trial in zip(rows, plain["trials"], strict=True):
        reference, reached = trial["reference"], trial["reached_base_loss"]["steps"]
        assert float(row["initial_loss"]) == trial["initial_loss"]
        assert int(row["parameters"]) == trial["parameters"]
        assert {name: float(row[name]) for name in row if name.startswith("loss_at_step_")} == {
            f"loss_at_step_{step}": loss for step, loss in trial["losses"].items() if step != "0"
        }
        assert row["steps_to_base_loss"] == ("" if reached is None else str(reached))
        for axis in ("tokens", "flops"):
            assert float(row[f"loss_at_equal_{axis}"]) == plain["equal"][axis]["losses"][reference]
    table = [line for line in printed("--format", "md").splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} == {table[0].count("|")}
    assert len(table) == 2 + len(rows)
    for row, line in zip(rows, table[2:], strict=True):
        assert row["reference"] in line
        assert f" {float(row['loss_at_equal_flops']):.4f} |" in line
    latex = printed("--format", "latex")
    assert latex.count(" & ") == (len(rows) + 1) * (table[0].count("|") - 2)
    assert latex.startswith("\\begin{tabular}{lll")
    for row in rows:
        assert f"{float(row['initial_loss']):.4f}" in latex


def test_a_grid_of_methods_is_transferred(methods: Sweep, given: dict[str, str]) -> None:
    made = transfer(methods, given["base.model"])
    assert made.factor == 1
    old, new = methods.spec, made.spec
    assert (new.sampler, new.finalists.top) == (old.sampler, old.finalists.top)
    assert new.search.keys() <= old.search.keys()
    rates = new.search.get("recipe.learning_rate")  # one rate that was found, by a factor of 1, stays alone
    assert rates is None or len(rates.choice or ()) == 3
    assert new.finalists.per in (*new.search, None)
    assert new.trial.injection.method != "none"


def test_formats_are_refused_beside_json(methods: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (("--format", "html"), ("--format", "md", "--json")):
        with pytest.raises(SystemExit) as refusal:
            main(compared(methods, "methods", *wrong))
        assert refusal.value.code == 2
        captured = capsys.readouterr()
        assert "|" not in captured.out, "no table"
        assert "--format" in captured.out + captured.err


def test_what_a_table_holds_is_no_markup_of_it(methods: Sweep) -> None:
    found = compare(["methods"], runs=str(methods.folders.artifacts))
    one, *others = found.entries
    odd = replace(one, sweep="a|b_c & 50% <x> \\d $e^{~}#\n`f`*")
    renamed = {one.key: odd.key}
    losses = {renamed.get(key, key): value for key, value in found.losses.items()}
    reached = {renamed.get(key, key): dict.fromkeys(value) for key, value in found.reached.items()}
    equal = tuple(
        replace(each, losses={renamed.get(key, key): value for key, value in each.losses.items()})
        for each in found.equal
    )
    made = replace(found, entries=(odd, *others), losses=losses, reached=reached, equal=equal)
    line = markdown(made).splitlines()[2]
    assert r"a\|b\_c \& 50% \<x\> \\d \$e^\{\~\}\#" in line
    assert len(re.findall(r"(?<!\\)\|", line)) == len(re.findall(r"\|", markdown(made).splitlines()[1]))
    row = latex(made).splitlines()[4]
    assert (
        r"a\textbar{}b\_c \& 50\% \textless{}x\textgreater{} \textbackslash{}d \$e\textasciicircum{}" in row
    )
    assert "not reached" in row
