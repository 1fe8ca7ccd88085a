"""The ladder: finalists and control at longer budgets, after the search, and whether their ranking held."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from sweeps.__main__ import main
from sweeps.driver.service import run
from sweeps.ledger import Ledger
from sweeps.records import Role, State, TrialRecord
from sweeps.report.ladder import ladder_line, ladder_text
from sweeps.results.finding import find
from sweeps.results.ladder import ladder_of, rungs_due
from sweeps.results.rank_correlation import rank_correlation
from sweeps.results.selection import verdict
from sweeps.results.sweep import Sweep
from tests.sweeps.conftest import Silent, copied, ran_in
from tests.sweeps.made_records import trial

LADDER = "budget.ladder=[1k, 0.002M]"
SWEPT = {
    "stopping: {rule: asha, grace: 0.25, keep: 0.5}": "stopping: {rule: none}",
    "finalists: {top: 1, seeds: 1}": "finalists: {top: 2, seeds: 1}",
    "tokens: 512": "tokens: 256",
}


@pytest.fixture(scope="module")
def carried_out(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[[str], Path]) -> Path:
    """The folder of a sweep without a ladder. Shared: look only."""
    return ran_in(tmp_path_factory.mktemp("ladder"), tiny_model("llama"), trials=4, changes=SWEPT)


@pytest.fixture
def path(carried_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The spec of a copy of it, in the working folder."""
    return copied(carried_out, tmp_path, monkeypatch) / "tiny.yaml"


def again(path: Path, *overrides: str, watcher: Silent | None = None) -> Sweep:
    return run(str(path), watcher or Silent(), overrides=overrides, runner="inline")


def climbs(records: list[TrialRecord]) -> set[tuple[int | None, int]]:
    return {(r.replicate_of, r.settings["recipe"]["tokens"]) for r in records if r.role is Role.RUNG}


class Stopping(Silent):
    """Stops the sweep by hand once so many runs of the ladder are there, the last of them running."""

    def __init__(self, rungs: int) -> None:
        super().__init__()
        self._rungs = rungs

    def update(self, records: list[TrialRecord], phase: str) -> None:  # type: ignore[override]
        if sum(record.role is Role.RUNG for record in records) >= self._rungs:
            raise KeyboardInterrupt


