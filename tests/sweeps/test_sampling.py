"""What is tried next: the same whenever it is asked, by whichever driver, and ready before it is needed."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import optuna
import pytest

from sweeps.driver.schedule.agenda import Agenda, Idle
from sweeps.ledger import Ledger, open_storage
from sweeps.ledger.search import sampling
from sweeps.records import Assignment, Outcome, Point, State
from sweeps.spec import Spec, load_spec
from tests.sweeps.conftest import agenda_of, taken

_SLOTS = 4


def point(step: int, loss: float) -> Point:
    return Point(step, step * 64, 1.0 * step, 0.1 * step, loss)


def _sweep(ledger: Ledger, trials: int, before_end: Callable[[], None] = lambda: None) -> None:
    """Go on until so many trials were asked for, and leave the slots taken; ends come in an order of their own."""
    running = [record.number for record in ledger.unfinished()]
    while True:
        while len(running) < _SLOTS:
            if ledger.asked == trials:
                return
            asked = ledger.ask()
            assert asked is not None
            running.append(asked.number)
        before_end()
        number = running.pop(random.Random(ledger.asked).randrange(_SLOTS))
        loss = 4.0 + math.sin(7 * number)
        ledger.report(number, 1, [point(0, 5.0), point(4, loss)])
        ledger.tell(
            number, 1, State.FAIL if number % 7 == 3 else State.PRUNED if number % 3 else State.COMPLETE
        )


def test_a_proposal_knows_what_is_tried_elsewhere_since(url: str, spec: Spec, write_spec: Any) -> None:
    """A trial that was asked for with plain Optuna gets its values while all slots are taken: the sampler learns of
    them, and may propose them all the same, as what is run elsewhere is no result of this sweep."""
    without_rates = {"  recipe.learning_rate: {log: [1e-4, 1e-2]}\n": ""}
    finite = load_spec(str(write_spec(f"{spec.name}-finite", study=url, replace=without_rates)))
    with Ledger.driven(url, finite) as ledger:
        _sweep(ledger, 6)
        study = optuna.load_study(study_name=finite.name, storage=open_storage(url))
        theirs = study.ask()
        assert ledger.take_waiting() is None
        ledger.prepare()
        ahead = ledger._proposals._prepared
        assert ahead is not None
        assert ahead.params is not None
        for name, distribution in ledger.space.distributions(ahead.params).items():
            value = distribution.to_internal_repr(ahead.params[name])
            study._storage.set_trial_param(theirs._trial_id, name, value, distribution)
        ledger.refresh()
        number = min(record.number for record in ledger.unfinished())
        ledger.report(number, 1, [point(0, 5.0), point(4, 3.0)])
        ledger.tell(number, 1, State.COMPLETE)
        asked = ledger.ask()
        assert asked is not None
        assert ledger.record(theirs.number).params == ahead.params
        seen = ledger._proposals._prepared
        assert seen is not None
        assert (theirs.number, len(ahead.params)) in seen.running


# A sampler meets a store in what it reads back alone, and that is the same for all of them.
@pytest.mark.parametrize(
    ("url", "sampler", "window"),
    [
        ("sqlite", "tpe", 10),
        ("sqlite", "tpe", 1000),
        ("sqlite", "gp", 1000),
        pytest.param("postgresql", "tpe", 10, marks=pytest.mark.postgres),
        pytest.param("postgresql", "tpe", 1000, marks=[pytest.mark.postgres, pytest.mark.slow]),
        pytest.param("postgresql", "gp", 1000, marks=[pytest.mark.postgres, pytest.mark.slow]),
    ],
    indirect=["url"],
)
def test_a_proposal_is_the_same_prepared_or_not_resumed_or_not(
    sampler: str, window: int, url: str, spec: Spec, write_spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "WINDOW", window)
    monkeypatch.setattr(sampling, "_BELOW", 5)  # so that the window does not hold all by being the best

    def proposals(name: str, lifetimes: list[int], *, prepared: bool) -> list[dict[str, Any]]:
        path = write_spec(f"{spec.name}-{name}", study=url)
        named = load_spec(str(path), overrides=[f"sampler.name={sampler}"])
        for trials in lifetimes:
            with Ledger.driven(url, named) as ledger:
                _sweep(ledger, trials, ledger.prepare if prepared else lambda: None)
        return [dict(record.params) for record in Ledger.read(url, named.name).trials()]

    straight = proposals("straight", [24], prepared=False)
    assert straight == proposals("ahead", [24], prepared=True)
    assert straight == proposals("resumed", [11, 12, 18, 24], prepared=False)
    assert straight == proposals("both", [11, 12, 18, 24], prepared=True)


def test_a_free_slot_waits_for_no_sampler(write_spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """While all are taken the agenda has the next proposal worked out, and asking is one write."""
    sampled: list[int] = []
    drawn = sampling.Proposals._drawn

    def spy(self: Any, turn: sampling.Turn, *rest: Any) -> dict[str, Any] | None:
        sampled.append(turn.number)
        return drawn(self, turn, *rest)

    monkeypatch.setattr(sampling.Proposals, "_drawn", spy)
    agenda = agenda_of(load_spec(str(write_spec(trials=12))))
    running = [taken(agenda), taken(agenda)]  # the control and the baseline
    for number in range(2, 12):
        assert agenda.next() is Idle.WAIT
        assert agenda.next() is Idle.WAIT
        assert sampled == [number], "once"
        _complete(agenda, running.pop(number % 2))
        sampled.clear()
        running.append(taken(agenda))
        assert running[-1].number == number
        assert sampled == []
    assert agenda.next() is Idle.WAIT
    assert sampled == [], "the budget has room for no other"


def _complete(agenda: Agenda, assignment: Assignment) -> None:
    agenda.report(assignment.number, 1, [point(0, 5.0), point(8, 4.0 + math.sin(assignment.number))])
    agenda.finish(assignment.number, 1, Outcome(State.COMPLETE))


def test_a_proposal_that_does_not_fit_any_more_is_not_used(url: str, spec: Spec) -> None:
    """Two ended, or another began: then the one that is asked for is worked out anew, as it always would be."""
    with Ledger.driven(url, spec) as ledger:
        _sweep(ledger, 12)
        ledger.prepare()
        running = [record.number for record in ledger.unfinished()]
        for number in running[:2]:
            ledger.report(number, 1, [point(0, 5.0), point(4, 3.0)])
            ledger.tell(number, 1, State.COMPLETE)
        anew = sampling.Proposals(
            ledger._seen,
            ledger.space,
            sampler="gp",
            seed=spec.sampler.seed,
            aim=sampling.Aim(spec.search, rate=ledger._good_rate),
        )
        first = anew.propose(sampling.Turn(12, 12))
        asked = ledger.ask()
        assert asked is not None
        assert ledger.record(12).params == first


@pytest.mark.parametrize("sampler", ["gp", "tpe", "random", "qmc"])
def test_trials_of_other_programs_shift_no_draw(sampler: str, write_spec: Any) -> None:
    """They take numbers in the study; what the sampler learns nothing from changes nothing that it proposes."""

    def proposals(name: str, lifetimes: list[int], added_before: list[int]) -> list[dict[str, Any]]:
        named = load_spec(str(write_spec(name)), overrides=[f"sampler.name={sampler}"])
        url, told = named.study_url, 0
        for until in lifetimes:
            with Ledger.driven(url, named) as ledger:
                study = optuna.load_study(study_name=named.name, storage=open_storage(url))
                for turn in range(told, until):
                    if turn in added_before:
                        study.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL))
                    if turn == 5:
                        study.enqueue_trial({"injection.k": 4})
                    ledger.refresh()
                    asked = ledger.take_waiting() or ledger.ask()
                    assert asked is not None
                    points = [point(0, 5.0), point(4, 4.0 + math.sin(7 * turn))]
                    ledger.report(asked.number, 1, points)
                    ledger.tell(asked.number, 1, State.PRUNED if turn % 3 else State.COMPLETE)
            told = until
        records = Ledger.read(url, named.name).trials()
        return [dict(record.params) for record in records if record.ours]

    straight = proposals("alone", [16], [])
    assert straight[5]["injection.k"] == 4
    assert straight == proposals("among", [16], [0, 1, 5, 6, 12])
    assert straight == proposals("resumed", [6, 7, 16], [1, 5, 6, 12])


def test_a_resumed_driver_asks_the_same_in_a_long_study(
    url: str, spec: Spec, write_spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the sampler sees a window of it."""
    monkeypatch.setattr(sampling, "WINDOW", 10)

    def proposals(name: str, lifetimes: list[int]) -> list[dict[str, Any]]:
        path = write_spec(f"{spec.name}-{name}", study=url)
        named = load_spec(str(path), overrides=["sampler.name=tpe"])
        for trials in lifetimes:
            with Ledger.driven(url, named) as ledger:
                for _ in range(trials):
                    number = ledger.ask().number  # type: ignore[union-attr]
                    ledger.report(number, 1, [point(0, 5.0), point(8, 4.0 + math.sin(number))])
                    ledger.tell(number, 1, State.PRUNED if number % 3 else State.COMPLETE)
        return [dict(record.params) for record in Ledger.read(url, named.name).trials()]

    straight = proposals("straight", [36])
    assert straight == proposals("resumed", [11, 1, 14, 10])
    monkeypatch.setattr(sampling, "WINDOW", 1000)
    assert straight[:10] == proposals("whole", [36])[:10]


