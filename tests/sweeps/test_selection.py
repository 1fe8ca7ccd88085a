"""The answer of a sweep: who is a finalist, what is still to be run, who wins and how sure that is."""

from __future__ import annotations

import json
import math
from statistics import NormalDist, stdev
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.records import Role, State, TrialRecord
from sweeps.results.finalists import control_of, finalists
from sweeps.results.paired import difference, t_quantile
from sweeps.results.selection import verdict

STEPS = 50


def trial(
    number: int,
    value: float | None,
    *,
    role: Role = Role.SEARCH,
    state: State = State.COMPLETE,
    initial: float = 4.0,
    rate: float = 1e-3,
    **fields: Any,
) -> TrialRecord:
    """A record whose settings are its own; the replicate of another has that one's settings."""
    of = fields.get("replicate_of")
    k = 0 if role is Role.CONTROL else number if of is None else of
    settings = {"injection": {"k": k}, "recipe": {"learning_rate": rate}}
    return TrialRecord(
        **{
            "number": number,
            "role": role,
            "state": state,
            "params": {} if role is Role.CONTROL else {"injection.k": k},
            "settings": settings,
            "seed": 0,
            "steps": STEPS,
            "losses": {0: initial, STEPS: value} if value is not None else {0: initial},
            "value": value if state is State.COMPLETE else None,
            "tokens": 1000,
            "flops": 1000.0 * (100 + number),
            **fields,
        }
    )


def replicate(number: int, of: int, seed: int, value: float | None, **fields: Any) -> TrialRecord:
    return trial(number, value, role=Role.REPLICATE, replicate_of=of, seed=seed, **fields)


def sweep(by_trial: dict[int, list[float]], roles: dict[int, Role] | None = None) -> list[TrialRecord]:
    """Complete trials with a loss per seed; number 0 is the control and 1 the baseline unless said otherwise."""
    roles = roles or {0: Role.CONTROL, 1: Role.BASELINE}
    records = [
        trial(number, losses[0], role=roles.get(number, Role.SEARCH)) for number, losses in by_trial.items()
    ]
    for number, losses in by_trial.items():
        records += [replicate(len(records) + 100 + s, number, s, losses[s]) for s in range(1, len(losses))]
    return records


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [(1, 12.70620474), (2, 4.30265273), (3, 3.18244631), (4, 2.77644511), (7, 2.36462425), (30, 2.04227246)],
)
def test_the_t_quantiles_are_those_of_the_printed_tables(degrees: int, expected: float) -> None:
    assert t_quantile(degrees) == pytest.approx(expected, abs=5e-8)


def test_the_t_quantile_approaches_the_normal_one() -> None:
    assert t_quantile(2000) == pytest.approx(NormalDist().inv_cdf(0.975), abs=2e-3)
    assert t_quantile(10, 0.99) == pytest.approx(3.16927267, abs=5e-8)


def test_a_difference_is_paired_by_seed() -> None:
    # The seeds differ by whole nats, the configurations by 0.01 within each seed.
    delta = difference({0: 3.00, 1: 5.01, 2: 7.02}, {2: 7.03, 1: 5.02, 0: 3.01})
    assert delta is not None
    assert delta.n == 3
    assert delta.mean == pytest.approx(-0.01)
    assert delta.half_width == pytest.approx(0, abs=1e-12)
    assert delta.significant


def test_a_difference_has_the_textbook_interval() -> None:
    delta = difference({0: 1.0, 1: 2.0, 2: 4.0}, {0: 0.0, 1: 0.0, 2: 0.0})
    assert delta is not None
    assert delta.half_width == pytest.approx(4.30265273 * stdev([1, 2, 4]) / math.sqrt(3))
    assert not delta.significant


def test_one_shared_seed_gives_no_interval_and_none_gives_no_difference() -> None:
    single = difference({0: 3.0, 1: 3.1}, {0: 3.5, 2: 9.0})
    assert single is not None
    assert (single.mean, single.half_width, single.n, single.significant) == (-0.5, None, 1, False)
    assert difference({0: 3.0}, {1: 3.0}) is None


