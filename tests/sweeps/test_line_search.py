"""The control's learning rate: found in five trials, and the same after a restart."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.driver.schedule.agenda import Agenda
from sweeps.driver.schedule.line_search import LineSearch, next_rate
from sweeps.records import Assignment, Cause, Outcome, Point, Role, State, TrialRecord
from sweeps.spec import Range, Spec, load_spec
from tests.sweeps.conftest import agenda_of, taken

LOW, HIGH = 1e-4, 1e-2
WANTED = Range(log=(LOW, HIGH))
RATES = st.floats(math.log(LOW), math.log(HIGH)).map(math.exp)


def searched(loss: Callable[[float], float | None], first: float, wanted: Range = WANTED) -> list[float]:
    """The rates that are tried, five at the most."""
    tried = [(first, loss(first))]
    while len(tried) < 5 and (rate := next_rate(tried, wanted)) is not None:
        tried.append((rate, loss(rate)))
    return [rate for rate, _ in tried]


@given(best=RATES, first=RATES)
def test_the_minimum_of_a_parabola_is_found_to_a_tenth_in_five_trials(best: float, first: float) -> None:
    def loss(rate: float) -> float:
        return 3 + 0.05 * math.log(rate / best) ** 2

    tried = searched(loss, first)
    assert min(abs(rate / best - 1) for rate in tried) < 0.1
    assert all(LOW <= rate <= HIGH for rate in tried[1:])
    apart = sorted(map(math.log, tried))
    assert all(b - a > math.log(1.049) for a, b in itertools.pairwise(apart)), "none twice"


@given(best=RATES)
def test_a_valley_that_rises_faster_above_is_found_to_three_thousandths_of_a_nat(best: float) -> None:
    def loss(rate: float) -> float:
        x = math.log(rate / best)
        return 3 + (0.03 * x * x if x < 0 else 0.1 * (math.exp(x) - 1 - x))

    assert min(map(loss, searched(loss, 1e-3))) < 3.003


def test_rates_at_which_training_fails_are_kept_away_from() -> None:
    def loss(rate: float) -> float | None:
        return None if rate > 2e-3 else 3 + 0.05 * math.log(rate / 1e-3) ** 2

    tried = searched(loss, 9e-3)  # fails at the baseline's rate
    assert tried[:2] == [9e-3, 3e-3]
    assert min(abs(math.log(rate / 1e-3)) for rate in tried) < 0.1


def test_of_choices_those_beside_the_best_are_tried_and_no_more() -> None:
    choices = Range(choice=(3e-4, 6e-4, 1.2e-3, 2.4e-3, 4.8e-3))
    assert searched(lambda rate: abs(math.log(rate / 6e-4)), 1.2e-3, choices) == [1.2e-3, 6e-4, 3e-4]
    assert searched(lambda rate: -rate, 1.2e-3, choices) == [1.2e-3, 6e-4, 2.4e-3, 4.8e-3]
    assert searched(lambda _: None, 6e-4, choices) == [6e-4, 3e-4]
    assert searched(lambda rate: rate, 5e-3, Range(choice=(1e-3,))) == [5e-3, 1e-3]


def test_rates_on_a_grid_stay_on_it() -> None:
    tried = searched(lambda rate: (rate - 0.003) ** 2, 0.001, Range(uniform=(0.001, 0.01), step=0.001))
    assert 0.003 in tried
    assert all(math.isclose(rate * 1000, round(rate * 1000)) for rate in tried)


# -- in a sweep ------------------------------------------------------------------------------------------------


@pytest.fixture
def spec(write_spec: Any) -> Spec:
    return load_spec(str(write_spec(trials=20)), overrides=["control.rates=5"])


def done(agenda: Agenda, work: Assignment) -> None:
    """The best rate of the control is 4e-3, of grown models 1e-3."""
    rate = work.settings["recipe"]["learning_rate"]
    best = 4e-3 if work.settings["injection"]["method"] == "none" else 1e-3
    loss = 3 + 0.05 * math.log(rate / best) ** 2
    points = [Point(step, step * 64, step * 64.0, 1.0, loss) for step in (0, work.steps)]
    agenda.report(work.number, work.attempt, points)
    agenda.finish(work.number, work.attempt, Outcome(State.COMPLETE))


def carried_out(
    spec: Spec, restarted_at: frozenset[int] = frozenset(), parallel: int = 1
) -> list[tuple[str, float]]:
    """Role and rate of all trials of the search, in order; the driver begins anew before some of them."""
    agenda = agenda_of(spec, parallel)
    told: list[tuple[str, float]] = []
    running: list[Assignment] = []
    while True:
        if len(told) in restarted_at and not running:
            agenda = agenda_of(spec, parallel)
        work = agenda.next()
        if not isinstance(work, Assignment):
            if not running:
                return told
            done(agenda, running.pop(0))
            continue
        if not work.role.fresh:
            told.append((work.role.value, work.settings["recipe"]["learning_rate"]))
        running.append(work)
        if len(running) == parallel:
            done(agenda, running.pop(0))


def test_the_control_finds_its_own_rate_and_a_resumed_sweep_proposes_the_same(
    spec: Spec, write_spec: Any
) -> None:
    whole = carried_out(spec)
    rates = [rate for role, rate in whole if role == Role.CONTROL]
    assert len(rates) <= 5
    assert rates[0] == spec.trial.recipe.learning_rate
    assert min(abs(math.log(rate / 4e-3)) for rate in rates) < 0.1
    assert len(whole) == spec.budget.trials, "controls count"
    again = load_spec(str(write_spec("again", trials=20)), overrides=["control.rates=5"])
    assert carried_out(again, frozenset(range(1, 20, 2))) == whole


def test_no_slot_waits_for_the_line_search(spec: Spec) -> None:
    agenda = agenda_of(spec, parallel=3)
    control, baseline, searched_one = taken(agenda), taken(agenda), taken(agenda)
    assert [each.role for each in (control, baseline, searched_one)] == [
        Role.CONTROL,
        Role.BASELINE,
        Role.SEARCH,
    ]
    done(agenda, baseline)
    assert taken(agenda).role is Role.SEARCH, "the first control runs yet"
    done(agenda, control)
    second = taken(agenda)
    assert second.role is Role.CONTROL
    assert second.settings["recipe"]["learning_rate"] == pytest.approx(3e-3)


def test_many_slots_leave_room_for_the_controls_to_come(spec: Spec) -> None:
    agenda = agenda_of(spec, parallel=100)
    first = []
    while isinstance(work := agenda.next(), Assignment):
        first.append(work)
    controls = [w.settings["recipe"]["learning_rate"] for w in first if w.role is Role.CONTROL]
    assert controls == pytest.approx([1e-3, 3e-3, 1e-3 / 3], rel=1e-3), "the first three, side by side"
    assert len(first) == spec.budget.trials - 2
    for work in first:
        done(agenda, work)
    roles = []
    while isinstance(work := agenda.next(), Assignment) and not work.role.fresh:
        roles.append(work.role)
        done(agenda, work)
    assert roles.count(Role.CONTROL) >= 1
    assert len(first) + len(roles) == spec.budget.trials, "what the controls do not need the search gets"


def test_a_control_that_fails_is_a_rate_that_was_tried(spec: Spec) -> None:
    agenda = agenda_of(spec, parallel=1)
    control = taken(agenda)
    agenda.finish(control.number, control.attempt, Outcome(State.FAIL, "diverged", Cause.DIVERGED))
    done(agenda, taken(agenda))
    second = taken(agenda)
    assert second.role is Role.CONTROL
    assert second.settings["recipe"]["learning_rate"] == pytest.approx(1e-3 / 3, rel=1e-3)


@pytest.mark.parametrize(
    ("overrides", "rates"),
    [
        ((), 5),
        (("control.rates=3",), 3),
        (("budget.trials=12",), 3),
        (("budget.trials=3",), 1),
        (("search={injection.k: {choice: [1, 2]}}",), 1),
        (("search.injection.method={choice: [tli, none]}",), 5),
    ],
)
def test_rates_of_the_control(write_spec: Any, overrides: tuple[str, ...], rates: int) -> None:
    given = load_spec(str(write_spec(trials=20)), overrides=["control.rates=5", *overrides])
    assert given.control_rates == rates


def test_rates_at_which_the_search_tried_the_original_are_known_to_the_line_search(write_spec: Any) -> None:
    """Where method `none` is searched, the control has its line search, and does not train what is known."""
    overrides = ["control.rates=5", "search.injection.method={choice: [tli, none]}"]
    spec = load_spec(str(write_spec(trials=20)), overrides=overrides)
    plain = spec.trial.model_dump()

    def original(number: int, role: Role, rate: float, loss: float, **recipe: Any) -> TrialRecord:
        injection = {**plain["injection"], "method": "none"}
        settings = {
            **plain,
            "injection": injection,
            "recipe": {**plain["recipe"], "learning_rate": rate, **recipe},
        }
        losses = {0: 4.0, 8: loss}
        return TrialRecord(number, role, State.COMPLETE, {}, settings, 0, 8, losses, value=loss)

    control = original(0, Role.CONTROL, 1e-3, 3.30)
    assert LineSearch(spec).next([control])["recipe"]["learning_rate"] == pytest.approx(3e-3)  # type: ignore[index]
    worse = [original(1, Role.SEARCH, 3e-3, 3.4), original(2, Role.SEARCH, 3.3e-4, 3.31)]
    between = LineSearch(spec).next([control, *worse])
    assert between is not None
    assert 3.3e-4 < between["recipe"]["learning_rate"] < 1e-3, "the minimum is bracketed"
    other = [original(1, Role.SEARCH, 3e-3, 3.4, warmup=0.5)]
    assert LineSearch(spec).next([control, *other])["recipe"]["learning_rate"] == pytest.approx(3e-3)  # type: ignore[index]


@pytest.mark.parametrize("step", [1e-3, 2e-3, 3.3e-3, 4.95e-3])
@given(best=RATES, place=st.integers(0, 9))
def test_no_rate_on_a_coarse_grid_is_tried_twice(step: float, best: float, place: int) -> None:
    wanted = Range(uniform=(LOW, HIGH), step=step)
    grid = [LOW + index * step for index in range(int((HIGH - LOW) / step + 1e-9) + 1)]
    tried = searched(lambda rate: 3 + 0.05 * math.log(rate / best) ** 2, grid[place % len(grid)], wanted)
    assert all(abs(math.log(a / b)) > math.log(1.04) for a, b in itertools.combinations(tried, 2))
    assert len(tried) > 1, "another is left"
