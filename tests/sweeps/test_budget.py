"""Budgets in more than trials: hard stops of the search, counted by the ledger, and how far they would take it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from sweeps.checks.budget import amount, enough_for, reaches
from sweeps.clock import Awake
from sweeps.driver.schedule.agenda import Agenda, Idle
from sweeps.driver.schedule.spending import Spending, going_on, raised
from sweeps.driver.service import run
from sweeps.records import Assignment, Outcome, Point, Role, State
from sweeps.spec import LIMITS, BudgetSettings, Spec, load_spec
from tests.sweeps.conftest import agenda_of, taken

TOKENS = 512  # of a whole trial, in eight steps


@pytest.fixture
def limited(write_spec: Any) -> Callable[..., Spec]:
    """`limited("budget.tokens=2048")`: a spec of twelve trials and what else is limited."""
    path = str(write_spec(trials=12))
    return lambda *overrides: load_spec(path, overrides=overrides)


def point(step: int, loss: float = 4.0) -> Point:
    return Point(step, step * 64, step * 1e6, step * 0.5, loss)


def completed(agenda: Agenda, assignment: Assignment, loss: float = 4.0) -> None:
    agenda.report(assignment.number, assignment.attempt, [point(0, loss), point(8, loss)])
    agenda.finish(assignment.number, assignment.attempt, Outcome(State.COMPLETE))


def stopped(agenda: Agenda, assignment: Assignment) -> None:
    """As both runners do."""
    agenda.finish(assignment.number, assignment.attempt, Outcome(State.PRUNED))


@pytest.mark.parametrize(
    ("limit", "most"), [("tokens", 3.5 * TOKENS), ("flops", 3.5 * 8e6), ("gpu_hours", 3.5 * 4 / 3600)]
)
def test_a_limit_that_is_used_up_stops_the_search_and_not_what_it_is_measured_by(
    limit: str, most: float, limited: Callable[..., Spec]
) -> None:
    given = f"{most:.0f}" if limit == "tokens" else f"{most!r}"
    spec = limited(f"budget.{limit}={given}", "resources.gpus=1")
    agenda = agenda_of(spec)
    for _ in range(2):
        completed(agenda, taken(agenda))
    whole, part = taken(agenda), taken(agenda)
    assert not agenda.report(part.number, 1, [point(0), point(2)])  # 2.25 trials' worth
    completed(agenda, whole, 3.9)  # 3.25: the last point of a trial stops nothing
    assert agenda.ledger.record(whole.number).state is State.COMPLETE
    another = taken(agenda)
    assert another.role is Role.SEARCH
    assert not agenda.report(another.number, 1, [point(0), point(1)])
    assert agenda.report(part.number, 1, [point(4)])  # 3.625
    assert agenda.next() is Idle.WAIT, "no new one"
    stopped(agenda, part)
    assert agenda.next() is Idle.WAIT, "the other still runs"
    assert agenda.report(another.number, 1, [point(2)])
    stopped(agenda, another)
    record = agenda.ledger.record(part.number)
    assert (record.state, record.step, record.tokens) == (State.PRUNED, 4, 256)
    assert record.reason == f"stopped by budget.{limit} at step 4"
    assert agenda.ended_by == limit
    replicates = []
    while isinstance(assignment := agenda.next(), Assignment):
        replicates.append(assignment.role)
        completed(agenda, assignment)
    assert replicates == [Role.REPLICATE] * 3, "they come on top"
    assert agenda.finished


def test_control_and_baseline_end_whatever_is_used_up(limited: Callable[..., Spec]) -> None:
    agenda = agenda_of(limited("budget.flops=1.0"))
    for _ in range(2):
        assignment = taken(agenda)
        assert not agenda.report(assignment.number, 1, [point(0), point(4)])
        completed(agenda, assignment)
    assert [record.state for record in agenda.records()] == [State.COMPLETE] * 2
    assert taken(agenda).role is Role.REPLICATE
    assert agenda.ended_by == "flops"


def test_what_was_spent_and_decided_before_a_kill_counts_after_it(limited: Callable[..., Spec]) -> None:
    spec = limited(f"budget.tokens={3 * TOKENS}")
    agenda = agenda_of(spec)
    for _ in range(2):
        completed(agenda, taken(agenda))
    first, second = taken(agenda), taken(agenda)
    assert not agenda.report(first.number, 1, [point(0), point(4)])
    after = agenda_of(spec)  # the driver was killed
    assert after._spending.spent["tokens"] == 2.5 * TOKENS
    first, second = taken(after), taken(after)
    assert (first.attempt, second.attempt) == (2, 2)
    assert not after.report(first.number, 2, [point(0), point(4)])  # it goes on from its checkpoint
    assert after._spending.spent["tokens"] == 2.5 * TOKENS, "the same steps are not counted twice"
    assert not after.report(first.number, 2, [point(0), point(2)])  # from an earlier one
    assert after._spending.spent["tokens"] == 2.5 * TOKENS, "spent is spent"
    assert after.ledger.record(first.number).tokens == 0.5 * TOKENS
    assert after.report(second.number, 2, [point(0), point(4)])
    decided = agenda_of(spec)  # killed between the decision and the end
    again = taken(decided)
    assert again.number == first.number
    assert decided.next() is Idle.WAIT
    record = decided.ledger.record(second.number)
    assert (record.state, record.reason) == (State.PRUNED, "stopped by budget.tokens at step 4")
    assert decided.report(again.number, 3, [point(4)])


def test_time_counts_while_somebody_searches(
    limited: Callable[..., Spec], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(Spending.__init__, "__kwdefaults__", {"clock": lambda: now[0]})
    spec = limited("budget.wall=100")
    agenda = agenda_of(spec)
    first = taken(agenda)
    now[0] += 40
    completed(agenda, first)
    now[0] += 4_000  # nobody runs it
    agenda = agenda_of(spec)
    assert agenda.ledger.study.wall == 40
    second, third = taken(agenda), taken(agenda)
    now[0] += 59
    completed(agenda, second)
    assert not agenda.report(third.number, 1, [point(0), point(1)])
    now[0] += 2
    assert agenda.report(third.number, 1, [point(2)])
    stopped(agenda, third)
    assert agenda.ended_by == "wall"
    assert taken(agenda).role is Role.REPLICATE
    now[0] += 500
    agenda.next()
    assert agenda.ledger.study.wall < 110, "finalists come on top"


def test_hours_in_which_the_driver_was_stopped_are_not_searched(
    limited: Callable[..., Spec], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(
        "sweeps.driver.schedule.spending.awake", lambda: Awake(longest=10.0, clock=lambda: now[0])
    )
    agenda = agenda_of(limited("budget.wall=100"))
    first = taken(agenda)
    now[0] += 36_000  # Ctrl-Z, and fg in the morning
    completed(agenda, first)
    assert agenda.ledger.study.wall == 10


def test_who_runs_is_recalled_once_it_is_used_up_and_does_not_wait_for_a_report(
    limited: Callable[..., Spec], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(Spending.__init__, "__kwdefaults__", {"clock": lambda: now[0]})
    spec = limited("budget.wall=100")
    recalled = []
    agenda = agenda_of(spec, parallel=3, request_stop=lambda who: recalled.append((who.number, who.attempt)))
    for _ in range(2):
        completed(agenda, taken(agenda))
    measured, begun, late = taken(agenda), taken(agenda), taken(agenda)
    agenda.report(measured.number, 1, [point(0), point(1)])
    agenda.report(late.number, 1, [point(0), point(2)])
    now[0] += 101
    for _ in range(2):
        assert agenda.next() is Idle.WAIT
    assert recalled == [(measured.number, 1), (late.number, 1)], "of the other nobody knows where it stands"
    assert Spending(agenda.ledger).used_up == "wall", "for the next driver, too"
    stopped(agenda, measured)
    record = agenda.ledger.record(measured.number)
    assert (record.state, record.reason) == (State.PRUNED, "stopped by budget.wall at step 1")
    assert record.tokens == 64
    assert agenda.report(late.number, 1, [point(4)]), "what it measured meanwhile counts"
    stopped(agenda, late)
    assert agenda.ledger.record(late.number).reason == "stopped by budget.wall at step 4"
    assert agenda.report(begun.number, 1, [point(0)])
    stopped(agenda, begun)
    assert taken(agenda).role is Role.REPLICATE


@pytest.mark.parametrize("runner", ["inline", pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.slow])])
def test_a_whole_sweep_ends_at_its_limit(runner: str, write_spec: Any, silent: Any) -> None:
    path = str(write_spec(trials=12, replace={"rule: asha": "rule: none"}))
    spec = load_spec(path, overrides=[f"budget.tokens={5 * TOKENS - 100}"])
    sweep = run(spec, silent, runner=runner)
    searched = [record for record in sweep.records if record.role is not Role.REPLICATE]
    spent = sum(record.tokens or 0 for record in searched)
    widest = max(b - a for a, b in itertools.pairwise(spec.report_steps())) * 64
    assert 5 * TOKENS - 100 <= spent <= 5 * TOKENS - 100 + 2 * widest
    stops = {record.reason for record in searched if record.state is State.PRUNED}
    assert all(str(reason).startswith("stopped by budget.tokens at step ") for reason in stops)
    assert sweep.ended_by == "tokens"
    assert len(sweep.records) > len(searched), "replicates come on top"
    assert sweep.ledger.finished


def test_what_is_enqueued_waits_for_more_and_holds_up_nothing(write_spec: Any, silent: Any) -> None:
    path = str(write_spec(trials=5, replace={"rule: asha": "rule: none"}))
    spec = load_spec(path, overrides=[f"budget.tokens={3 * TOKENS}"])
    first = run(spec, silent, runner="inline")
    roles = [record.role for record in first.records if record.role is not Role.REPLICATE]
    assert len(roles) == 3
    assert (first.ended_by, first.used_up) == ("tokens", ("tokens", 3 * TOKENS))
    assert first.ledger.finished
    study = optuna.load_study(study_name=spec.name, storage=spec.study_url)
    study.enqueue_trial({"injection.k": 2, "injection.init": "copy", "recipe.learning_rate": 1e-3})
    again = run(spec, silent, runner="inline")
    assert again.records[-1].state is State.WAITING
    assert again.ledger.finished

    more = load_spec(path, overrides=["budget.tokens=null"])
    with pytest.raises(
        ValueError,
        match=r"budget.tokens: got null; expected 1536, the study's own; try --extend \(extend=True\), or --set",
    ):
        run(more, silent, runner="inline")
    whole = run(more, silent, runner="inline", extend=True)
    assert whole.ended_by == "trials"
    assert sum(record.role is not Role.REPLICATE for record in whole.records) == 5
    assert [record.state for record in whole.records if record.role is Role.SEARCH] == [State.COMPLETE] * 3
    assert [each.ended_by for each in whole.ledger.study.completions] == ["tokens", "tokens", "trials"]


def test_the_summary_says_which_limit_it_was(
    write_spec: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from sweeps.__main__ import main

    path = write_spec(trials=9, replace={"rule: asha": "rule: none"})
    assert main(["run", str(path), "--runner", "inline", "--set", f"budget.tokens={3 * TOKENS}"]) == 0
    told = capsys.readouterr().out
    assert "because budget.tokens is used up" in " ".join(told.split())
    assert f"--tokens {6 * TOKENS}" in told
    assert main(["status", "tiny", "--runs", str(tmp_path / "runs")]) == 0
    assert "The search has spent 1,536 of 1,536 tokens.\n" in capsys.readouterr().out
    more = ["resume", "tiny", "--runs", str(tmp_path / "runs"), "--runner", "inline", "--tokens", "2000"]
    assert main(more) == 0
    told = capsys.readouterr().out
    assert "sweeps resume tiny --tokens 4000" in told


def test_which_budget_is_larger_and_with_which_a_study_goes_on() -> None:
    have = BudgetSettings(trials=10, tokens=2_000_000, wall=3600)
    assert raised(have, have) == []
    assert raised(have, BudgetSettings(trials=9, tokens=1, wall=1.0, flops=1e15)) == []
    want = BudgetSettings(trials=12, tokens=3_000_000, wall=None)
    assert raised(have, want) == ["trials", "tokens", "wall"]
    assert going_on(have, want) == (want, [])
    budget, notes = going_on(have, BudgetSettings(trials=5, tokens=1_000_000, wall=7200, gpu_hours=1.5))
    assert budget == BudgetSettings(trials=10, tokens=2_000_000, wall=7200, gpu_hours=1.5)
    assert notes == [
        "the study's budget is 10 trials, larger than 5; going on with 10",
        "the study's budget is 2,000,000 tokens, larger than 1,000,000; going on with 2,000,000",
        "the study's budget had no limit of gpu_hours; now it is 1.5 GPU-hours",
    ]
    assert [amount(name, None) for name in LIMITS] == ["no limit"] * 4


def test_how_far_each_limit_takes_the_search() -> None:
    budget = BudgetSettings(trials=20, tokens=1_000, flops=100.0, wall=60.0)
    found = reaches(
        budget, {"tokens": 200, "flops": 30.0}, {"tokens": 100, "flops": 10.0}, {"tokens": 40, "flops": 4.0}
    )
    assert [(each.name, each.least, each.expected) for each in found] == [
        ("trials", 20, 20),
        ("tokens", 10.0, 22.0),
        ("flops", 9.0, 19.5),
        ("wall", None, None),
    ]
    assert enough_for(found) == (7.0, 17.5)