def test_finalists_are_the_best_complete_upscaled_trials() -> None:
    records = [
        trial(0, 1.0, role=Role.CONTROL),
        trial(1, 3.3, role=Role.BASELINE),
        trial(2, 3.2),
        trial(3, 3.1, state=State.PRUNED),
        trial(4, 3.0, state=State.RUNNING),
        trial(5, float("nan")),
        trial(6, float("-inf")),
        replicate(7, 2, 1, 2.0),
        trial(8, 3.4),
        trial(9, 3.25),
        trial(10, None, state=State.FAIL, reason="diverged"),
    ]
    assert [record.number for record in finalists(records, 3)] == [2, 9, 1]
    assert finalists(records, 0) == []


def test_the_same_configuration_is_a_finalist_once() -> None:
    settings = {"injection": {"k": 4}}
    records = [trial(1, 3.2, settings=settings), trial(2, 3.2, settings=settings), trial(3, 3.3)]
    assert [record.number for record in finalists(records, 2)] == [1, 3]


def by_method(number: int, method: str, rate: float, value: float, **fields: Any) -> TrialRecord:
    """A trial of a search over methods and rates."""
    settings = {"injection": {"method": method}, "recipe": {"learning_rate": rate}}
    params = {"injection.method": method, "recipe.learning_rate": rate}
    return trial(number, value, settings=settings, params=params, **fields)


METHODS = [
    by_method(0, "none", 1e-3, 3.30, role=Role.CONTROL),
    by_method(1, "tli", 1e-3, 3.25, role=Role.BASELINE),
    by_method(2, "none", 1e-4, 3.10),
    by_method(3, "tli", 1e-4, 3.20),
    by_method(4, "dus", 1e-3, 3.40),
    by_method(5, "dus", 1e-4, 3.50),
    by_method(6, "none", 1e-2, 3.60),
]


def test_each_value_of_a_setting_has_its_own_finalists() -> None:
    numbers = [[r.number for r in finalists(METHODS, top, "injection.method")] for top in (1, 2)]
    assert numbers == [[3, 4], [3, 1, 4, 5]]
    assert [record.number for record in finalists(METHODS, 1)] == [3]


def test_the_original_model_at_its_best_rate_is_the_control_and_no_finalist() -> None:
    control = control_of(METHODS)
    assert control is not None
    assert control.number == 2
    found = verdict(METHODS, top=1, seeds=1, per="injection.method")
    assert (found.best, found.control and found.control.number) == (3, 2)
    assert [finalist.against_control and finalist.against_control.mean for finalist in found.finalists] == [
        pytest.approx(0.1),
        pytest.approx(0.3),
    ]
    assert control_of(METHODS[:2]) is METHODS[0]
    assert control_of(METHODS[1:2]) is None


def test_the_winner_has_the_lowest_mean_over_the_seeds_not_the_best_first_seed() -> None:
    found = verdict(
        sweep(
            {
                0: [3.80, 3.90, 3.70],
                1: [3.75, 3.85, 3.66],
                2: [3.60, 3.85, 3.65],  # the luckiest first seed
                3: [3.61, 3.71, 3.51],
            }
        )
    )
    assert found.winner == 3
    assert [finalist.number for finalist in found.finalists] == [3, 2, 1]
    winner = found.finalists[0]
    assert winner.mean == pytest.approx(3.61)
    assert winner.against_winner is None
    assert winner.against_control is not None
    assert winner.against_control.mean == pytest.approx(-0.19)
    assert winner.against_control.significant
    assert winner.against_control.n == 3
    assert winner.against_baseline is not None
    assert winner.against_baseline.mean == pytest.approx(-0.4 / 3 - 0.03 / 3, abs=1e-9)
    assert found.baseline is not None
    assert found.baseline.against_baseline is None
    assert found.baseline.against_control is not None
    assert found.warnings == ()


def test_a_tie_is_named_and_the_cheaper_is_the_best() -> None:
    # 3 is lower by chance: its difference from 2 changes sign between seeds. 2 costs fewer FLOPs per token.
    found = verdict(
        sweep({0: [3.9, 3.9, 3.9], 1: [3.8, 3.8, 3.8], 2: [3.60, 3.62, 3.61], 3: [3.61, 3.60, 3.60]})
    )
    assert found.winner == 3
    assert found.tied == (2,)
    assert found.best == 2
    assert found.chosen is not None
    assert found.chosen.number == 2