def test_it_is_added_to_a_finished_sweep_stopped_and_gone_on_with(path: Path) -> None:
    before = find("tiny", runs=str(path.parent / "runs"))
    old, answered = before.records, before.verdict
    assert before.ledger.finished
    with pytest.raises(KeyboardInterrupt):
        again(path, LADDER, watcher=Stopping(2))
    halfway = find("tiny", runs=str(path.parent / "runs"))
    assert not halfway.ledger.finished
    assert sum(record.role is Role.RUNG for record in halfway.records) == 2
    after = again(path)  # the study's ladder is not taken back
    records, found = after.records, after.verdict
    assert records[: len(old)] == old
    new = records[len(old) :]
    assert {(r.role, r.state) for r in new} == {(Role.RUNG, State.COMPLETE)}
    assert answered.control is not None
    chosen = [answered.control.number, *(finalist.number for finalist in answered.finalists)]
    assert climbs(records) == {(number, tokens) for number in chosen for tokens in (1000, 2000)}
    assert len(new) == 6
    for record in new:
        original = records[record.replicate_of or 0]
        assert record.seed == original.seed, "the same order of data"
        recipe = {**record.settings["recipe"], "tokens": 256}
        assert {**record.settings, "recipe": recipe} == original.settings
        assert record.steps == -(-record.settings["recipe"]["tokens"] // 64)
    # No claim, no spending of the search and no place in Optuna comes of them.
    assert (found.claims, found.answer, found.look) == (answered.claims, answered.answer, answered.look)
    assert (found.counts, found.replicates) == (answered.counts, answered.replicates)
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{path.parent}/runs/study.db")
    assert study.best_trial.number < len(old)
    assert after.ledger.finished
    ladder = ladder_of(found, records, after.spec.budget.ladder)
    assert ladder is not None
    assert ladder.finished
    assert [rung.tokens for rung in ladder.rungs] == [1000, 2000]
    for rung in ladder.rungs:
        losses = {run.trial: run.loss for run in rung.runs}
        assert losses == {
            r.replicate_of: r.value for r in new if r.settings["recipe"]["tokens"] == rung.tokens
        }
        assert rung.lowest == min(losses, key=lambda number: losses[number] or 0)
        assert rung.ranking is not None
        assert (rung.ranking.n, rung.ranking.interval) == (3, None)
    assert "too few to say" in (ladder_line(ladder) or "")


def test_a_longer_ladder_runs_what_is_missing(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = again(path, "budget.ladder=[512]").records
    runs = str(path.parent / "runs")
    command = ["resume", "tiny", "--runs", runs, "--runner", "inline", "--quiet", "--ladder"]
    assert main([*command, "512,1k"]) == 0
    capsys.readouterr()
    sweep = find("tiny", runs=runs)
    assert sweep.spec.budget.ladder == [512, 1000]
    assert sweep.records[: len(first)] == first
    assert len(sweep.records) == len(first) + 3
    assert main(["best", "tiny", "--runs", runs, "--json"]) in (0, 1)
    found = json.loads(capsys.readouterr().out)["ladder"]
    assert [(rung["tokens"], len(rung["runs"])) for rung in found["rungs"]] == [(512, 3), (1000, 3)]
    assert found["finished"]
    main(["best", "tiny", "--runs", runs])
    page = capsys.readouterr().out
    assert "Ladder: " in page
    table = page.partition("Ladder: ")[2].partition("\n\n")[0]
    assert max(map(len, table.splitlines())) <= 80
    main(["status", "tiny", "--runs", runs])
    assert "ladder rung" in capsys.readouterr().out
    # Wrong rungs are refused before anything of the study changes.
    assert main([*command, "1k,512"]) == 2
    assert "budget.ladder[1]" in capsys.readouterr().err
    assert find("tiny", runs=runs).records == sweep.records


@pytest.mark.parametrize(
    ("ladder", "place", "got"),
    [
        ("[2k, 1k]", "budget.ladder[1]", "1,000"),
        ("[512]", "budget.ladder[0]", "512"),
        ("[513, 514]", "budget.ladder[1]", "514"),  # no batch more
        ("[50X]", "budget.ladder[0]", "'50X'"),
        ("[-1]", "budget.ladder[0]", "-1"),
        ("[true]", "budget.ladder[0]", "true"),
        ("1k", "budget.ladder", "'1k'"),
    ],
)
def test_what_does_not_rise_is_refused(
    write_spec: Callable[..., Path], capsys: pytest.CaptureFixture[str], ladder: str, place: str, got: str
) -> None:
    spec = str(write_spec())
    assert main(["validate", spec, "--set", f"budget.ladder={ladder}"]) == 2
    (problem,) = capsys.readouterr().err.splitlines()
    assert place in problem.partition(": got ")[0]
    assert problem.partition(": got ")[2].startswith(got)
    assert "; expected " in problem
    assert not (Path(spec).parent / "runs").exists()


def test_plan_says_what_it_costs_and_how_often_the_text_is_read(
    write_spec: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    spec = str(write_spec())
    assert main(["plan", spec, "--json"]) == 0
    without = json.loads(capsys.readouterr().out)
    assert main(["plan", spec, "--set", "budget.ladder=[1k, 1M]", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(rung["tokens"], rung["runs"]) for rung in found["ladder"]] == [(1000, 2), (1_000_000, 2)]
    more = sum(rung["total"]["tokens"] for rung in found["ladder"])
    assert more == 2 * (1024 + 1_000_000)
    assert found["at_most"]["tokens"] == without["at_most"]["tokens"] + more
    assert found["at_most"]["flops"] > without["at_most"]["flops"]
    assert any("budget.ladder[1] takes 1,000,000" in note and "epochs" in note for note in found["notes"])


def test_a_failed_rung_stays_failed_and_is_named() -> None:
    def settings(record: TrialRecord, tokens: int) -> dict[str, object]:
        return {**record.settings, "recipe": {**record.settings["recipe"], "tokens": tokens}}

    short = [
        replace(each, settings=settings(each, 1000))
        for each in (
            trial(0, 3.5, role=Role.CONTROL),
            trial(1, 3.4, role=Role.BASELINE),
            trial(2, 3.3),
            trial(3, 3.2),
        )
    ]

    def rung(number: int, of: int, value: float | None, **fields: object) -> TrialRecord:
        own = settings(short[of], 4000)
        return replace(trial(number, value, role=Role.RUNG, replicate_of=of), settings=own, **fields)  # type: ignore[arg-type]

    records = [
        *short,
        rung(4, 0, 3.1),
        rung(5, 3, None, state=State.FAIL, reason="diverged"),
        rung(6, 2, 3.0),
    ]
    assert [number for number, _ in rungs_due(records, [4000], 3, depth=None)] == [1]
    found = verdict(records, top=3, seeds=1)
    assert len(found.failed) == 1
    ladder = ladder_of(found, records, [4000])
    assert ladder is not None
    assert not ladder.finished
    (step,) = ladder.rungs
    assert {run.trial: run.loss for run in step.runs} == {0: 3.1, 3: None, 2: 3.0, 1: None}
    assert (step.lowest, step.lowest_below) == (2, 2), "trial 3 has no loss there, and is no winner below"
    page = "\n".join(ladder_text(ladder))
    assert "trial 3 at 4k tokens failed: diverged" in page
    assert "not run" in page


def test_rank_correlation() -> None:
    same = rank_correlation([1, 2, 3, 4, 5, 6], [1, 4, 9, 16, 25, 36])
    assert same.value == pytest.approx(1)
    assert same.interval is not None
    assert same.interval[0] < 0.9 < same.interval[1] == 1
    turned = rank_correlation([1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1])
    assert turned.interval is not None
    assert turned.interval == pytest.approx((-1, -same.interval[0]))
    assert rank_correlation([1, 2, 2, 3], [1, 2, 3, 4]).value == pytest.approx(0.9486833)
    assert rank_correlation([1, 2, 3, 4], [1, 2, 3, 4]).interval is None
    assert rank_correlation([1, 1, 1, 1, 1], [1, 2, 3, 4, 5]).value is None


def test_an_old_study_without_a_ladder_stays_finished(path: Path) -> None:
    ledger = Ledger.read(f"sqlite:///{path.parent}/runs/study.db", "tiny")
    last = ledger.study.completions[-1]
    assert last.budget["ladder"] == []
    older = {name: value for name, value in last.budget.items() if name != "ladder"}
    from sweeps.ledger.attributes import nothing_left

    class Facts:
        completions = (replace(last, budget=older),)

    assert nothing_left(ledger.spec, Facts(), [])  # type: ignore[arg-type]
