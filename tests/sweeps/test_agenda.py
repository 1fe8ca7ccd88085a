"""The order of work, and what becomes of executions that do not end as they should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

import tli.models.loading
from sweeps.curve import append_curve, read_curve
from sweeps.driver.schedule.agenda import Agenda, Idle
from sweeps.driver.service import run
from sweeps.driver.tidying import Tidying
from sweeps.errors import SweepError
from sweeps.folders import Folders
from sweeps.ledger import Ledger
from sweeps.records import Assignment, Cause, Outcome, Point, Role, State
from sweeps.results.sweep import Sweep
from sweeps.spec import Spec, load_spec
from sweeps.worker.trial import cached_context
from tests.sweeps.conftest import agenda_of, taken

LOST = Outcome(State.FAIL, "its worker died", Cause.LOST)


@pytest.fixture
def spec(write_spec: Any) -> Spec:
    return load_spec(str(write_spec(trials=4)))


def completed(agenda: Agenda, assignment: Assignment, loss: float) -> None:
    points = [Point(step, step * 64, 1.0, 1.0, loss) for step in (0, assignment.steps)]
    agenda.report(assignment.number, assignment.attempt, points)
    agenda.finish(assignment.number, assignment.attempt, Outcome(State.COMPLETE))


def test_control_baseline_search_replicates(spec: Spec) -> None:
    agenda = agenda_of(spec)
    first, second = taken(agenda), taken(agenda)
    assert (first.role, second.role) == (Role.CONTROL, Role.BASELINE)
    assert agenda.next() is Idle.WAIT  # both slots are taken
    completed(agenda, first, 4.0)
    completed(agenda, second, 4.1)
    third, fourth = taken(agenda), taken(agenda)
    assert third.role is fourth.role is Role.SEARCH
    completed(agenda, third, 3.9)
    assert agenda.next() is Idle.WAIT  # no ranking before the last searched one has ended
    completed(agenda, fourth, 4.2)
    replicates = []
    while not isinstance(assignment := agenda.next(), Idle):
        replicates.append(
            (assignment.role, assignment.settings["seed"], dict(assignment.settings["injection"]))
        )
        completed(agenda, assignment, 4.0)
    assert assignment is Idle.FINISHED
    assert agenda.finished
    # Of the control, the baseline and the best one, each under one more seed.
    settings = [dict(a.settings["injection"]) for a in (first, second, third)]
    assert replicates == [(Role.REPLICATE, 1, injection) for injection in settings]


def test_the_controls_with_the_flops_of_the_winner_come_last_and_side_by_side(write_spec: Any) -> None:
    overrides = ["control.matched=true", "finalists.seeds=2"]
    spec = load_spec(str(write_spec(trials=3)), overrides=overrides)
    agenda = agenda_of(spec)

    def end(work: Assignment) -> None:
        original = work.settings["injection"]["method"] == "none"
        points = [
            Point(step, step * 64, step * 64 * (1.0 if original else 1.5), 1.0, 4.0 if original else 3.9)
            for step in (0, work.steps)
        ]
        agenda.report(work.number, work.attempt, points)
        agenda.finish(work.number, work.attempt, Outcome(State.COMPLETE))

    running: list[Assignment] = []
    while (work := agenda.next()) is not Idle.FINISHED:
        if isinstance(work, Idle):
            end(running.pop(0))
        elif work.role is Role.MATCHED:
            break
        else:
            running.append(work)
    assert running == [], "there is no winner before every replicate has ended"
    first, second = work, taken(agenda)
    assert isinstance(first, Assignment)
    assert first.role is second.role is Role.MATCHED
    assert [each.settings["seed"] for each in (first, second)] == [1, 2]
    assert first.steps == first.report_steps[-1] == 12
    assert spec.steps == 8
    record = agenda.records()[first.number]
    assert (record.steps, record.budgeted, agenda.ledger.asked) == (12, False, 3)
    end(second)
    agenda = agenda_of(spec)  # the driver was killed
    again = taken(agenda)
    assert (again.number, again.attempt, again.steps) == (first.number, 2, 12)
    assert agenda.next() is Idle.WAIT
    end(again)
    assert agenda.next() is Idle.FINISHED


def test_a_driver_may_die_as_often_as_it_likes(spec: Spec) -> None:
    first = taken(agenda_of(spec))
    for attempt in range(2, 9):
        again = taken(agenda_of(spec))
        assert (again.number, again.attempt) == (first.number, attempt)
    assert agenda_of(spec).records()[0].state is State.RUNNING


@pytest.mark.parametrize(
    ("cause", "attempts", "reason"),
    [
        (Cause.LOST, 5, "over and out (5 times)"),
        (Cause.HUNG, 3, "over and out (3 times)"),
        (Cause.ERROR, 2, "over and out (2 times)"),
        (Cause.DIVERGED, 1, "over and out"),
        (Cause.REFUSED, 1, "over and out"),
    ],
)
def test_a_trial_without_a_result_is_tried_as_often_as_its_cause_allows(
    spec: Spec, cause: Cause, attempts: int, reason: str
) -> None:
    agenda = agenda_of(spec)
    for attempt in range(1, attempts + 1):
        assignment = taken(agenda)
        assert (assignment.number, assignment.attempt) == (0, attempt)
        agenda.finish(0, attempt, Outcome(State.FAIL, "over and out", cause))
        agenda = agenda_of(spec)  # limits and counts are in the ledger: another driver goes on with them
    record = agenda.records()[0]
    assert (record.state, record.reason) == (State.FAIL, reason)
    assert taken(agenda).role is Role.BASELINE


def test_a_preempted_trial_is_tried_for_ever_and_a_lost_one_while_it_gets_on(spec: Spec) -> None:
    agenda = agenda_of(spec)
    for step in range(8):
        assignment = taken(agenda)
        agenda.report(0, assignment.attempt, [Point(step, 0, 0.0, 0.0, 1.0)])
        cause = Cause.LOST if step % 2 else Cause.PREEMPTED
        agenda.finish(0, assignment.attempt, Outcome(State.FAIL, "gone", cause))
    assert taken(agenda).attempt == 9
    assert agenda.records()[0].retries == {"lost": 1, "preempted": 4, "at": 7}


def test_less_of_the_batch_at_once_when_memory_is_short(spec: Spec) -> None:
    agenda = agenda_of(spec)
    recipe = spec.trial.recipe
    assignment = taken(agenda)
    assert assignment.micro_batch_tokens is None
    tokens = recipe.micro_batch_tokens or recipe.batch_tokens
    while tokens > spec.data.sequence_length:
        outcome = Outcome(State.FAIL, "out of memory", Cause.OUT_OF_MEMORY)
        agenda.finish(0, assignment.attempt, outcome)
        assignment = taken(agenda)
        assert assignment.micro_batch_tokens is not None
        assert assignment.micro_batch_tokens < tokens
        tokens = assignment.micro_batch_tokens
    agenda.finish(0, assignment.attempt, Outcome(State.FAIL, "out of memory", Cause.OUT_OF_MEMORY))
    assert agenda.records()[0].state is State.FAIL, "one sequence at once is the least there is"
    assert assignment.settings["recipe"]["batch_tokens"] == recipe.batch_tokens


def test_a_decision_to_stop_outlives_the_driver(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    agenda = agenda_of(spec)
    for _ in range(2):
        completed(agenda, taken(agenda), 1.0)
    stopped = taken(agenda)
    monkeypatch.setattr(agenda.ledger._rule, "stops", lambda *_: True)
    assert agenda.report(stopped.number, stopped.attempt, [Point(4, 256, 7.0, 1.5, 9.0)])
    after = agenda_of(spec)  # the driver was killed before it told the end
    assert taken(after).number == stopped.number + 1
    record = after.records()[stopped.number]
    assert (record.state, record.step, record.flops) == (State.PRUNED, 4, 7.0)
    assert record.reason == "stopped by asha at step 4"


def test_a_trial_of_ours_that_no_worker_runs_is_found(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    agenda = agenda_of(spec, parallel=4)
    for _ in range(2):
        completed(agenda, taken(agenda), 1.0)
    cut_short = agenda.ledger.ask()  # written, and the reply to it was lost
    assert cut_short is not None
    monkeypatch.setattr("sweeps.driver.schedule.orphans._LOOKED_EVERY", 0.0)
    assert taken(agenda).number == cut_short.number + 1, "it may be about to be handed out"
    assert taken(agenda).number == cut_short.number


def test_a_sweep_takes_up_and_waits_for_nothing_that_runs_elsewhere(
    spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program asks with plain Optuna: that trial is its own, however long it runs."""
    monkeypatch.setattr("sweeps.driver.schedule.orphans._LOOKED_EVERY", 0.0)
    agenda = agenda_of(spec)
    completed(agenda, taken(agenda), 4.0)
    theirs = optuna.load_study(study_name=spec.name, storage=spec.study_url).ask()
    ours = []
    while (next_one := agenda.next()) is not Idle.FINISHED:
        assert isinstance(next_one, Assignment)
        ours.append(next_one)
        completed(agenda, next_one, 4.0)
    assert theirs.number not in {each.number for each in ours}
    assert {each.role for each in ours} == {Role.BASELINE, Role.SEARCH, Role.REPLICATE}
    assert sum(each.role is not Role.REPLICATE for each in ours) == spec.budget.trials - 1
    assert agenda.finished
    assert agenda.ledger.record(theirs.number).role is Role.OTHER


