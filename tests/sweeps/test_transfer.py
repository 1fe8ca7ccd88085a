"""`sweeps transfer`: a spec for a larger sibling of a sweep's base, which passes validate and plan."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweeps.__main__ import main
from sweeps.records import Role
from sweeps.results.finding import find
from sweeps.results.setting_answers import SIDES, SettingAnswer, ValueAnswer
from sweeps.results.transferred_ranges import decided_settings
from sweeps.results.verdict import Verdict
from sweeps.spec import Range, load_spec
from tests.sweeps.conftest import ran_in
from tli.models.base import Facts
from tli.models.base import find as find_base

PACKAGED = "meta-llama/Llama-3.2-3B"


@pytest.fixture(scope="module")
def carried_out(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[[str], Path]) -> Path:
    """The folder of a finished sweep over a model of width 32 and 4 layers. Shared: look only."""
    root = tmp_path_factory.mktemp("transfer")
    ran_in(root, tiny_model("llama"), trials=4)
    return root


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory, save_model: Any) -> Path:
    """A sibling of twice the width and depth."""
    return Path(
        save_model(
            tmp_path_factory.mktemp("larger") / "wide",
            "llama",
            hidden_size=64,
            num_hidden_layers=8,
            intermediate_size=128,
        )
    )


@pytest.fixture
def here(carried_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("SWEEPS_RUNS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def command(carried_out: Path, base: object, *more: str) -> list[str]:
    return ["transfer", "tiny", "--runs", str(carried_out / "runs"), "--base", str(base), *more]


def test_a_spec_for_a_larger_sibling_passes_validate_and_plan(
    carried_out: Path, larger: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(carried_out, larger, "--json")) == 0
    told = json.loads(capsys.readouterr().out)
    path = here / told["out"]
    assert path.name == "tiny-wide.yaml"
    factor = 32 / 64 * math.sqrt(4 / 8)
    assert told["rate_factor"] == pytest.approx(factor)
    sweep, spec = find("tiny", runs=str(carried_out / "runs")), load_spec(str(path))
    chosen = sweep.verdict.chosen
    assert chosen is not None
    assert spec.base.model == str(larger)
    assert spec.trial.injection.to_json() == chosen.settings["injection"]
    rate = chosen.settings["recipe"]["learning_rate"]
    assert spec.trial.recipe.learning_rate == pytest.approx(rate * factor**0.75, rel=0.01)
    low, high = sweep.spec.search["recipe.learning_rate"].ends
    answer = next(each for each in sweep.verdict.settings if each.path == "recipe.learning_rate")
    if answer.reason is None and answer.between is not None:
        sides = zip(SIDES, answer.between, (low, high), strict=True)
        low, high = (wide if side in answer.open_ends else found for side, found, wide in sides)
    assert spec.search["recipe.learning_rate"].ends == (
        pytest.approx(low * factor, rel=0.01),
        pytest.approx(high * math.sqrt(factor), rel=0.01),
    )
    assert (spec.trial.recipe.tokens, spec.budget) == (512, sweep.spec.budget)
    assert spec.resources.cpus == sweep.spec.resources.cpus
    comments = "\n".join(line for line in path.read_text().splitlines() if line.strip().startswith("#"))
    assert "2203.03466" in comments
    assert f"trial {chosen.number}" in comments
    assert main(["validate", str(path)]) == 0
    assert main(["plan", str(path)]) == 0
    page = capsys.readouterr().out
    assert "8 layers" in page


def test_a_described_base_needs_no_network(
    carried_out: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(carried_out, PACKAGED, "--out", "big.yaml")) == 0
    assert main(["plan", "big.yaml", "--json"]) == 0
    plain = json.loads(capsys.readouterr().out.partition("\n{")[2].join(["{", ""]))
    assert plain["base"] == PACKAGED
    assert "By the estimate" in (here / "big.yaml").read_text(), "what it takes"


def test_a_file_that_exists_and_another_architecture_are_refused(
    carried_out: Path, larger: Path, here: Path, tiny_model: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("kept.yaml").write_text("mine")
    assert main(command(carried_out, larger, "--out", "kept.yaml")) == 2
    assert "kept.yaml, which exists; expected a new file; try --force" in capsys.readouterr().err
    assert Path("kept.yaml").read_text() == "mine"
    assert main(command(carried_out, larger, "--out", "kept.yaml", "--force")) == 2, "that is no spec"
    assert Path("kept.yaml").read_text() == "mine"
    Path("kept.yaml").write_text("name: mine\nbase: {model: x}\n")
    assert main(command(carried_out, larger, "--out", "kept.yaml", "--force")) == 0
    assert "mine" not in Path("kept.yaml").read_text()
    capsys.readouterr()
    for base, got in (
        (tiny_model("qwen3"), "of the architecture qwen3; expected a sibling"),
        ("nowhere/at-all", "'nowhere/at-all'"),
    ):
        assert main(command(carried_out, base, "--out", "none.yaml")) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: --base: got ")
        assert got in error
    assert not Path("none.yaml").exists()


def test_an_unfinished_sweep_is_refused(
    carried_out: Path, larger: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from sweeps.ledger.reading import FileLedger

    monkeypatch.setattr(FileLedger, "finished", property(lambda _: False))
    assert main(command(carried_out, larger)) == 2
    error = capsys.readouterr().err
    assert "tiny: got a sweep that is not finished; expected a finished one; try sweeps resume tiny" in error
    assert not list(here.iterdir())


def answer(path: str, says: dict[Any, str], **fields: Any) -> SettingAnswer:
    values = tuple(ValueAnswer(value, 3.0, 0.1, 1, 1, each) for value, each in says.items())  # type: ignore[arg-type]
    best = next((value for value, each in says.items() if each == "best"), None)
    given = {"path": path, "value": best, "as_good": (), "values": values, "reason": None, "open_values": ()}
    return SettingAnswer(**{**given, **fields})


def test_ranges_are_narrowed_by_what_was_answered_alone(carried_out: Path, larger: Path) -> None:
    sweep = find("tiny", runs=str(carried_out / "runs"))
    small, large = find_base(sweep.spec.base.model).facts, find_base(str(larger)).facts
    found, records = sweep.verdict, sweep.records

    def decided(*answers: SettingAnswer) -> dict[str, Any]:
        made = Verdict(**{**vars(found), "settings": answers})
        return {each.path: each for each in decided_settings(sweep.spec, made, records, small, large, 0.25)}

    rate = answer("recipe.learning_rate", {}, value=1e-3, between=(5e-4, 2e-3))
    k = answer("injection.k", {1: "best", 2: "no better", 4: "worse"})
    init = answer("injection.init", {"copy": "best", "identity": "worse", "random": "worse"})
    every = decided(rate, k, init)
    assert every["injection.k"].range == Range(choice=(1, 2))
    assert "left out, as worse by more than the margin: 4" in every["injection.k"].comments[0]
    assert (every["injection.init"].range, every["injection.init"].value) == (None, "copy")
    assert every["recipe.learning_rate"].range == Range(log=(5e-4 * 0.25, 2e-3 * 0.5))
    above = decided(
        answer(
            "recipe.learning_rate",
            {},
            value=1e-3,
            between=(5e-4, 2e-3),
            open_ends=("above",),
            tried=(4e-4, 1.5e-3),
        )
    )
    assert above["recipe.learning_rate"].range == Range(
        log=(5e-4 * 0.25, 1e-2 * 0.5)
    )  # as far as was searched
    assert "none above 0.0015 was tried" in above["recipe.learning_rate"].comments[0]
    opened = decided(
        answer("injection.k", {1: "best", 4: "worse"}, value=None, reason="interval wider than the margin"),
        answer("recipe.learning_rate", {}, value=1e-3, reason="interval wider than half of its range"),
    )
    assert opened["injection.k"].range == sweep.spec.search["injection.k"]
    assert opened["recipe.learning_rate"].range == Range(log=(1e-4 * 0.25, 1e-2 * 0.5))
    assert "Not answered" in opened["injection.init"].comments[0]


def test_a_grid_of_rates_stays_one(carried_out: Path) -> None:
    sweep = find("tiny", runs=str(carried_out / "runs"))
    spec = sweep.spec.model_copy(update={"search": {"recipe.learning_rate": Range(choice=(1e-3, 4e-3))}})
    facts = find_base(sweep.spec.base.model).facts
    found = Verdict(**{**vars(sweep.verdict), "settings": ()})
    (decision,) = decided_settings(spec, found, sweep.records, facts, facts, 0.25)
    assert decision.range is not None
    assert decision.range.choice == pytest.approx((2.5e-4, math.sqrt(2.5e-4 * 2e-3), 2e-3), rel=0.01)


def test_layers_that_are_dropped_go_with_the_depth(carried_out: Path, larger: Path) -> None:
    sweep = find("tiny", runs=str(carried_out / "runs"))
    spec = sweep.spec.model_copy(update={"search": {"injection.m": Range(choice=(0, 1))}})
    facts = find_base(sweep.spec.base.model).facts
    deep = Facts(**{**vars(facts), "depth": 3 * facts.depth})
    (decision,) = decided_settings(spec, sweep.verdict, sweep.records, facts, deep, 1.0)
    assert decision.range == Range(choice=(0, 3))
    assert all(record.role is not Role.RUNG for record in sweep.records)
