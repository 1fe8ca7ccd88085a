"""A search that goes by a downstream task: what is refused, what is minimised, who is best, and what is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from sweeps.checks.evaluation import evaluation_notes, evaluation_problems
from sweeps.cli import documents
from sweeps.driver.service import run
from sweeps.driver.single import assignment_of
from sweeps.errors import InputError, SpecError
from sweeps.folders import Folders
from sweeps.ledger.search.observations import by_score
from sweeps.records import Outcome, Point, Role, State, TrialRecord
from sweeps.report.tasks import task_lines
from sweeps.results.finalists import control_of, finalists
from sweeps.results.sentence import sentence
from sweeps.results.sweep import Sweep
from sweeps.results.tasks import tasks_of
from sweeps.results.winner import compared
from sweeps.spec import Spec, difference, load_spec
from sweeps.task_scores import Aimed
from sweeps.worker.trial import WorkerContext, for_workers, run_trial
from tests.sweeps.aimed_specs import AIM as _AIM
from tests.sweeps.aimed_specs import write_aimed
from tests.sweeps.conftest import Silent, agenda_of, taken


def write(root: Path, model: Path, *, limit: int = 12, metric: str = _AIM, **replaced: str) -> str:
    """A spec file whose search goes by COPA alone."""
    return write_aimed(root, model, limit=limit, objective=f"{{metric: {metric}}}", **replaced)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[[str], Path]) -> Sweep:
    root = tmp_path_factory.mktemp("aimed")
    return run(load_spec(write(root, tiny_model("llama"))), Silent(), runner="inline")


@pytest.fixture
def spec(tmp_path: Path, tiny_model: Callable[[str], Path]) -> Spec:
    return load_spec(write(tmp_path, tiny_model("llama")))


def mistakes(path: str, *overrides: str) -> dict[str, Any]:
    with pytest.raises(SpecError) as raised:
        load_spec(path, overrides=overrides)
    return {each.where.rpartition(" ")[2]: each for each in raised.value.problems}


# -- what is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "remedy"),
    [
        ("kobest_cop/acc", "kobest_copa/acc"),
        ("hellaswag/acc", "evaluation: {tasks: [hellaswag]}"),
        ("kobest_copa", "kobest_copa/acc"),
        ("eval_los", "eval_loss"),
        ("/acc", "eval_loss"),
        ("kobest_copa/", "kobest_copa/acc"),
    ],
)
def test_a_metric_that_is_none_is_refused_with_the_nearest(
    metric: str, remedy: str, tmp_path: Path, tiny_model: Callable[[str], Path]
) -> None:
    found = mistakes(write(tmp_path, tiny_model("llama"), metric=metric))
    assert found["objective.metric"].remedy == remedy


def test_what_goes_by_losses_is_refused_beside_a_task(
    tmp_path: Path, tiny_model: Callable[[str], Path]
) -> None:
    path = write(tmp_path, tiny_model("llama"))
    others = {
        "stopping.rule": "learned",
        "objective.answer": "each",
        "objective.cost": "parameters",
        "warm_start": "[another]",
        "evaluation.on": "[finalists]",
    }
    found = mistakes(path, *(f"{name}={value}" for name, value in others.items()))
    named = {where.removeprefix("--set ").partition("=")[0] for where in found}
    assert set(others) <= named, found


def test_a_metric_that_the_task_does_not_have_is_found_before_anything_is_made(
    tmp_path: Path, tiny_model: Callable[[str], Path]
) -> None:
    spec = load_spec(write(tmp_path, tiny_model("llama"), metric="kobest_copa/ac"))
    (problem,) = evaluation_problems(spec)
    assert "objective.metric" in problem.where or "aimed.yaml" in problem.where
    assert problem.remedy == _AIM
    assert "f1" in problem.expected


def test_scores_of_another_limit_are_another_sweep(tmp_path: Path, tiny_model: Callable[[str], Path]) -> None:
    one, other = (load_spec(write(tmp_path, tiny_model("llama"), limit=limit)) for limit in (12, 8))
    assert difference(one, other) == ["evaluation.limit: 12 -> 8"]
    assert any(_AIM in note for note in evaluation_notes(one))


# -- what is minimised, and who is best ---------------------------------------------------------------


def record(number: int, loss: float, score: float, role: Role = Role.SEARCH, **more: Any) -> TrialRecord:
    """A complete trial whose score says otherwise than its loss."""
    method = "none" if role is Role.CONTROL else "tli"
    settings = {
        "injection": {"method": method, "k": 2},
        "recipe": {"learning_rate": 1e-3 * (1 + number)},
        "seed": more.get("seed", 0),
    }
    aim = Aimed(_AIM, score, higher_is_better=True)
    given = {"seed": 0, "aim": aim, "losses": {0: 5.0, 8: loss}, "value": loss, **more}
    return TrialRecord(number, role, State.COMPLETE, {}, settings, steps=8, **given)


def test_finalists_controls_and_winner_go_by_the_score_and_losses_stay_losses() -> None:
    records = [
        record(0, 3.0, 0.5, Role.CONTROL),
        record(1, 3.4, 0.7, Role.CONTROL),
        record(2, 2.0, 0.55),
        record(3, 2.5, 0.8),
        record(4, 2.6, 0.75),
    ]
    best = control_of(records)
    assert best is not None
    assert best.number == 1
    assert [each.number for each in finalists(records, 2)] == [3, 4]
    for number, score in ((3, 0.6), (4, 0.65)):
        kept = next(each for each in records if each.number == number)
        records += [record(len(records), kept.value or 0, score, Role.REPLICATE, seed=1, replicate_of=number)]
    found = compared(records, top=2, seeds=1, per=None, depth=None, margin=1.0)
    assert found.winner is not None
    assert (found.winner.number, found.as_good, found.winner.mean) == (4, (), 2.6)


def test_the_process_sees_negative_scores_and_nothing_of_losses() -> None:
    stopped = TrialRecord(1, Role.SEARCH, State.PRUNED, {}, {}, 0, 8, {0: 5.0, 4: 3.0})
    other = TrialRecord(2, Role.OTHER, State.COMPLETE, {}, {}, 0, 8, value=3.0)
    (seen,) = by_score([record(0, 3.0, 0.6), stopped, other])
    assert (seen.number, seen.value, dict(seen.losses)) == (0, -0.6, {})


def test_a_trial_of_the_search_without_its_score_is_no_result(spec: Spec) -> None:
    agenda = agenda_of(spec, parallel=1)
    control = taken(agenda)
    points = [Point(step, step * 64, 0.0, 0.0, 3.0) for step in control.report_steps]
    agenda.report(control.number, control.attempt, points)
    agenda.finish(control.number, control.attempt, Outcome(State.COMPLETE))
    found = agenda.ledger.record(control.number)
    assert (found.state, found.value, found.aim) == (State.FAIL, None, None)
    assert _AIM in (found.reason or "")


def test_a_trial_of_the_search_that_cannot_be_scored_fails_in_its_worker(spec: Spec) -> None:
    (Path(str(spec.evaluation.tasks_from)) / "COPA" / "test.tsv").unlink()
    at_work = for_workers(spec)
    assignment = assignment_of(at_work, 1)
    assignment = type(assignment)(**{**vars(assignment), "role": Role.SEARCH, "owner": "one"})
    with pytest.raises(InputError):
        list(run_trial(WorkerContext(at_work), assignment, Folders(at_work.root, at_work.name)))


# -- a sweep ------------------------------------------------------------------------------------------


def test_every_trial_is_scored_and_its_value_in_optuna_is_the_negative_score(swept: Sweep) -> None:
    study = optuna.load_study(study_name="aimed", storage=swept.spec.study_url)
    searched = [each for each in swept.records if not each.role.after]
    assert {each.role for each in searched} == {Role.CONTROL, Role.BASELINE, Role.SEARCH}
    for each in searched:
        assert each.state is State.COMPLETE
        assert set(each.tasks) == {"kobest_copa"}  # the others are for those that claims rest on
        assert each.aim is not None
        assert each.aim.score == each.tasks["kobest_copa"].metrics["acc"].value
        assert each.value == each.loss
        if each.role is not Role.CONTROL:
            assert study.trials[each.number].value == -each.aim.score
    fresh = [each for each in swept.records if each.role is Role.REPLICATE]
    assert all(set(each.tasks) == {"kobest_copa", "kobest_boolq"} for each in fresh)
    assert study.direction is optuna.study.StudyDirection.MINIMIZE


def test_the_best_grown_model_has_the_best_mean_score_and_is_best_to_optuna(swept: Sweep) -> None:
    found = swept.verdict
    study = optuna.load_study(study_name="aimed", storage=swept.spec.study_url)
    assert study.best_trial.number == found.best_grown
    means = {each.number: (-(each.score or 0.0), each.mean) for each in found.finalists}
    assert means[found.best_grown or 0] == min(means.values())
    assert found.objective == _AIM
    assert f"{_AIM} chose trial {found.best_grown}" in sentence(found, swept.records)
    table = tasks_of(swept)
    assert table is not None
    assert table.objective == _AIM
    lines = dict(task_lines(table))
    assert lines["chosen by"].startswith(_AIM)
    assert all("nats" not in text for text in lines.values())
    assert documents.ran(swept, found, {})["verdict"]["tasks"]["objective"] == _AIM


def test_a_finished_sweep_is_read_again_as_it_was(swept: Sweep) -> None:
    number = len(swept.records)
    again = run(swept.spec, Silent(), runner="inline")
    assert again.records == swept.records
    assert len(again.records) == number