def test_what_was_left_behind_and_then_ended_by_somebody_is_over(spec: Spec) -> None:
    before = agenda_of(spec, parallel=3)
    for _ in range(3):
        taken(before)
    ended: list[int] = []
    agenda = agenda_of(spec, on_end=lambda record: ended.append(record.number))
    assert taken(agenda).number == 0
    study = optuna.load_study(study_name=spec.name, storage=spec.study_url)
    study.tell(1, state=optuna.trial.TrialState.FAIL)
    assert taken(agenda).number == 2
    assert ended == [1]


def test_a_late_report_of_a_lost_worker_is_refused(spec: Spec) -> None:
    agenda = agenda_of(spec)
    lost = taken(agenda)
    agenda.finish(lost.number, lost.attempt, LOST)
    again = taken(agenda)
    assert agenda.report(lost.number, lost.attempt, [Point(0, 0, 0.0, 0.0, 1.0)]) is True
    assert agenda.records()[0].losses == {}
    completed(agenda, again, 4.0)
    assert agenda.records()[0].losses == {0: 4.0, 8: 4.0}


def test_the_model_of_a_winner_that_is_not_told_yet_is_kept(spec: Spec) -> None:
    """Two workers end at once: the first trial's model is on disk while the second trial's end is handled."""
    agenda = agenda_of(spec)
    for assignment in (taken(agenda), taken(agenda)):
        completed(agenda, assignment, 4.0)
    winner, other = taken(agenda), taken(agenda)
    sweep = Sweep(spec, Folders(spec.root, spec.name), agenda.ledger)
    for number in range(4):
        sweep.folders.model_dir(number, 1).mkdir(parents=True)
    completed(agenda, other, 3.9)
    tidying = Tidying(sweep)
    completed(agenda, winner, 3.8)
    tidying.ended(agenda.ledger.record(winner.number))
    kept = {number for number in range(4) if sweep.folders.model_dir(number, 1).exists()}
    assert kept == {0, 1, winner.number}


