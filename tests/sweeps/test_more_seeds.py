"""More fresh seeds, rates of the control, or another margin, on a sweep that was carried out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps.__main__ import main
from sweeps.driver.existing_study import study_problems
from sweeps.driver.service import run
from sweeps.errors import SpecError
from sweeps.ledger import Ledger
from sweeps.records import Role, State, TrialRecord
from sweeps.results.finding import find, resumed
from sweeps.results.sweep import Sweep
from sweeps.spec import load_spec
from tests.sweeps.conftest import Silent, copied, ran_in

SWEPT = {
    "control: {rates: 1, matched: false}": "control: {rates: 1, matched: true}",
    "finalists: {top: 1, seeds: 1}": "finalists: {top: 1, seeds: 2}",
    "stopping: {rule: asha, grace: 0.25, keep: 0.5}": "stopping: {rule: none}",
    "tokens: 512": "tokens: 256",
    "k: 2, init": "k: 1, init",
}


@pytest.fixture(scope="module")
def carried_out(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[[str], Path]) -> Path:
    """The folder of a sweep under two fresh seeds. Shared: look only."""
    return ran_in(tmp_path_factory.mktemp("more"), tiny_model("llama"), trials=4, changes=SWEPT)


@pytest.fixture
def path(carried_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The spec of a copy of it, in the working folder."""
    return copied(carried_out, tmp_path, monkeypatch) / "tiny.yaml"


def again(path: Path, *overrides: str, **given: bool) -> Sweep:
    return run(str(path), Silent(), overrides=overrides, runner="inline", **given)


def fresh(records: list[TrialRecord], role: Role) -> Counter[tuple[int | None, int]]:
    return Counter((record.replicate_of, record.seed) for record in records if record.role is role)


def test_more_seeds_run_for_the_same_finalists_and_controls_and_nothing_else(path: Path) -> None:
    runs = str(path.parent / "runs")
    before = find("tiny", runs=runs)
    old, first = before.records, before.verdict
    assert (first.look, first.claims[0].n) == (1, 2)
    after = again(path, "finalists.seeds=3")
    records, found = after.records, after.verdict
    assert records[: len(old)] == old
    new = records[len(old) :]
    assert {record.role for record in new} <= {Role.REPLICATE, Role.MATCHED}
    replicates = fresh(old, Role.REPLICATE)
    assert fresh(new, Role.REPLICATE) == Counter({(of, 3): 1 for of, _ in replicates})
    winner = found.best_grown
    assert {seed for of, seed in fresh(records, Role.MATCHED) if of == winner} == {1, 2, 3}
    assert all(record.state is State.COMPLETE for record in new)
    assert (found.look, {claim.n for claim in found.claims}, "not finished" in found.answer.limits) == (
        2,
        {3},
        False,
    )
    assert [claim.look for claim in found.claims] == [2] * len(found.claims)
    assert find("tiny", runs=runs).ledger.finished
    # As a name goes on, too; and what was done is not done again.
    assert len(run(resumed("tiny", runs=runs), Silent(), runner="inline").records) == len(records)
    more = resumed("tiny", runs=runs, more={"finalists.seeds": 4})
    last = run(more, Silent(), runner="inline", extend=True)
    assert 4 in {record.seed for record in last.records[len(records) :]}
    assert (last.verdict.look, {claim.n for claim in last.verdict.claims}) == (3, {4})


def test_fewer_seeds_are_refused_and_more_take_an_option(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again(path, "finalists.seeds=3")
    for command in (["run", str(path), "--runner", "inline"], ["validate", str(path)]):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert "finalists.seeds: got 2, fewer than the 3 of the study" in said
        assert "try finalists.seeds=3" in said
    edited = path.with_name("edited.yaml")
    edited.write_text(path.read_text().replace("seeds: 2", "seeds: 5"))
    (problem,) = study_problems(load_spec(str(edited)), extend=False)
    assert (problem.where, problem.got) == ("finalists.seeds", "5")
    assert "--extend" in problem.remedy
    assert study_problems(load_spec(str(edited)), extend=True) == []
    with pytest.raises(SpecError, match=r"finalists.top: 1 -> 2"):
        again(path, "finalists.seeds=3", "finalists.top=2")


def test_seeds_that_were_only_asked_for_may_be_taken_back(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = load_spec(str(path), overrides=["finalists.seeds=900"], runs=str(path.parent / "runs"))
    with Ledger.driven(asked.study_url, asked):
        pass  # as a run that is stopped before it begins one
    assert main(["run", str(path), "--runner", "inline", "-q"]) == 0
    assert "2 seeds" in capsys.readouterr().out
    sweep = find("tiny", runs=str(path.parent / "runs"))
    assert sweep.ledger.finished
    assert "not finished" not in sweep.verdict.answer.limits


def test_another_margin_is_another_reading_without_runs(path: Path) -> None:
    before = find("tiny", runs=str(path.parent / "runs"))
    loss, count = before.verdict.control.test_loss, len(before.records)  # type: ignore[union-attr]
    assert before.verdict.margin.was is None
    after = again(path, "finalists.margin=0.1%")
    margin = after.verdict.margin
    assert (margin.source, margin.percent, margin.was) == ("spec", 0.1, "the data's own")
    assert margin.nats == pytest.approx(0.001 * loss)
    assert after.verdict.look == 1 or len(after.records) > count  # a matched control of another winner
    assert all(record.role is Role.MATCHED for record in after.records[count:])
    claims = [(claim.mean, claim.half_width) for claim in after.verdict.claims]
    if len(after.records) == count:
        assert claims == [(claim.mean, claim.half_width) for claim in before.verdict.claims]
    assert again(path).verdict.margin.was is None, "as it was"
    assert again(path, "finalists.margin=0.002").verdict.margin.nats == 0.002


def test_the_control_is_given_more_rates_and_what_rests_on_it_runs_again(path: Path) -> None:
    old = find("tiny", runs=str(path.parent / "runs")).records
    after = again(path, "control.rates=2", "budget.trials=8")
    controls = [record for record in after.records if record.role is Role.CONTROL]
    assert len(controls) > 1
    assert after.records[: len(old)] == old
    best = min(controls, key=lambda record: record.value or 9.0)
    assert after.verdict.control.number == best.number  # type: ignore[union-attr]
    assert {seed for of, seed in fresh(after.records, Role.REPLICATE) if of == best.number} == {1, 2}


def test_the_command_that_would_decide_is_one_that_runs(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert path.exists()
    assert main(["resume", "tiny", "--seeds", "3", "--runner", "inline", "-q"]) == 0
    assert "3 seeds" in capsys.readouterr().out
    assert main(["resume", "tiny", "--seeds", "1", "--runner", "inline"]) == 2
    assert "fewer than the 3 of the study" in capsys.readouterr().err
    assert main(["resume", "tiny", "--seeds", "0", "--runner", "inline"]) == 2
    assert "--seeds 0: finalists.seeds: got 0" in capsys.readouterr().err
