"""One contract for every store of the ledger: SQLite and PostgreSQL."""

from __future__ import annotations

import math
from typing import Any

import optuna
import pytest

from sweeps.errors import SpecError, StaleAttemptError
from sweeps.ledger import Ledger, open_storage
from sweeps.records import Point, Role, State
from sweeps.spec import Spec, load_spec

FINITE = {"recipe.learning_rate: {log: [1e-4, 1e-2]}": "recipe.learning_rate: {choice: [1e-3, 2e-3]}"}
SMALL = {
    **FINITE,
    "choice: [copy, identity, random]": "choice: [copy]",
    "choice: [1, 2, 4]": "choice: [1, 2]",
}


@pytest.fixture
def ledger(url: str, spec: Spec) -> Ledger:
    return Ledger.open(url, spec)


def point(step: int, loss: float) -> Point:
    return Point(step=step, tokens=step * 64, flops=1.0 * step, seconds=0.1 * step, eval_loss=loss)


def complete(ledger: Ledger, number: int, loss: float) -> None:
    ledger.report(number, 1, [point(0, 5.0), point(8, loss)])
    ledger.tell(number, 1, State.COMPLETE, totals={"seconds": 0.8, "tokens": 512, "flops": 8.0})


def test_a_trial_from_ask_to_tell(ledger: Ledger) -> None:
    assignment = ledger.ask()
    assert assignment is not None
    assert (assignment.number, assignment.attempt, assignment.role) == (0, 1, Role.SEARCH)
    assert assignment.settings["recipe"]["tokens"] == 512
    assert assignment.report_steps[-1] == assignment.steps == 8
    complete(ledger, 0, 4.0)
    (record,) = ledger.trials()
    assert record.state is State.COMPLETE
    assert record.value == record.loss == 4.0
    assert record.losses == {0: 5.0, 8: 4.0}
    assert (record.tokens, record.flops, record.seconds) == (512, 8.0, 0.8)
    assert set(record.params) == {"injection.k", "injection.init", "recipe.learning_rate"}
    for path, value in record.params.items():
        section, _, name = path.partition(".")
        assert record.settings[section][name] == value


def test_plain_optuna_sees_everything(ledger: Ledger, url: str, spec: Spec) -> None:
    ledger.start(Role.CONTROL, spec.trial.model_dump())
    asked = ledger.ask()
    assert asked is not None
    complete(ledger, 0, 4.5)
    ledger.report(1, 1, [point(0, 5.0), point(2, 4.8)])
    ledger.tell(1, 1, State.PRUNED, reason="stopped by asha at step 2")
    study = optuna.load_study(study_name=spec.name, storage=open_storage(url))
    assert [t.state.name for t in study.trials] == ["PRUNED", "PRUNED"]
    assert (study.trials[0].value, study.trials[0].user_attrs["sweeps:value"]) == (None, 4.5)
    assert study.trials[1].intermediate_values == {0: 5.0, 2: 4.8}
    assert study.trials[1].value == 4.8
    assert study.trials[1].user_attrs["sweeps:reason"] == "stopped by asha at step 2"
    assert [record.state for record in ledger.trials()] == [State.COMPLETE, State.PRUNED]
    with pytest.raises(ValueError, match=r"does not exist|completed"):
        _ = study.best_trial  # the control is none of the search


def test_telling_the_same_twice_is_harmless_and_something_else_is_refused(ledger: Ledger) -> None:
    ledger.ask()
    complete(ledger, 0, 4.0)
    ledger.tell(0, 1, State.COMPLETE)
    with pytest.raises(StaleAttemptError, match="the trial is COMPLETE"):
        ledger.tell(0, 1, State.FAIL, reason="too late")
    assert ledger.trials()[0].value == 4.0


def test_a_stale_attempt_is_refused(ledger: Ledger) -> None:
    ledger.ask()
    ledger.report(0, 1, [point(0, 5.0)])
    assert ledger.requeue(0).attempt == 2
    with pytest.raises(StaleAttemptError, match="attempt 1 is refused"):
        ledger.report(0, 1, [point(2, 1.0)])
    with pytest.raises(StaleAttemptError):
        ledger.tell(0, 1, State.COMPLETE)
    ledger.report(0, 2, [point(2, 4.9)])
    assert ledger.trials()[0].losses == {0: 5.0, 2: 4.9}


def test_a_step_keeps_its_first_loss(ledger: Ledger) -> None:
    ledger.ask()
    ledger.report(0, 1, [point(0, 5.0)])
    ledger.report(0, 1, [point(0, 1.0), point(1, 4.0)])
    assert ledger.trials()[0].losses == {0: 5.0, 1: 4.0}


