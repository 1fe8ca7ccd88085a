"""Final losses forecast from parts of curves, and trials stopped by them: never before there is evidence."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from sweeps.ledger import Ledger
from sweeps.ledger.search.evidence import stopping_evidence
from sweeps.ledger.search.features import Features
from sweeps.ledger.search.forecast import FEWEST, Curve, Forecaster
from sweeps.ledger.search.learned import CHANCE
from sweeps.ledger.search.observations import observe
from sweeps.records import Point, Role, State, TrialRecord
from sweeps.spec import Spec, load_spec

STEPS = (0, 2, 4, 8, 16, 24)
LAST = 24


def losses_of(log_rate: float, offset: float, chance: random.Random, noise: float = 3e-4) -> dict[int, float]:
    """A curve whose rate hides how good it is until the second half: high rates look bad and fall late."""
    found = {}
    for step in STEPS:
        share = step / LAST
        end = 3.15 + offset + 0.02 * log_rate**2
        early = 0.08 * math.exp(-4 * share) + 0.03 * math.exp(0.9 * log_rate) * math.sin(math.pi * share)
        found[step] = end + early * (1 - share**4) + (chance.gauss(0, noise) if step > 0 else 0)
    return found


def curves(count: int, seed: int = 0) -> list[Curve]:
    """Of random rates and offsets."""
    chance = random.Random(seed)
    found = []
    for number in range(count):
        rate = chance.uniform(-1.2, 1.0)
        found.append(Curve(number, rate, losses_of(rate, chance.uniform(0, 0.01), chance)))
    return found


def test_a_forecast_is_near_and_its_interval_holds_the_end() -> None:
    whole, fresh = curves(14), curves(60, seed=1)
    forecaster = Forecaster(whole, LAST)
    for step in (8, 16):
        found = [(forecaster.final(curve, step), curve.losses[LAST]) for curve in fresh]
        assert all(forecast is not None for forecast, _ in found)
        held = [abs(end - f.mean) <= f.half_width() for f, end in found if f is not None]
        assert sum(held) >= 0.88 * len(held)
        below = sum(f.below(end) for f, end in found if f is not None) / len(found)
        assert 0.35 < below < 0.65


def test_nothing_is_forecast_from_few_curves_nor_where_losses_tell_nothing() -> None:
    assert Forecaster(curves(FEWEST - 1), LAST).final(curves(1)[0], 16) is None
    assert Forecaster(curves(FEWEST), LAST).final(curves(1)[0], 16) is not None
    chance = random.Random(3)
    shuffled = [  # under one rate, for that would tell something too
        Curve(n, 0.0, {**losses_of(0.0, chance.uniform(0, 0.02), chance), 0: 3.3, 2: chance.gauss(3.2, 0.05)})
        for n in range(14)
    ]
    told = Forecaster(shuffled, LAST)
    assert told.final(Curve(99, 0.0, {0: 3.3, 2: 3.25}), 2) is None, "what step 2 shows is chance"
    assert told.final(Curve(99, 0.0, losses_of(0.0, 0.01, chance)), 16) is not None
    assert Forecaster(curves(12), LAST).final(Curve(99, 0.0, {0: 3.2, 2: math.nan}), 2) is None
    assert Forecaster(curves(12), LAST).final(Curve(99, 0.0, {0: 3.2}), 0) is None


def test_the_order_of_the_curves_does_not_matter() -> None:
    whole = curves(10)
    one, other = Forecaster(whole, LAST), Forecaster(whole[::-1], LAST)
    assert one.final(curves(1, seed=2)[0], 8) == other.final(curves(1, seed=2)[0], 8)


def spec_of(write_spec: Any) -> Spec:
    return load_spec(
        str(write_spec(trials=40, replace={"stopping: {rule: asha, grace: 0.25, keep: 0.5}": "stopping: {rule: learned}"}))
    )  # fmt: skip


def measured(log_rate: float, offset: float, chance: random.Random, step: int, steps: int) -> float:
    curve = losses_of(log_rate, offset, chance)
    place = step * LAST / steps
    known = sorted(curve)
    low = max(s for s in known if s <= place)
    high = min((s for s in known if s >= place), default=low)
    share = 0.0 if high == low else (place - low) / (high - low)
    return curve[low] + share * (curve[high] - curve[low])


def run(ledger: Ledger, number: int, offset: float) -> int | None:
    """Report a whole curve; the step at which it is stopped, or None."""
    assignment = ledger.record(number)
    rate = math.log(assignment.settings["recipe"]["learning_rate"] / 1e-3)
    chance = random.Random(number)
    for step in ledger.spec.report_steps():
        loss = measured(rate, offset, chance, step, ledger.spec.steps)
        if ledger.report(number, 1, [Point(step, step * 64, 1.0 * step, 1.0 * step, loss)]):
            ledger.tell(number, 1, State.PRUNED)
            return step
    ledger.tell(number, 1, State.COMPLETE)
    return None


def test_nothing_is_stopped_before_there_is_evidence_and_then_the_bad_ones_are(write_spec: Any) -> None:
    spec = spec_of(write_spec)
    spec.root.mkdir(exist_ok=True)
    ledger = Ledger.open(spec.study_url, spec)
    ledger.start(Role.BASELINE, spec.trial.model_dump())
    assert run(ledger, 0, 0.5) is None, "however bad"
    stops = []
    for _ in range(FEWEST - 1):
        asked = ledger.ask()
        assert asked is not None
        stops.append(run(ledger, asked.number, 0.5))
    assert stops == [None] * (FEWEST - 1)
    for _ in range(6):
        asked = ledger.ask()
        assert asked is not None
        run(ledger, asked.number, 0.0)
    bad = []
    for _ in range(4):
        asked = ledger.ask()
        assert asked is not None
        bad.append(run(ledger, asked.number, 1.0))
    assert all(step is not None and step < spec.steps for step in bad)
    records = ledger.trials()
    assert records[-1].reason == f"stopped by learned at step {bad[-1]}"
    evidence = stopping_evidence(records)
    assert evidence is not None
    assert evidence.stopped >= 4
    assert evidence.expected < 0.5
    assert evidence.at_most <= 1


def test_a_decision_is_the_same_in_a_study_opened_again(write_spec: Any) -> None:
    spec = spec_of(write_spec)
    spec.root.mkdir(exist_ok=True)

    def stops(name: str, *, reopened: bool) -> list[int | None]:
        named = Spec.from_json({**spec.to_json(), "name": name})
        ledger = Ledger.open(named.study_url, named)
        found = []
        for number in range(18):
            if reopened and number % 3 == 0:
                ledger = Ledger.open(named.study_url, named)
            asked = ledger.ask()
            assert asked is not None
            found.append(run(ledger, asked.number, [0.0, 0.3, 0.02][number % 3]))
        return found

    straight = stops("straight", reopened=False)
    assert any(step is not None for step in straight)
    assert straight == stops("again", reopened=True)


def record(number: int, curve: dict[int, float], spec: Spec, rate: float, state: State) -> TrialRecord:
    settings = spec.settings_for({"recipe.learning_rate": rate}).model_dump()
    value = curve[max(curve)] if state is State.COMPLETE else None
    return TrialRecord(
        number, Role.SEARCH, state, {"recipe.learning_rate": rate}, settings, 0, LAST, curve, value
    )


def test_the_error_rate_counts_those_that_might_have_been_among_the_best(write_spec: Any) -> None:
    """Half of the stopped ones were as good as the best: the evidence says so, and no rule is asked."""
    spec = spec_of(write_spec)
    chance = random.Random(4)

    def one(number: int, offset: float, state: State) -> TrialRecord:
        rate = chance.uniform(-0.8, 0.6)
        curve = losses_of(rate, offset, chance)
        if state is State.PRUNED:
            curve = {step: loss for step, loss in curve.items() if step <= 16}
        return record(number, curve, spec, 1e-3 * math.exp(rate), state)

    whole = [one(n, 0.01 + 0.001 * n, State.COMPLETE) for n in range(12)]
    good = [one(20 + n, -0.05, State.PRUNED) for n in range(4)]
    bad = [one(30 + n, 0.2, State.PRUNED) for n in range(4)]
    found = stopping_evidence([*whole, *good, *bad])
    assert found is not None
    assert found.stopped == 8
    assert found.expected == pytest.approx(4, abs=0.3)
    assert found.at_most in (4, 5)
    assert stopping_evidence(whole) is None
    assert stopping_evidence([*whole[:2], *bad]) is None


def test_a_stopped_trial_is_told_with_its_forecast(write_spec: Any) -> None:
    """It is never seen as better than what ran to its end, and its variance leaves it little chance to be."""
    spec = spec_of(write_spec)
    chance = random.Random(5)
    whole = [
        record(
            n, losses_of(rate, chance.uniform(0, 0.02), chance), spec, 1e-3 * math.exp(rate), State.COMPLETE
        )
        for n, rate in enumerate((-1.0, -0.8, -0.6, -0.4, -0.2, 0.0, 0.2, 0.4, 0.6, 0.9))
    ]
    part = {step: loss for step, loss in losses_of(0.5, 0.03, chance).items() if step <= 16}
    stopped = record(19, part, spec, 1e-3 * math.exp(0.5), State.PRUNED)
    said = observe(Features(spec.search), [*whole, stopped])
    assert said.numbers == (*range(10), 19)
    end = 3.15 + 0.03 + 0.02 * 0.25
    assert said.losses[10] == pytest.approx(end, abs=0.004)
    assert 0 < math.sqrt(said.variances[10]) <= (said.losses[10] - said.losses[:10].min()) / 2 + 1e-3
    assert observe(Features(spec.search), [stopped]).numbers == ()


def test_the_chance_is_small() -> None:
    assert 0 < CHANCE <= 0.05