def test_a_tie_stays_with_the_winner_when_a_cost_is_unknown() -> None:
    records = sweep({2: [3.60, 3.62, 3.61], 3: [3.61, 3.60, 3.60]}, {})
    blind = [TrialRecord(**{**vars(record), "flops": None}) for record in records]
    assert (verdict(blind).winner, verdict(blind).tied, verdict(blind).best) == (3, (2,), 3)


def test_with_one_seed_there_is_a_winner_no_interval_and_no_tie() -> None:
    found = verdict(sweep({0: [3.9], 1: [3.8], 2: [3.6], 3: [3.6001]}), seeds=1)
    assert (found.winner, found.best, found.tied) == (2, 2, ())
    delta = found.finalists[0].against_control
    assert delta is not None
    assert (delta.half_width, delta.n) == (None, 1)
    assert found.warnings == ("one seed: no intervals, so small differences between trials may be chance",)


def test_a_finalist_that_failed_under_a_seed_does_not_win_and_costs_the_others_nothing() -> None:
    records = sweep({0: [3.9, 3.8, 3.7], 1: [3.8, 3.7, 3.6], 3: [3.70, 3.60, 3.50]})
    records += [
        trial(2, 3.1),
        replicate(201, 2, 1, None, state=State.FAIL, reason="diverged at step 9"),
        replicate(202, 2, 2, 3.2),
    ]
    found = verdict(records)
    assert found.winner == 3
    assert found.tied == ()
    assert [finalist.number for finalist in found.finalists] == [3, 1, 2]
    assert found.finalists[0].against_control is not None
    assert found.finalists[0].against_control.n == 3
    assert found.finalists[2].failed_seeds == {1: "diverged at step 9"}
    assert found.finalists[2].against_control is not None
    assert found.finalists[2].against_control.n == 2
    assert "the replicate of trial 2 with seed 1 failed: diverged at step 9" in found.warnings
    assert "trial 2 has a lower mean than the winner, but failed under some seed" in found.warnings
    assert [ending.number for ending in found.failed] == [201]


def test_a_replicate_that_ended_without_a_number_has_failed() -> None:
    records = [trial(2, 3.1), replicate(3, 2, 1, float("nan"), reason=None)]
    (finalist,) = verdict(records, seeds=2).finalists
    assert finalist.losses == {0: 3.1}
    assert finalist.failed_seeds == {1: f"no finite loss at step {STEPS}"}


def test_while_replicates_run_finalists_are_compared_on_the_seeds_they_share() -> None:
    # Seed 1 is an easy one: a mean over it would flatter trial 3, which alone has run it.
    records = [trial(2, 3.5), trial(3, 3.6), replicate(4, 3, 1, 1.0)]
    found = verdict(records, seeds=2)
    assert found.winner == 2
    assert found.finalists[0].open_seeds == (1,)
    assert any("not all seeds have finished yet" in warning for warning in found.warnings)


def test_a_control_that_beats_them_all_is_said_first() -> None:
    found = verdict(sweep({0: [3.5, 3.6, 3.4], 1: [3.8, 3.9, 3.7], 2: [3.7, 3.8, 3.601]}))
    assert found.winner == 2
    assert found.warnings[0].startswith("the control is better than trial 2, the best upscaled one, by 0.2")
    assert found.warnings[0].endswith("at this budget, train the original on as it is")


def test_a_winner_not_told_from_the_control_is_said() -> None:
    found = verdict(sweep({0: [3.60, 3.70, 3.50], 1: [3.9, 4.0, 3.8], 2: [3.59, 3.71, 3.49]}))
    assert found.warnings[0].startswith(
        "trial 2 is not shown to differ from the control: its difference is -0.0"
    )