def test_failures_have_a_reason_and_no_value(ledger: Ledger) -> None:
    ledger.ask()
    ledger.report(0, 1, [point(0, 5.0)])
    ledger.tell(0, 1, State.FAIL, reason="diverged: train loss is nan")
    (record,) = ledger.trials()
    assert (record.state, record.value, record.reason) == (State.FAIL, None, "diverged: train loss is nan")


def test_the_same_results_give_the_same_proposals(url: str, spec: Spec, write_spec: Any) -> None:
    """A restart between any two asks changes nothing: seed from study and number, sampler from the ledger."""

    def proposals(name: str, *, restart: bool) -> list[dict[str, Any]]:
        named = load_spec(str(write_spec(f"{spec.name}-{name}", study=url)))
        ledger = Ledger.open(url, named)
        for number in range(14):
            if restart:
                ledger = Ledger.open(url, named)
            assert ledger.ask() is not None
            complete(ledger, number, 4.0 + math.sin(number))
        return [dict(record.params) for record in ledger.trials()]

    straight = proposals("a", restart=False)
    assert straight == proposals("b", restart=True)
    assert len({tuple(sorted(p.items())) for p in straight}) == 14


def test_a_finite_space_is_never_repeated_and_ends(url: str, spec: Spec, write_spec: Any) -> None:
    ledger = Ledger.open(url, load_spec(str(write_spec(f"{spec.name}-small", study=url, replace=SMALL))))
    asked = 0
    while (assignment := ledger.ask()) is not None:
        complete(ledger, assignment.number, 4.0 + asked)
        asked += 1
    assert asked == 4
    assert len({tuple(sorted(record.params.items())) for record in ledger.trials()}) == 4


def test_controls_and_replicates_are_not_seen_by_the_sampler(url: str, spec: Spec, write_spec: Any) -> None:
    """Planted beside the search with absurdly good losses, they change no proposal and no rung."""

    def decisions(name: str, *, planted: bool) -> list[Any]:
        named = load_spec(str(write_spec(f"{spec.name}-{name}", study=url)))
        ledger = Ledger.open(url, named)
        for number in range(12):
            # The same numbers in both studies, so that the seeds agree.
            role = Role.CONTROL if number % 2 == 0 else Role.REPLICATE
            first = ledger.start(role, named.trial.model_dump(), params={"injection.k": 4} if planted else {})
            if planted:
                complete(ledger, first.number, 0.001)
            else:
                ledger.tell(first.number, 1, State.FAIL, reason="absent")
        told = []
        for number in range(12, 26):
            assignment = ledger.ask()
            assert assignment is not None
            told.append(ledger.report(number, 1, [point(0, 5.0), point(2, 4.0 + math.cos(number))]))
            ledger.tell(number, 1, State.PRUNED)
        return [*told, *(dict(record.params) for record in ledger.trials()[12:])]

    assert decisions("with", planted=True) == decisions("without", planted=False)


def test_the_stopping_rule_survives_a_restart(ledger: Ledger, url: str, spec: Spec) -> None:
    stops = []
    for number, loss in enumerate([4.0, 4.5, 3.9, 4.2, 3.8]):
        ledger = Ledger.open(url, spec)
        ledger.ask()
        stops.append(ledger.report(number, 1, [point(0, 5.0), point(2, loss)]))
        ledger.tell(number, 1, State.PRUNED if stops[-1] else State.FAIL)
    # Half of those on the rung go on; the first has nobody to lose against.
    assert stops == [False, True, False, True, False]


def test_what_is_enqueued_outside_is_taken(ledger: Ledger, url: str, spec: Spec) -> None:
    study = optuna.load_study(study_name=spec.name, storage=open_storage(url))
    study.enqueue_trial({"injection.k": 4, "recipe.learning_rate": 0.005})
    assignment = ledger.take_waiting()
    assert assignment is not None
    assert assignment.settings["injection"]["k"] == 4
    assert assignment.settings["recipe"]["learning_rate"] == 0.005
    assert assignment.settings["injection"]["init"] in ("copy", "identity", "random")
    assert ledger.take_waiting() is None
    (trial,) = optuna.load_study(study_name=spec.name, storage=open_storage(url)).trials
    assert trial.params["injection.k"] == 4
    assert set(trial.params) == {"injection.k", "injection.init", "recipe.learning_rate"}


