"""Trials in the study that this sweep did not run: never best, finalist, replicate's source or spent budget."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from sweeps.driver.schedule.agenda import Agenda, Idle
from sweeps.driver.schedule.spending import Spending
from sweeps.driver.single import assignment_of
from sweeps.errors import SpecError
from sweeps.folders import Folders
from sweeps.ledger import Ledger, open_storage
from sweeps.ledger.store.marks import parted
from sweeps.records import Assignment, Outcome, Point, Role, State
from sweeps.report.answer import answer_lines
from sweeps.report.next_commands import Screen
from sweeps.report.status import Line, list_text, status_text
from sweeps.report.styled import plain
from sweeps.results.compare import compare
from sweeps.results.export import export
from sweeps.results.ranking import ranking
from sweeps.results.selection import verdict
from sweeps.results.sweep import Sweep
from sweeps.spec import Spec, load_spec
from sweeps.tracking import NullTracker
from sweeps.tracking.sync import show_trials
from tests.sweeps.conftest import agenda_of, taken

RATES = {"recipe.learning_rate": FloatDistribution(1e-4, 1e-2, log=True)}


def outside(spec: Spec) -> optuna.Study:
    """The study, as another program opens it."""
    return optuna.load_study(study_name=spec.name, storage=open_storage(spec.study_url))


def ended(agenda: Agenda, assignment: Assignment, loss: float = 4.0) -> None:
    for step in (0, assignment.steps):
        points = [Point(step, step * 64, step * 1e6, float(step), loss)]
        agenda.report(assignment.number, assignment.attempt, points)
    agenda.finish(assignment.number, assignment.attempt, Outcome(State.COMPLETE))


def plant(spec: Spec) -> dict[str, int]:
    """One trial of each kind from elsewhere, by what it is."""
    study, found = outside(spec), {}
    ours = study.trials[1]
    added = {
        "finished": create_trial(params={"recipe.learning_rate": 5e-3}, distributions=RATES, value=0.01),
        "stopped": create_trial(state=TrialState.PRUNED, intermediate_values={0: 0.2, 4: 0.1}),
        "failed": create_trial(state=TrialState.FAIL),
        "copied": create_trial(value=0.02, user_attrs=ours.user_attrs, intermediate_values={8: 0.02}),
        "on a rung": create_trial(value=0.03, system_attrs={"completed_rung_0": 0.001}),
        "out of range": create_trial(
            params={"x": 3.0}, distributions={"x": FloatDistribution(0, 9)}, value=0.04
        ),
        "infinite": create_trial(value=float("inf")),
    }
    for name, trial in added.items():
        found[name] = len(study.trials)
        study.add_trial(trial)
    found["asked"] = study.ask().number
    study.enqueue_trial({"injection.k": 4})
    found["taken elsewhere"] = study.ask().number
    return found


def test_trials_from_elsewhere_count_for_nothing(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.driver.schedule.orphans._LOOKED_EVERY", 0.0)
    agenda = agenda_of(spec)
    for _ in range(2):
        ended(agenda, taken(agenda))
    planted = set(plant(spec).values())
    run: list[Assignment] = []
    while (following := agenda.next()) is not Idle.FINISHED:
        assert isinstance(following, Assignment), "nothing is waited for"
        run.append(following)
        ended(agenda, following, 3.0 + 0.01 * len(run))
    assert not planted & {each.number for each in run}
    searched = [each for each in run if each.role is Role.SEARCH]
    assert len(searched) == spec.budget.trials - 2, "none of the budget is spent on them"
    assert all(each.settings for each in run)
    records = agenda.records()
    assert {r.number for r in records if r.role is Role.OTHER} == planted
    found = verdict(records, top=2, seeds=2)
    named = {found.best_grown, found.answer.trial, *found.as_good, *(each.number for each in found.finalists)}
    named |= {each.number for each in (*found.stopped, *found.failed)}
    named |= {r.replicate_of for r in records if r.replicate_of is not None}
    assert not planted & named
    assert sum(found.counts.values()) == spec.budget.trials
    assert sum(found.others.values()) == len(planted)
    assert found.to_json()["others"]["RUNNING"] == 2
    spent = Spending(agenda.ledger).spent["tokens"]
    assert spent == sum(r.tokens or 0 for r in records if r.budgeted) > 0
    again = Ledger.read(spec.study_url, spec.name)
    assert again.unfinished() == []
    assert again.asked == spec.budget.trials


def test_what_is_shown_of_trials_from_elsewhere(
    spec: Spec, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    agenda = agenda_of(spec)
    for _ in range(2):
        ended(agenda, taken(agenda))
    planted = plant(spec)
    ledger = Ledger.read(spec.study_url, spec.name)
    sweep = Sweep(spec, Folders(spec.root, spec.name), ledger)
    records, number = sweep.records, planted["finished"]
    shown = status_text(records, driven=False)
    assert "2 complete" in shown
    assert f"{len(planted)} not run here" in shown
    (line,) = (line for line in shown.splitlines()[1:] if line.split()[:1] == [str(number)])
    assert "not run here" in line
    screen = plain(answer_lines(sweep.verdict, records, Screen(spec.name, spec.name)))
    assert f"not run here     {len(planted)} trials of other programs in the study" in screen
    assert list_text({"a": Line(records, driven=False)}).splitlines()[1].split()[:3] == ["a", "2", "2"]
    told: list[int] = []

    class Tracker(NullTracker):
        def declare(self, number: int, *_: Any, **__: Any) -> None:
            told.append(number)

    show_trials(Tracker(), sweep)
    assert told == [0, 1]
    assert not set(planted.values()) & set(ranking(sweep.verdict, records))
    with pytest.raises(SpecError, match="not run here"):
        export(sweep, tmp_path / "out", trial=number)
    with pytest.raises(SpecError, match="not run here"):
        assignment_of(spec, number)
    monkeypatch.setattr("sweeps.results.compare.find", lambda *_, **__: sweep)
    with pytest.raises(SpecError, match="not run here"):
        compare([f"{spec.name}:{number}"])


def test_the_sampler_learns_and_the_stopping_rule_does_not(spec: Spec) -> None:
    agenda = agenda_of(spec)
    for _ in range(2):
        ended(agenda, taken(agenda))
    planted = plant(spec)
    mirror = Ledger.read(spec.study_url, spec.name)._mirror
    mirror.freshen()
    seen = set(mirror.visible.trials)
    assert planted["finished"] in seen
    assert planted["out of range"] not in seen
    assert not set(planted.values()) & {trial.number for trial in mirror.compared()}
    assert not set(planted.values()) & {trial.number for trial in mirror.visible.complete}
    assert 0.001 not in mirror.on_rung("completed_rung_0")


def test_a_copy_in_the_queue_is_run_for_its_values_alone(spec: Spec) -> None:
    """Of another sweep, with its marks, rungs and losses: none of them is this sweep's."""
    agenda = agenda_of(spec)
    for _ in range(2):
        ended(agenda, taken(agenda))
    first = outside(spec).trials[0]
    marks = {**first.user_attrs, "sweeps:stopped": {"step": 4}, "sweeps:end": 99}
    outside(spec).add_trial(
        create_trial(
            state=TrialState.WAITING,
            params={"recipe.learning_rate": 5e-3},
            distributions=RATES,
            user_attrs=marks,
            system_attrs={**first.system_attrs, "completed_rung_0": 0.001},
            intermediate_values={0: 0.5},
        )
    )
    assignment = taken(agenda)
    assert assignment.number == 2
    assert assignment.role is Role.SEARCH
    assert assignment.settings["recipe"]["learning_rate"] == 5e-3
    record = agenda.ledger.record(2)
    assert record.losses == {}
    assert 0.001 not in agenda.ledger._mirror.on_rung("completed_rung_0")
    trial = outside(spec).trials[2]
    assert "sweeps:stopped" not in trial.user_attrs
    assert "sweeps:hidden" not in trial.system_attrs
    assert trial.system_attrs["sweeps:request"] != first.system_attrs["sweeps:request"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sweeps:role", "king"),
        ("sweeps:settings", [1]),
        ("sweeps:settings", {"injection": 5}),
        ("sweeps:attempt", "1"),
        ("sweeps:totals", {"tokens": "many"}),
        ("sweeps:retries", 3),
        ("sweeps:trial", "of another study/1"),
    ],
)
def test_a_trial_whose_marks_cannot_be_read_is_not_ours(write_spec: Any, name: str, value: Any) -> None:
    spec = load_spec(str(write_spec()))
    agenda = agenda_of(spec)
    ended(agenda, taken(agenda))
    running = taken(agenda)
    trial = outside(spec)._storage.get_all_trials(0 + outside(spec)._study_id)[running.number]
    if parted({name: value})[1]:
        outside(spec)._storage.set_trial_system_attr(trial._trial_id, name, value)
    else:
        outside(spec)._storage.set_trial_user_attr(trial._trial_id, name, value)
    again = Ledger.read(spec.study_url, spec.name)
    assert [record.role for record in again.trials()] == [Role.CONTROL, Role.OTHER]
    assert again.unfinished() == []
    assert again.requeue(running.number) is None


def test_a_study_that_was_moved_is_the_same_study(write_spec: Any, tmp_path: Any) -> None:
    """By Optuna's own function, to another store: its trials are its own there, and so is what they left on disk."""
    spec = load_spec(str(write_spec()))
    agenda = agenda_of(spec)
    ended(agenda, taken(agenda))
    taken(agenda)
    plant(spec)
    url = f"sqlite:///{tmp_path}/moved.db"
    optuna.copy_study(from_study_name=spec.name, from_storage=spec.study_url, to_storage=url)
    before, after = Ledger.read(spec.study_url, spec.name), Ledger.read(url, spec.name)
    assert after.study.study_uuid == before.study.study_uuid
    assert [r.role for r in after.trials()] == [r.role for r in before.trials()]
    assert [after.owner(r) for r in after.trials()] == [before.owner(r) for r in before.trials()]