@pytest.mark.parametrize(
    ("control", "expected"),
    [
        ([], "there is no control: nothing is compared with it"),
        (
            [trial(0, None, role=Role.CONTROL, state=State.FAIL, reason="worker lost")],
            "the control (trial 0) failed (worker lost): nothing is compared with it",
        ),
        (
            [trial(0, None, role=Role.CONTROL, state=State.RUNNING)],
            "the control (trial 0) has not finished yet: nothing is compared with it",
        ),
        (
            [trial(0, float("inf"), role=Role.CONTROL)],
            "the control (trial 0) ended without a finite loss: nothing is compared with it",
        ),
    ],
)
def test_a_missing_control_is_said_and_nothing_is_compared_with_it(
    control: list[TrialRecord], expected: str
) -> None:
    found = verdict([*control, trial(1, 3.8, role=Role.BASELINE), trial(2, 3.6)], seeds=1)
    assert expected in found.warnings
    assert found.control is None
    assert found.finalists[0].against_control is None
    assert found.finalists[0].against_baseline is not None


def test_nothing_finished_is_a_verdict_too() -> None:
    found = verdict(
        [
            trial(0, 3.9, role=Role.CONTROL),
            trial(1, None, role=Role.BASELINE, state=State.FAIL, reason="diverged at step 3"),
            trial(2, None, state=State.FAIL, reason="diverged at step 3"),
            trial(3, 3.9, state=State.PRUNED, reason="worse than two thirds at step 8"),
        ]
    )
    assert (found.finalists, found.winner, found.best, found.chosen) == ((), None, None, None)
    assert found.warnings[0].endswith("so there is no best one; most failures: diverged at step 3")
    assert found.counts == {"WAITING": 0, "RUNNING": 0, "COMPLETE": 1, "PRUNED": 1, "FAIL": 2}
    assert [ending.number for ending in found.stopped] == [3]
    assert [ending.reason for ending in found.failed] == ["diverged at step 3"] * 2
    assert verdict([]).best is None


def test_trials_above_their_initial_loss_are_put_down_to_the_rate() -> None:
    found = verdict(
        [
            trial(0, 3.9, role=Role.CONTROL),
            trial(1, 3.8, role=Role.BASELINE),
            trial(2, 4.1, rate=3e-3),
            trial(3, 4.2, rate=9e-3, state=State.PRUNED),
        ],
        seeds=1,
    )
    assert found.warnings[-1] == (
        "trials 2, 3 ended above the initial loss: learning rate too high (0.003 and up rose, 0.001 fell)"
    )


def test_a_rising_control_means_an_annealed_base() -> None:
    found = verdict(
        [trial(0, 4.05, role=Role.CONTROL), trial(1, 4.1, role=Role.BASELINE), trial(2, 4.2)], seeds=1
    )
    assert (
        "trials 0, 1, 2 ended above the initial loss, the control too (4.0000 to 4.0500)"
        in found.warnings[-1]
    )
    assert "the base looks annealed" in found.warnings[-1]


def test_a_verdict_is_strict_json_whatever_is_in_the_records() -> None:
    records = [
        trial(0, 3.9, role=Role.CONTROL, initial=float("nan")),
        trial(1, float("inf"), role=Role.BASELINE),
        trial(2, float("nan"), state=State.FAIL, reason="diverged"),
        *sweep({3: [3.6, 3.7]}, {}),
    ]
    value = verdict(records).to_json()
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert value["best"] == 3
    assert value["finalists"][0]["losses"] == {"0": 3.6, "1": 3.7}
    assert value["finalists"][0]["mean"] == pytest.approx(3.65)
    assert value["failed"][0] == {
        "number": 2,
        "role": "search",
        "step": STEPS,
        "steps": STEPS,
        "loss": None,
        "reason": "diverged",
    }


@given(st.permutations(range(6)))
def test_the_order_of_the_records_does_not_matter(order: list[int]) -> None:
    records = sweep({0: [3.9, 3.8], 1: [3.8, 3.7], 2: [3.6, 3.5]})
    shuffled = [records[place] for place in order]
    ours, theirs = verdict(records, seeds=2), verdict(shuffled, seeds=2)
    assert (ours.finalists, ours.best, ours.tied, ours.warnings) == (
        theirs.finalists,
        theirs.best,
        theirs.tied,
        theirs.warnings,
    )