WRONG = [
    ({"recipe.lrr": 1.0}, "enqueued: recipe.lrr is not searched; searched are injection.k,"),
    ({"recipe.learning_rate": 7.0}, "enqueued: recipe.learning_rate=7.0 is outside its range"),
    ({"recipe.learning_rate": math.inf}, "enqueued: recipe.learning_rate=inf is outside its range"),
    ({"recipe.learning_rate": math.nan}, "enqueued: recipe.learning_rate=nan is outside its range"),
    ({"injection.k": True}, "enqueued: injection.k=True is outside its range"),
    ({"injection.init": "zeros"}, "enqueued: injection.init='zeros' is outside its range"),
    ({"injection.init": None}, "enqueued: injection.init=None is outside its range"),
]


@pytest.mark.parametrize(("params", "reason"), WRONG)
def test_what_is_enqueued_wrongly_fails_with_the_reason(
    ledger: Ledger, url: str, spec: Spec, params: dict[str, Any], reason: str
) -> None:
    study = optuna.load_study(study_name=spec.name, storage=open_storage(url))
    study.enqueue_trial(params)
    assert ledger.take_waiting() is None
    (record,) = ledger.trials()
    assert record.state is State.FAIL
    assert record.reason is not None
    assert record.reason.startswith(reason)
    assert record.settings == {}


@pytest.mark.parametrize(("params", "reason"), WRONG)
def test_a_kill_while_a_wrong_one_is_taken_ends_the_same(
    ledger: Ledger, url: str, spec: Spec, params: dict[str, Any], reason: str
) -> None:
    storage = open_storage(url)
    optuna.load_study(study_name=spec.name, storage=storage).enqueue_trial(params)
    ledger.refresh()
    assert ledger._mirror.claim(0)  # and killed right after it
    assert ledger.requeue(0) is None
    (record,) = ledger.trials()
    assert record.state is State.FAIL
    assert str(record.reason).startswith(reason)


def test_enqueued_numbers_are_taken_in_the_type_of_their_range(url: str, spec: Spec, write_spec: Any) -> None:
    replace = {"injection.k: {choice: [1, 2, 4]}": "injection.k: {int: [1, 4]}"}
    ledger = Ledger.open(url, load_spec(str(write_spec(f"{spec.name}-int", study=url, replace=replace))))
    study = optuna.load_study(study_name=f"{spec.name}-int", storage=open_storage(url))
    study.enqueue_trial({"injection.k": 4.0, "recipe.learning_rate": 0.01})
    assignment = ledger.take_waiting()
    assert assignment is not None
    assert repr(assignment.settings["injection"]["k"]) == "4"


CONDITIONAL = {
    "injection.init: {choice: [copy, identity, random]}": "injection.init: {choice: [copy, damped]}\n"
    "  injection.scale: {uniform: [0.1, 0.9], when: {injection.init: damped}}"
}


def test_a_conditional_value_brings_what_it_needs(url: str, spec: Spec, write_spec: Any) -> None:
    ledger = Ledger.open(url, load_spec(str(write_spec(f"{spec.name}-when", study=url, replace=CONDITIONAL))))
    study = optuna.load_study(study_name=f"{spec.name}-when", storage=open_storage(url))
    for _ in range(6):
        study.enqueue_trial({"injection.scale": 0.3})
        assignment = ledger.take_waiting()
        assert assignment is not None
        assert assignment.settings["injection"]["init"] == "damped"
        assert assignment.settings["injection"]["scale"] == 0.3
    study.enqueue_trial({"injection.scale": 0.3, "injection.init": "copy"})
    assert ledger.take_waiting() is None
    reason = ledger.trials()[6].reason
    assert reason == "enqueued: injection.scale has no effect here; it needs injection.init in ['damped']"


def test_conditions_hold_for_what_is_asked(url: str, spec: Spec, write_spec: Any) -> None:
    ledger = Ledger.open(url, load_spec(str(write_spec(f"{spec.name}-ask", study=url, replace=CONDITIONAL))))
    for number in range(20):
        assert ledger.ask() is not None
        complete(ledger, number, 4.0 + math.sin(number))
    inits = [record.params["injection.init"] for record in ledger.trials()]
    assert set(inits) == {"copy", "damped"}
    for record in ledger.trials():
        assert ("injection.scale" in record.params) == (record.params["injection.init"] == "damped")


def test_a_stepped_range_is_exhausted_too(url: str, spec: Spec, write_spec: Any) -> None:
    replace = {
        "k: 2, init: identity": "k: 2, init: damped",  # which reads a scale
        "injection.k: {choice: [1, 2, 4]}": "injection.k: {choice: [1]}",
        "injection.init: {choice: [copy, identity, random]}": "injection.scale: {uniform: [0.1, 0.7], step: 0.1}",
        "recipe.learning_rate: {log: [1e-4, 1e-2]}": "recipe.warmup: {choice: [0.0]}",
    }
    ledger = Ledger.open(url, load_spec(str(write_spec(f"{spec.name}-step", study=url, replace=replace))))
    while (assignment := ledger.ask()) is not None:
        complete(ledger, assignment.number, 4.0)
    scales = sorted(record.params["injection.scale"] for record in ledger.trials())
    assert scales == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    assert len(scales) == 7


