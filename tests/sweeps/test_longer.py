"""What more tokens would give: a fit of the curve that knows the schedule, and when nothing is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sweeps.records import Role, TrialRecord
from sweeps.report.longer import longer_text
from sweeps.results.annealing import expected_loss
from sweeps.results.longer import FEWEST, FEWEST_STEPS, Expected, longer, stays_ahead
from sweeps.results.selection import verdict
from tests.bench.bench_longer import coverage
from tests.sweeps.made_records import trial
from tli.training.recipe import Recipe

STEPS = 40


def recipe(steps: int = STEPS, **fields: Any) -> Recipe:
    return Recipe(tokens=steps * 64, batch_tokens=64, **fields)


def law(of: Recipe, floor: float = 3.0) -> dict[int, float]:
    """A curve of the law itself: falls with the sum of the rates, and once more as the rate falls."""
    total, felt, curve = 0.0, 0.0, {0: floor + 0.4 * 0.3**-0.2}
    scale = sum(recipe().rate(step) for step in range(STEPS))
    for step in range(of.steps):
        total, felt = total + of.rate(step), felt * 0.85 + of.rate(step) * 0.15
        if (step + 1) % (of.steps // 10) == 0:
            curve[step + 1] = floor + 0.4 * (total / scale + 0.3) ** -0.2 + 0.01 * felt
    return curve


def record(number: int, curve: dict[int, float], of: Recipe, **fields: Any) -> TrialRecord:
    end = curve[max(curve)]
    made = trial(number, end, **fields)
    settings = {**made.settings, "recipe": of.to_json()}
    return replace(made, losses=curve, settings=settings, steps=of.steps, value=end)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "wsd", "constant"])
def test_the_interval_holds_where_the_law_does(schedule: Any) -> None:
    short = recipe(schedule=schedule)
    truth = law(recipe(4 * STEPS, schedule=schedule))[4 * STEPS]
    loss, deviation = expected_loss(short, law(short), 4)
    now = law(short)[STEPS]
    assert abs(loss - truth) < 1.645 * deviation
    assert loss < now - 0.3 * (now - truth)


def test_a_schedule_that_falls_is_told_from_one_that_does_not() -> None:
    """The same losses mean more fall to come where the rate did not fall yet, as it does in a longer trial."""
    curve = law(recipe())
    kept, _ = expected_loss(recipe(schedule="constant"), curve, 1)
    fallen, _ = expected_loss(recipe(), curve, 1)
    assert fallen == pytest.approx(curve[STEPS], abs=0.01)
    assert kept == pytest.approx(curve[STEPS], abs=0.01)
    assert expected_loss(recipe(), curve, 4)[0] < fallen


@pytest.mark.slow
@pytest.mark.parametrize("table", ["builtin", "wikitext"])
def test_it_covers_recorded_ends(table: str) -> None:
    rows = [row for rows in coverage(table).values() for row in rows]
    assert 0.8 <= sum(abs(error) <= half for error, half, _ in rows) / len(rows) <= 0.97


def test_it_covers_the_recorded_ends_of_one_rate_of_a_table_that_set_nothing() -> None:
    rows = coverage("wikitext", rates=(6e-4,), cells=8)[6e-4]
    assert len(rows) == 8
    assert sum(abs(error) <= half for error, half, _ in rows) >= 7
    assert sorted(half for _, half, _ in rows)[4] < 0.06, "and says something"


def test_what_is_said_of_finalists_and_when_nothing_is() -> None:
    of = recipe()
    few = {step: loss for step, loss in law(of).items() if step in (0, 20, 28, 36, 40)}
    brief = recipe(20)
    records = [
        record(0, law(of, 3.3), of, role=Role.CONTROL),
        record(1, law(of, 3.2), of, role=Role.BASELINE),
        record(2, law(of, 2.0), of),
        record(3, few, of),
        record(4, law(brief, 3.1), brief),
    ]
    answer = verdict(records, top=4, seeds=1)
    found = longer(answer, records)
    assert [each.trial for each in found.expected] == [2, 1, 0]
    assert {each.tokens for each in found.expected} == {4 * STEPS * 64}
    for each in found.expected:
        assert each.low < each.loss < each.high
        assert each.points == 11
    assert f"takes {FEWEST}" in found.not_said[3]
    assert f"takes {FEWEST_STEPS}" in found.not_said[4]
    assert found.stays_ahead == ((2, 1),)
    assert found.open_pairs == ()
    page = "\n".join(longer_text(found))
    assert "trial 2 is ahead of trial 1" in page
    assert max(map(len, page.splitlines())) <= 80
    plain = found.to_json()
    assert [each["trial"] for each in plain["not_said"]] == [3, 4]


def test_an_order_is_said_only_where_it_is_far_from_open() -> None:
    def at(loss: float) -> Expected:
        return Expected(0, 1, loss, loss - 0.05, loss + 0.05, 9, 1)

    assert not stays_ahead(at(3.0), at(3.09))
    assert stays_ahead(at(3.0), at(3.1))
    assert not stays_ahead(at(3.1), at(3.0)), "a crossing was never foretold rightly, so none is"


def test_runs_of_one_configuration_are_one_curve() -> None:
    of = recipe()
    own = record(2, law(of, 3.0), of)
    replicates = [
        replace(
            record(number, law(of, floor), of),
            role=Role.REPLICATE,
            replicate_of=2,
            seed=number,
            settings={**own.settings, "seed": number},
        )
        for number, floor in ((3, 3.1), (4, 3.3))
    ]
    control = record(0, law(of, 3.5), of, role=Role.CONTROL)
    records = [control, record(1, law(of, 3.4), of, role=Role.BASELINE), own, *replicates]
    (best, *_) = longer(verdict(records, top=1, seeds=2), records).expected
    assert (best.trial, best.seeds) == (2, 2)
    mean, _ = expected_loss(of, law(of, 3.2), 4)
    assert best.loss == pytest.approx(mean, abs=1e-6), "the seed that chose it is left out"