def test_what_the_sampler_looks_at_of_a_trial_is_enough(
    url: str, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a long study it sees no whole trials, and picks what it would pick from those."""
    monkeypatch.setattr(sampling, "WINDOW", 20)
    with Ledger.driven(url, spec) as driven:
        _see_enough(driven, monkeypatch)


def _see_enough(driven: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(5)
    for number in range(40):
        assert driven.ask() is not None
        driven.report(number, 1, [point(0, 5.0), point(2, chance.choice([4.5, math.nan, math.inf]))])
        if number % 8:
            driven.report(number, 1, [point(chance.choice([4, 8]), chance.uniform(3, 5))])
            # So few are complete that stopped ones are among the best.
            state = State.COMPLETE if number == 3 else chance.choice([State.PRUNED, State.FAIL])
            driven.tell(number, 1, state)

    def picks() -> list[dict[str, Any] | None]:
        proposals = sampling.Proposals(driven._seen, driven.space, sampler="tpe", seed=0)
        return [proposals.propose(sampling.Turn(number, number)) for number in range(40, 60)]

    glanced = picks()
    monkeypatch.setattr(sampling, "TrialSummary", _Whole)
    assert glanced == picks()


class _Whole:
    """A trial as it is; `of` tells whether it is still the same."""

    def __init__(self, trial: Any) -> None:
        self.of = trial

    def __getattr__(self, name: str) -> Any:
        return getattr(self.of, name)


def test_a_grid_is_walked_in_order_and_ends(write_spec: Any) -> None:
    without_rates = {"  recipe.learning_rate: {log: [1e-4, 1e-2]}\n": ""}
    finite = load_spec(str(write_spec(replace=without_rates)), overrides=["sampler.name=grid"])
    finite.root.mkdir(exist_ok=True)
    with Ledger.driven(finite.study_url, finite) as ledger:
        found = []
        while (asked := ledger.ask()) is not None:
            found.append(dict(ledger.record(asked.number).params))
            ledger.report(asked.number, 1, [point(0, 5.0), point(8, 4.0)])
            ledger.tell(asked.number, 1, State.COMPLETE)
        assert found == list(ledger.space.grid())
        assert len(found) == 9


def test_a_finite_space_is_tried_once_by_the_gaussian_process_too(write_spec: Any) -> None:
    without_rates = {"  recipe.learning_rate: {log: [1e-4, 1e-2]}\n": ""}
    finite = load_spec(str(write_spec(replace=without_rates)), overrides=["sampler.name=gp"])
    finite.root.mkdir(exist_ok=True)
    with Ledger.driven(finite.study_url, finite) as ledger:
        found = set()
        while (asked := ledger.ask()) is not None:
            found.add(tuple(ledger.record(asked.number).params.values()))
            ledger.report(asked.number, 1, [point(0, 5.0), point(8, 4.0 + 0.1 * len(found))])
            ledger.tell(asked.number, 1, State.COMPLETE)
            assert len(found) == asked.number + 1
        assert len(found) == 9