def test_a_fine_step_is_counted_and_not_listed(url: str, spec: Spec, write_spec: Any) -> None:
    replace = {
        "recipe.learning_rate: {log: [1e-4, 1e-2]}": "recipe.warmup: {uniform: [0.0, 0.5], step: 1e-12}"
    }
    ledger = Ledger.open(url, load_spec(str(write_spec(f"{spec.name}-fine", study=url, replace=replace))))
    assert ledger.space.finite is False
    assert ledger.ask() is not None


@pytest.mark.parametrize(("grace", "first"), [("0.25", 2), ("0.5", 4)])
def test_the_median_rule_waits_for_the_grace(
    url: str, spec: Spec, write_spec: Any, grace: str, first: int
) -> None:
    replace = {"rule: asha, grace: 0.25": f"rule: median, grace: {grace}"}
    ledger = Ledger.open(url, load_spec(str(write_spec(f"{spec.name}-median", study=url, replace=replace))))
    for number in range(5):
        ledger.ask()
        ledger.report(number, 1, [point(step, 4.0) for step in (0, 1, 2, 3, 4, 6)])
        complete_rest = [point(8, 3.9)]
        ledger.report(number, 1, complete_rest)
        ledger.tell(number, 1, State.COMPLETE)
    ledger.ask()
    stopped = next(step for step in range(8) if ledger.report(5, 1, [point(step, 9.0)]))
    assert stopped == first


def test_a_study_that_was_killed_while_it_was_made_is_made_again(url: str, spec: Spec) -> None:
    """After each of the writes that make it."""
    storage = open_storage(url)
    study_id = storage.create_new_study([optuna.study.StudyDirection.MINIMIZE], spec.name)
    Ledger.open(url, spec)
    assert storage.get_study_user_attrs(study_id)["sweeps:spec"]
    other = spec.model_copy(update={"name": f"{spec.name}-b"})
    study_id = storage.create_new_study([optuna.study.StudyDirection.MINIMIZE], other.name)
    storage.set_study_user_attr(study_id, "sweeps:identity", "abc")
    ledger = Ledger.open(url, other)
    assert ledger.study.study_uuid != ""
    assert ledger.ask() is not None


def test_another_base_or_text_under_the_same_name_is_refused(url: str, spec: Spec) -> None:
    Ledger.open(url, spec, {"base": "a" * 64, "text": "b" * 64})
    Ledger.open(url, spec, {"base": "a" * 64, "text": "b" * 64})
    with pytest.raises(SpecError) as error:
        Ledger.open(url, spec, {"base": "c" * 64, "text": "d" * 64})
    assert [problem.got for problem in error.value.problems] == [
        f"another {what} than its trials had (digest {new * 12}, theirs {old * 12})"
        for what, new, old in (("base", "c", "a"), ("text", "d", "b"))
    ]


def test_another_spec_is_refused_with_every_difference(
    ledger: Ledger, url: str, spec: Spec, write_spec: Any
) -> None:
    other = load_spec(
        str(
            write_spec(
                spec.name, study=url, replace={"tokens: 512": "tokens: 640", "keep: 0.5": "keep: 0.25"}
            )
        )
    )
    with pytest.raises(SpecError) as error:
        Ledger.open(url, other)
    text = str(error.value)
    assert "trial.recipe.tokens: 512 -> 640" in text
    assert "stopping.keep: 0.5 -> 0.25" in text
    assert len(error.value.problems) == 2


def test_a_study_of_somebody_else_is_left_alone(url: str, spec: Spec) -> None:
    storage = open_storage(url)
    theirs = optuna.create_study(study_name=spec.name, storage=storage)
    theirs.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(SpecError, match="a study that was not made by sweeps"):
        Ledger.open(url, spec)
    with pytest.raises(SpecError, match="a study that was not made by sweeps"):
        Ledger.read(url, spec.name)
    assert optuna.load_study(study_name=spec.name, storage=storage).user_attrs == {}


def test_reading_a_sweep_that_is_not_there_names_those_that_are(ledger: Ledger, url: str, spec: Spec) -> None:
    with pytest.raises(SpecError, match=f"no such study.*{spec.name}"):
        Ledger.read(url, "nothing-of-the-kind")
