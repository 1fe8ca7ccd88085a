"""The margin, the answer for each setting, and what a search has covered."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from sweeps.errors import SpecError
from sweeps.plausible import implausible
from sweeps.records import Role, State, TrialRecord
from sweeps.results.candidates import Candidate
from sweeps.results.coverage import Spent, spent, untried
from sweeps.results.margin import Margin, margin_of
from sweeps.results.searched import Searched
from sweeps.results.selection import verdict
from sweeps.results.sentence import sentence
from sweeps.results.setting_answers import SettingAnswer, not_known_where, setting_answers, worse_where
from sweeps.search_answers import Best, Estimate, SearchAnswers, StoppingEvidence
from sweeps.spec import Spec, load_spec
from sweeps.spec.margins import as_written
from tests.sweeps.made_records import replicate
from tests.sweeps.made_records import trial as made

MARGIN = 0.002


def candidate(losses: dict[int, float]) -> Candidate:
    return Candidate(1, Role.SEARCH, {}, {}, 0, losses, {}, None, None, None, {}, ())


@pytest.mark.parametrize(
    ("losses", "wanted", "expected"),
    [
        ([{0: 4.0, 1: 4.0, 2: 4.002}], 0.005, Margin(0.005, "spec")),
        ([{0: 4.0, 1: 4.0, 2: 4.002}], 0.0, Margin(0.0, "spec")),
        ([{0: 4.0, 1: 3.997, 2: 4.003}], None, Margin(0.5 * 0.003, "seeds")),
        ([{0: 3.997, 1: 4.0, 2: 4.003}, {0: 4.0}], None, Margin(0.5 * 0.003, "seeds")),
        ([{0: 4.0, 1: 4.0, 2: 4.0}], None, Margin(0.0008, "bound")),  # 0.02 % at least
        ([{0: 4.0, 1: 3.9, 2: 4.1}], None, Margin(0.002, "bound")),  # 0.05 % at most
        ([{0: 4.0}, {0: 4.1}], None, Margin(0.0005 * 4.05, "loss")),
        ([], None, Margin(0.0, "loss")),
    ],
)
def test_the_margin_is_the_specs_or_half_of_what_a_seed_moves(
    losses: list[dict[int, float]], wanted: float | None, expected: Margin
) -> None:
    found = margin_of(map(candidate, losses), wanted)
    assert found.source == expected.source
    assert found.nats == pytest.approx(expected.nats)


def test_the_noise_of_a_difference_does_not_widen_the_margin_by_much() -> None:
    seeds = {1: 4.000, 2: 4.002, 3: 3.998}
    quiet = [candidate(seeds), candidate(seeds)]
    noise = {1: 0.0004, 2: -0.0004, 3: 0.0}
    noisy = [candidate(seeds), candidate({seed: loss + noise[seed] for seed, loss in seeds.items()})]
    assert margin_of(noisy, None).nats <= margin_of(quiet, None).nats


# -- settings ---------------------------------------------------------------------------------------


def trial(
    number: int, value: float | None = 3.2, state: State = State.COMPLETE, **injection: Any
) -> TrialRecord:
    settings = {"injection": {"method": "tli", "k": 4, "init": "copy", **injection}, "recipe": {}}
    return TrialRecord(
        number=number,
        role=Role.SEARCH,
        state=state,
        params={f"injection.{name}": each for name, each in injection.items()},
        settings=settings,
        seed=0,
        steps=20,
        losses={0: 3.3, 10: 3.25} if value is None else {0: 3.3, 20: value},
        value=value,
        tokens=1000 if value is None else 2000,
        seconds=3.0,
        flops=1.0,
    )


def answer_for(estimates: dict[Any, Estimate], choices: tuple[Any, ...] = ()) -> SettingAnswer:
    wanted = {"injection.k": choices} if choices else {}
    (found,) = setting_answers([], MARGIN, Searched(wanted, {"injection.k": estimates}))
    return found


def test_a_value_is_the_answer_once_no_other_can_be_better_by_more_than_the_margin() -> None:
    found = answer_for(
        {
            8: Estimate(3.2000, 0.0005, 5, 3),
            1: Estimate(3.2100, 0.0010, 4, 0),  # worse, by a model, without a run to the end
            4: Estimate(3.2005, 0.0005, 5, 2),  # 0.0005 ± 0.0007
            2: Estimate(3.2020, 0.0020, 5, 2),  # 0.0020 ± 0.0021: not as good, and not better by 0.002
        }
    )
    assert (found.value, found.as_good, found.reason, found.open_values) == (8, (4,), None, ())
    assert [(each.value, each.says) for each in found.values] == [
        (8, "best"),
        (4, "as good"),
        (2, "no better"),
        (1, "worse"),
    ]


def test_a_value_that_may_be_better_by_more_keeps_the_setting_open() -> None:
    found = answer_for({8: Estimate(3.2, 0.0005, 5, 3), 2: Estimate(3.201, 0.004, 2, 0)})
    assert (found.value, found.as_good) == (None, ())
    assert (found.open_values, found.reason) == ((2,), "interval wider than the margin")


def test_a_value_that_was_never_tried_keeps_the_setting_open_whatever_the_others_are() -> None:
    found = answer_for({8: Estimate(3.2, 0.0005, 5, 3)}, choices=(2, 8))
    assert (found.value, found.open_values, found.reason) == (None, (2,), "not tried")
    assert found.values[-1].tried == 0


def test_without_estimates_the_best_losses_are_shown_and_nothing_is_answered() -> None:
    records = [
        trial(1, 3.21, k=4),
        trial(2, 3.19, k=4),
        trial(3, 3.20, k=2),
        trial(4, None, State.PRUNED, k=1),
    ]
    (found,) = setting_answers(records, MARGIN, Searched({"injection.k": (1, 2, 4)}))
    assert (found.value, found.reason) == (None, "no intervals")
    assert [(each.value, each.best_loss, each.tried, each.complete) for each in found.values] == [
        (4, 3.19, 2, 2),
        (2, 3.20, 1, 1),
        (1, None, 1, 0),
    ]


def test_every_searched_path_has_an_answer_of_its_own() -> None:
    records = [trial(1, k=4, init="mean"), trial(2, k=2, init="copy")]
    found = setting_answers(records, MARGIN, Searched({"injection.init": ("copy", "mean")}))
    assert [each.path for each in found] == ["injection.init", "injection.k"]
    assert setting_answers([], MARGIN, Searched()) == ()


def test_of_a_setting_with_endlessly_many_values_the_best_one_is_shown() -> None:
    stopped = trial(3, None, State.PRUNED, init="damped", scale=0.3)
    records = [trial(1, 3.2, init="damped", scale=0.1), trial(2, 3.1, init="damped", scale=0.7), stopped]
    (found,) = (each for each in setting_answers(records, MARGIN, Searched()) if "scale" in each.path)
    assert [(each.value, each.best_loss) for each in found.values] == [(0.7, 3.1)]
    assert (found.value, found.reason) == (None, "no intervals")


# -- what was covered -------------------------------------------------------------------------------

CHOICES = {"injection.k": (1, 2, 4), "injection.init": ("copy", "mean")}


def test_values_and_pairs_without_a_run_to_the_end_are_named() -> None:
    records = [
        trial(1, k=4, init="copy"),
        trial(2, k=2, init="mean"),
        trial(3, None, State.PRUNED, k=2, init="copy"),
        trial(4, None, State.PRUNED, k=1, init="copy"),
        trial(5, None, State.FAIL, k=1, init="mean"),
    ]
    found = [(dict(each.settings), each.tried) for each in untried(records, CHOICES)]
    assert found == [
        ({"injection.k": 1}, 2),
        ({"injection.k": 2, "injection.init": "copy"}, 1),
        ({"injection.k": 4, "injection.init": "mean"}, 0),
    ]
    everything = [
        trial(n, k=k, init=init)
        for n, (k, init) in enumerate((k, i) for k in (1, 2, 4) for i in CHOICES["injection.init"])
    ]
    assert untried(everything, CHOICES) == ()


def test_the_original_model_is_no_trial_of_its_k() -> None:
    control = replace(trial(0, k=4), role=Role.CONTROL, settings={"injection": {"k": 4, "init": "copy"}})
    assert len(untried([control], CHOICES)) == 5, "every value; no pair of values that were not tried"


def test_tokens_are_counted_as_spent_by_the_search_saved_by_stopping_and_spent_after() -> None:
    records = [
        trial(1),
        trial(2, None, State.PRUNED),
        replace(trial(3), role=Role.REPLICATE, replicate_of=1),
        replace(trial(4), role=Role.MATCHED, replicate_of=1, tokens=3000),
        replace(trial(5, None, State.WAITING), tokens=None, seconds=None, losses={}),
    ]
    assert spent(records) == Spent(8000, 12.0, 3000, 1000, 5000)


def test_the_models_joint_chances_answer_where_there_are_some() -> None:
    close = {
        8: Estimate(3.2000, 0.0040, 5, 3, 0.97),
        4: Estimate(3.2004, 0.0040, 5, 2, 0.96),  # intervals overlap widely; drawn together they do not
        2: Estimate(3.2020, 0.0040, 5, 2, 0.40),
        1: Estimate(3.2100, 0.0010, 4, 0, 0.00),
    }
    found = answer_for(close, choices=(1, 2, 4, 8))
    assert (found.value, found.as_good, found.reason) == (8, (4,), None)
    assert [(each.value, each.says) for each in found.values] == [
        (8, "best"),
        (4, "as good"),
        (2, "no better"),
        (1, "worse"),
    ]
    found = answer_for({**close, 8: Estimate(3.2, 0.004, 5, 3, 0.8), 4: Estimate(3.2004, 0.004, 5, 2, 0.7)})
    assert (found.value, found.open_values) == (None, (4, 2))
    assert found.values[-1].says == "worse"


def test_answers_of_a_search_are_kept_as_json() -> None:
    estimate = Estimate(3.2, 0.004, 5, 3, 0.97)
    found = SearchAnswers(
        7,
        {"injection.k": {4: estimate, 8: estimate}, "injection.init": {"copy": estimate}},
        {("injection.k", "injection.init"): {(4, "copy"): estimate}},
        {"recipe.learning_rate": Best(1e-3, 7e-4, 1.4e-3, 0.15, 12)},
        StoppingEvidence(5, 3, 0.2, 1),
    )
    assert SearchAnswers.from_json(json.loads(json.dumps(found.to_json()))) == found
    for wrong in ({}, {**found.to_json(), "trials": "7"}, {**found.to_json(), "values": {"a": [[1, {}]]}}):
        with pytest.raises((TypeError, KeyError, ValueError)):
            SearchAnswers.from_json(wrong)


def test_of_a_range_the_place_of_the_minimum_is_answered() -> None:
    near, wide = Best(1e-3, 7e-4, 1.4e-3, 0.15, 12), Best(0.4, 0.15, 0.85, 0.875, 3)
    ranges = {"recipe.learning_rate": near, "injection.scale": wide}
    rate, scale = setting_answers([], MARGIN, Searched({}, {}, ranges))
    assert (rate.value, rate.between, rate.reason) == (1e-3, (7e-4, 1.4e-3), None)
    assert (scale.value, scale.between) == (None, (0.15, 0.85))
    assert scale.reason == "interval wider than half of its range"


@pytest.mark.parametrize(
    ("rates", "ends", "open_ends", "said"),
    [
        ((5e-4, 1e-3, 2e-3), (1e-4, 1e-2), (), "worse outside 0.0007 to 0.0014"),
        ((5e-4, 1e-3), (1e-4, 1e-2), ("above",), "worse below 0.0007; none above 0.001 was tried"),
        ((1e-3, 2e-3), (1e-4, 1e-2), ("below",), "worse above 0.0014; none below 0.001 was tried"),
        ((7e-4, 1e-3, 2e-3), (7e-4, 1e-2), ("below",), "worse above 0.0014; the range begins at 0.0007"),
        ((5e-4, 1e-3, 1.4e-3), (1e-4, 1.4e-3), ("above",), "worse below 0.0007; the range ends at 0.0014"),
        ((5e-4, 1e-3), (1e-4, 1.4e-3), ("above",), "worse below 0.0007; none above 0.001 was tried"),
        ((1e-3, 1.2e-3), (1e-4, 1e-2), ("below", "above"), None),
        ((1e-3,), (7e-4, 1e-2), ("below", "above"), None),
        ((5e-4, 6e-4), (1e-4, 1e-2), ("above",), None),  # the best one lies beyond all that were tried
        ((5e-4, 6e-4), (1e-4, 1.4e-3), ("above",), None),
    ],
)
def test_no_value_is_called_worse_that_lies_beyond_all_that_were_tried(
    rates: tuple[float, ...], ends: tuple[float, float], open_ends: tuple[str, ...], said: str | None
) -> None:
    answer = of_range({rate: 3.0 + abs(rate - 1e-3) for rate in rates}, ends)
    assert (answer.open_ends, answer.tried) == (open_ends, (rates[0], rates[-1]))
    assert answer.value == (1e-3 if said else None)
    if said is None:
        assert answer.reason == "no trial beyond its interval"
    else:
        assert worse_where(answer) == said


def test_no_range_is_answered_against_its_best_trial() -> None:
    losses = {5e-4: 3.1, 6.5e-4: 2.9, 1e-3: 3.0, 2e-3: 3.2}
    answer = of_range(losses, (1e-4, 1e-2))
    assert (answer.value, answer.reason) == (None, "the best trial is outside its interval")
    assert not_known_where(answer) == "the best trial is outside 0.0007 to 0.0014"


def of_range(losses: dict[float, float], ends: tuple[float, float]) -> SettingAnswer:
    """Of trials with these rates, by a model to which 0.001 is best and worse outside 0.0007 to 0.0014."""
    path = "recipe.learning_rate"
    grown = [
        replace(trial(number, k=4), params={path: rate}, value=loss, losses={3: loss})
        for number, (rate, loss) in enumerate(losses.items())
    ]
    best = Best(1e-3, 7e-4, 1.4e-3, share=0.15, tried=4)
    (answer,) = setting_answers(grown, MARGIN, Searched(ranges={path: best}, ends={path: ends}))
    return answer


# -- the margin as it is written --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("margin", "remedy"),
    [
        (-0.1, "null"),
        (-1, "null"),
        (5, "0.1%"),
        ("5 nats", "0.1%"),
        ("0.005 nats", "0.005"),
        ("300%", "0.1%"),
        ("-1%", "0.1%"),
        ("small", "0.1%"),
        (True, "null"),
        (math.inf, "null"),
        (10**400, "null"),
        ([0.1], "null"),
    ],
)
def test_what_can_be_no_margin_is_refused(margin: Any, remedy: str) -> None:
    plain = load_spec("quickstart").to_json()
    with pytest.raises(SpecError) as caught:
        Spec.from_json({**plain, "finalists": {"margin": margin}})
    (problem,) = caught.value.problems
    assert problem.where.endswith("finalists.margin")
    assert problem.remedy == remedy


def test_a_percentage_is_of_the_controls_test_loss() -> None:
    plain = load_spec("quickstart").to_json()
    spec = Spec.from_json({**plain, "finalists": {"margin": " 0.10 %"}})
    assert spec.finalists.margin == "0.1%"
    assert Spec.from_json(spec.to_json()) == spec
    control = replace(candidate({0: 4.0, 1: 4.0}), test_blocks={1: (3.0, 3.2), 2: (3.1, 3.1)})
    assert margin_of([candidate({0: 9.0})], "0.1%", control) == Margin(pytest.approx(0.0031), "spec", 0.1)  # type: ignore[arg-type]
    untested = margin_of([], "0.1%", candidate({0: 5.0, 1: 4.0}))
    assert untested.nats == pytest.approx(0.004), "of validation loss while there is no other"
    assert margin_of([], "0.1%").nats == 0.0
    assert (as_written(None), as_written(0.002), as_written("0.1%")) == (
        "the data's own",
        "0.002 nats",
        "0.1% of the control's loss",
    )


def test_a_margin_above_what_training_gained_is_no_help() -> None:
    records = made_trials()
    for margin, word in (
        (0.5, "above all that training gained"),
        (0.05, "times what another seed"),
        (0.001, ""),
    ):
        found = verdict(records, top=1, seeds=2, margin=margin).warnings
        assert any("the margin of" in each and word in each for each in found) == bool(word), found


def made_trials() -> list[TrialRecord]:
    """A control and one grown model, whose losses fall by 0.4 nats and differ by 0.002 between seeds."""
    records = [made(0, 3.6, role=Role.CONTROL), made(1, 3.59)]
    for seed in (1, 2):
        records += [replicate(10 * seed + of, of, seed, 3.6 + 0.002 * seed - 0.01 * of) for of in (0, 1)]
    return records


# -- what no trial reads, and what waits ------------------------------------------------------------


def test_a_setting_that_a_trial_does_not_read_has_no_value_of_it() -> None:
    baseline = replace(trial(1, 3.1, init="identity", scale=None), role=Role.BASELINE, params={})
    scaled = trial(2, 3.3, init="damped", scale=0.5)
    idle = trial(3, 3.0, init="identity", scale=0.2)
    (found,) = (a for a in setting_answers([baseline, scaled, idle], MARGIN, Searched()) if "scale" in a.path)
    assert [(each.value, each.best_loss) for each in found.values] == [(0.5, 3.3)]


def test_what_waits_for_more_of_a_budget_that_is_used_up_leaves_the_answer_finished() -> None:
    waiting = made(99, None, state=State.WAITING, params={}, settings={})
    records = [*made_trials(), waiting]
    open_one = verdict(records, top=1, seeds=2).answer
    over = verdict(records, top=1, seeds=2, searched=Searched(over=True)).answer
    assert "not finished" in open_one.limits
    assert "not finished" not in over.limits
    running = [*made_trials(), made(99, None, state=State.RUNNING)]
    assert "not finished" in verdict(running, top=1, seeds=2, searched=Searched(over=True)).answer.limits


def test_a_sweep_of_an_earlier_version_is_given_no_advice_that_is_refused() -> None:
    records = made_trials()[:4]
    text = sentence(verdict(records, top=1, seeds=1, searched=Searched(earlier=True)), records)
    assert "an earlier version" in text
    assert "finalists.seeds" not in text


def test_values_of_other_programs_that_can_be_no_losses_are_named() -> None:
    other = {"role": Role.OTHER, "settings": {}, "losses": {}}
    values = {20: 1e6, 21: -5.0, 22: math.nan, 23: 3.5, 24: math.inf}
    records = [*made_trials(), *(made(number, value, **other) for number, value in values.items())]
    assert implausible(records) == {20, 21, 22, 24}
    assert implausible(records[len(made_trials()) :]) == {21, 22, 24}, "with nothing to compare with"
    (said,) = (each for each in verdict(records, top=1, seeds=2).warnings if "other programs" in each)
    assert said.startswith("trials 20, 21, 22, 24 of other programs")