def test_a_base_that_no_worker_can_load_ends_the_sweep_and_spends_no_trial(
    spec: Spec, silent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError("the disk is gone")

    cached_context.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(tli.models.loading, "load_model", broken)
        with pytest.raises(
            SweepError, match=r"no trial can run: OSError: the disk is gone; log: .*log.txt; mend it"
        ):
            run(spec, silent, runner="inline")
    (record,) = Ledger.read(spec.study_url, spec.name).trials()
    assert record.state is State.RUNNING
    after = run(spec, silent, runner="inline")
    assert after.records[0].state is State.COMPLETE
    assert after.records[0].attempt == 2


def test_a_changed_text_is_refused_by_a_resume(write_spec: Any, silent: Any, tmp_path: Path) -> None:
    path = write_spec(trials=2)
    run(load_spec(str(path)), silent, runner="inline")
    text = tmp_path / "text.txt"
    text.write_text(text.read_text().replace("bottles", "glasses"))
    with pytest.raises(ValueError, match="another text than its trials had"):
        run(load_spec(str(path), overrides=["budget.trials=3"]), silent, runner="inline", extend=True)


def test_a_line_that_a_kill_cut_short_costs_no_other(tmp_path: Path) -> None:
    curve = tmp_path / "curve.jsonl"
    points = [Point(step, step * 64, 1.0, 1.0, 4.0, ((step, 4.5),), 7.0) for step in (0, 1, 2)]
    append_curve(curve, points[0])
    with curve.open("a") as out:
        out.write('\n{"step": 1, "tok')
    append_curve(curve, points[1])
    append_curve(curve, points[2])
    assert read_curve(curve) == points
