"""The verdict: the winner, the margin, what is missing; from any records that a sweep can have."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.records import Role, State, TrialRecord
from sweeps.results.searched import Searched
from sweeps.results.selection import verdict
from sweeps.results.verdict import Verdict
from tests.sweeps.made_records import STEPS, replicate, trial
from tests.sweeps.null_sweeps import World
from tests.sweeps.null_sweeps import sweep as made_up


def sweep(by_trial: dict[int, list[float]], roles: dict[int, Role] | None = None) -> list[TrialRecord]:
    """Complete trials with a loss per seed, the first their own; 0 is the control and 1 the baseline."""
    roles = roles or {0: Role.CONTROL, 1: Role.BASELINE}
    records = [
        trial(number, losses[0], role=roles.get(number, Role.SEARCH)) for number, losses in by_trial.items()
    ]
    for number, losses in by_trial.items():
        records += [replicate(len(records) + 100 + s, number, s, losses[s]) for s in range(1, len(losses))]
    return records


def test_the_winner_has_the_lowest_mean_over_fresh_seeds_not_the_best_own_seed() -> None:
    records = sweep(
        {
            0: [3.80, 3.90, 3.70],
            1: [3.75, 3.85, 3.66],
            2: [3.30, 3.85, 3.65],  # the luckiest own seed, which would win on the mean of all
            3: [3.61, 3.71, 3.51],
        }
    )
    found = verdict(records, seeds=2)
    assert (found.best_grown, found.lowest, found.answer.grown) == (3, 3, 3)
    assert [finalist.number for finalist in found.finalists] == [3, 2, 1]
    best = found.finalists[0]
    assert best.mean == pytest.approx(3.61)
    assert best.test_loss == pytest.approx(3.71)
    assert best.against_control is not None
    assert best.against_control.mean == pytest.approx(-0.19)
    assert best.against_control.n == 2
    assert best.against_baseline is not None
    assert best.against_baseline.mean == pytest.approx(-0.145)
    assert found.baseline is not None
    assert found.baseline.against_baseline is None
    assert found.baseline.against_control is not None
    assert found.control is not None
    assert found.control.against_control is None


CLOSE = {0: [3.9] * 4, 1: [3.8] * 4, 2: [3.6, 3.6012, 3.6011, 3.6013], 3: [3.6, 3.6010, 3.6010, 3.6010]}


def test_within_the_margin_the_cheaper_is_taken_and_a_tie_alone_is_no_reason_to() -> None:
    # Trial 2 is 0.0002 worse, in each seed nearly alike, and costs fewer FLOPs per token.
    within, tied = verdict(sweep(CLOSE), margin=0.01), verdict(sweep(CLOSE), margin=0.0)
    assert (within.lowest, within.best_grown, within.as_good) == (3, 2, (2,))
    assert (tied.lowest, tied.best_grown, tied.as_good) == (3, 3, ())
    assert [finalist.number for finalist in within.finalists] == [2, 3, 1]


def test_more_noise_never_makes_the_cheaper_a_pick() -> None:
    picked = []
    for noise in (0.0, 0.0001, 0.001, 0.01, 0.1):
        losses = [loss + sign * noise for loss, sign in zip(CLOSE[2], (0, 1, -1, 1), strict=True)]
        picked.append(verdict(sweep(CLOSE | {2: losses}), margin=0.002).best_grown)
    assert picked[0] == 2
    assert picked[-1] == 3
    assert picked == sorted(picked), "once too noisy, it stays so"


def test_the_control_is_in_the_comparison_and_in_the_set_of_those_as_good() -> None:
    found = verdict(sweep(CLOSE | {0: [3.6, 3.6011, 3.6012, 3.6010]}), margin=0.01)
    assert found.as_good == (0, 2)
    assert found.best_grown == 2, "the best grown model"
    assert found.control is not None
    assert found.control.chance_best is not None
    assert sum(each.chance_best or 0 for each in (*found.finalists, found.control)) == pytest.approx(1)


def test_the_cost_has_to_be_known_for_the_cheaper_to_be_taken() -> None:
    blind = [TrialRecord(**{**vars(record), "flops": None}) for record in sweep(CLOSE)]
    found = verdict(blind, margin=0.01)
    assert (found.lowest, found.as_good, found.best_grown) == (3, (2,), 3)
    assert found.answer.cost is None


@pytest.mark.parametrize("seeds", [1, 2, 3, 4])
def test_a_chance_is_shown_from_three_fresh_seeds_on_and_a_count_before(seeds: int) -> None:
    losses = {
        0: [3.9, 3.91, 3.92, 3.90, 3.93],
        1: [3.8, 3.82, 3.81, 3.80, 3.83],
        2: [3.6, 3.61, 3.60, 3.62, 3.60],
    }
    found = verdict(sweep({number: each[: seeds + 1] for number, each in losses.items()}), seeds=seeds)
    assert found.finalists[0].lowest_under == (seeds, seeds)
    assert found.finalists[1].lowest_under == (0, seeds)
    chance = found.finalists[0].chance_best
    assert chance is None if seeds < 3 else chance is not None and chance > 0.99


def test_without_a_fresh_seed_there_is_a_best_one_and_no_claim() -> None:
    found = verdict(sweep({0: [3.9], 1: [3.8], 2: [3.6], 3: [3.6001]}), seeds=0)
    assert (found.best_grown, found.claims, found.as_good) == (2, (), ())
    assert found.finalists[0].against_control is None
    assert (found.answer.grow, found.answer.trial) == ("not shown", 2)
    assert found.answer.needs is not None
    assert "fresh seeds" in found.answer.needs.missing
    assert any(warning.startswith("no fresh seed yet") for warning in found.warnings)


def test_under_one_fresh_seed_there_is_a_difference_without_an_interval() -> None:
    found = verdict(sweep({0: [3.9, 3.9], 1: [3.8, 3.8], 2: [3.6, 3.6]}), seeds=1)
    claim = found.claims[0]
    assert (claim.trial, claim.against, claim.n, claim.half_width, claim.says) == (2, 0, 1, None, "not shown")
    assert claim.mean == pytest.approx(-0.3)
    assert "too few seeds" in found.answer.limits
    assert found.answer.grow == "not shown"


def test_a_finalist_that_failed_under_a_seed_does_not_win_and_costs_the_others_nothing() -> None:
    records = sweep({0: [3.9, 3.8, 3.7], 1: [3.8, 3.7, 3.6], 3: [3.70, 3.60, 3.50]})
    records += [
        trial(2, 3.1),
        replicate(201, 2, 1, None, state=State.FAIL, reason="diverged at step 9"),
        replicate(202, 2, 2, 3.2),
    ]
    found = verdict(records, seeds=2)
    assert (found.best_grown, found.as_good) == (3, ())
    assert [finalist.number for finalist in found.finalists] == [3, 1, 2]
    assert found.finalists[0].against_control is not None
    assert found.finalists[0].against_control.n == 2
    assert found.finalists[2].failed_seeds == {1: "diverged at step 9"}
    assert found.finalists[2].against_control is not None
    assert found.finalists[2].against_control.n == 1
    assert "the replicate of trial 2 with seed 1 failed: diverged at step 9" in found.warnings
    assert "trial 2 has a lower mean than the best, but failed under some seed" in found.warnings
    assert [ending.number for ending in found.failed] == [201]


def test_a_replicate_that_ended_without_a_number_has_failed() -> None:
    records = [trial(2, 3.1), replicate(3, 2, 1, float("nan"), reason=None)]
    (finalist,) = verdict(records, seeds=1).finalists
    assert finalist.losses == {0: 3.1}
    assert finalist.failed_seeds == {1: f"no finite loss at step {STEPS}"}


def test_while_replicates_run_finalists_are_compared_on_the_seeds_they_share() -> None:
    # Seed 1 is an easy one: a mean over it would flatter trial 3, which alone has run it.
    records = [trial(2, 3.5), trial(3, 3.6), replicate(4, 3, 1, 1.0)]
    found = verdict(records, seeds=1)
    assert found.best_grown == 2
    assert found.finalists[0].open_seeds == (1,)
    assert "not finished" in found.answer.limits
    assert any("not all seeds have finished yet" in warning for warning in found.warnings)


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
    found = verdict([*control, *sweep({1: [3.8, 3.8], 2: [3.6, 3.6]})], seeds=1)
    assert expected in found.warnings
    assert found.control is None
    assert found.finalists[0].against_control is None
    assert found.finalists[0].against_baseline is not None
    assert "no control" in found.answer.limits
    assert (found.answer.grow, found.answer.trial) == ("not shown", 2)


def test_nothing_finished_is_a_verdict_too() -> None:
    found = verdict(
        [
            trial(0, 3.9, role=Role.CONTROL),
            trial(1, None, role=Role.BASELINE, state=State.FAIL, reason="diverged at step 3"),
            trial(2, None, state=State.FAIL, reason="diverged at step 3"),
            trial(3, 3.9, state=State.PRUNED, reason="worse than two thirds at step 8"),
        ]
    )
    assert (found.finalists, found.lowest, found.best_grown, found.chosen) == ((), None, None, None)
    assert (found.answer.grow, found.answer.trial) == ("not shown", None)
    assert found.answer.needs is not None
    assert "trials" in found.answer.needs.missing
    assert found.warnings[0].endswith("so there is no best one; most failures: diverged at step 3")
    assert found.counts == {"WAITING": 0, "RUNNING": 0, "COMPLETE": 1, "PRUNED": 1, "FAIL": 2}
    assert [ending.number for ending in found.stopped] == [3]
    assert [ending.reason for ending in found.failed] == ["diverged at step 3"] * 2
    assert verdict([]).best_grown is None


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
    assert value["finalists"][0]["mean"] == pytest.approx(3.7)
    assert value["finalists"][0]["test_losses"] == {"1": pytest.approx(3.8)}
    assert value["failed"][0] == {
        "number": 2,
        "role": "search",
        "step": STEPS,
        "steps": STEPS,
        "loss": None,
        "reason": "diverged",
    }


def test_every_claim_is_in_the_json_with_its_numbers() -> None:
    found = verdict(made_up(World(), random.Random(5)))
    value = found.to_json()
    assert [(each["trial"], each["against"], each["at"]) for each in value["claims"]] == [
        *((finalist.number, 0, "equal tokens") for finalist in found.finalists),
        (found.best_grown, found.matched.number if found.matched else None, "equal compute"),
    ]
    for claim in value["claims"]:
        assert claim["n"] == 3
        assert claim["low"] < claim["mean"] < claim["high"]
        assert claim["half_width"] == pytest.approx(claim["high"] - claim["mean"])
        assert 0 < claim["text_error"] < claim["error"]
    assert value["answer"]["equal_tokens"] == value["claims"][0]
    assert value["answer"]["equal_compute"] == value["claims"][-1]


@given(st.permutations(range(6)))
def test_the_order_of_the_records_does_not_matter(order: list[int]) -> None:
    records = sweep({0: [3.9, 3.8], 1: [3.8, 3.7], 2: [3.6, 3.5]})
    shuffled = [records[place] for place in order]
    ours, theirs = verdict(records, seeds=1), verdict(shuffled, seeds=1)
    assert ours == theirs


def test_a_study_from_before_there_was_a_test_side_is_judged_by_validation_loss_and_says_so() -> None:
    records = [replace(each, test_losses=()) for each in made_up(World(), random.Random(1))]
    found = verdict(records)
    assert {claim.loss for claim in found.claims} == {"validation"}
    assert "validation loss" in found.answer.limits
    assert any(warning.startswith("no test loss was measured") for warning in found.warnings)
    assert all(claim.noise is not None and claim.noise.text_variance == 0 for claim in found.claims)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), seed=st.integers(0, 9))
def test_any_state_that_a_sweep_can_be_in_gives_a_verdict(data: st.DataObject, seed: int) -> None:
    """Trials missing, waiting, running, stopped, failed, without a number, cost or test loss; any seeds."""
    whole = made_up(World(searched=4, seeds=2), random.Random(seed))
    fates = data.draw(
        st.lists(
            st.sampled_from(["as it was", "as it was", "missing", "no test", "no cost", "nan", *State]),
            min_size=len(whole),
            max_size=len(whole),
        )
    )
    records = [_with_fate(record, fate) for record, fate in zip(whole, fates, strict=True)]
    kept = [record for record in records if record is not None]
    top, seeds = data.draw(st.integers(0, 4)), data.draw(st.integers(0, 4))
    margin = data.draw(st.sampled_from([None, 0.0, 0.002]))
    _check(verdict(kept, top=top, seeds=seeds, margin=margin), kept)


def _with_fate(record: TrialRecord, fate: str) -> TrialRecord | None:
    if fate == "missing":
        return None
    if fate == "nan":
        return replace(record, value=float("nan"), test_losses=(float("nan"),) * 16)
    if fate == "no test":
        return replace(record, test_losses=())
    if fate == "no cost":
        return replace(record, flops=None, tokens=None, seconds=None)
    if fate in ("as it was", State.COMPLETE):
        return record
    return replace(record, state=State(fate), value=None, test_losses=(), reason=None)


def _check(found: Verdict, records: list[TrialRecord]) -> None:
    answer, value = found.answer, found.to_json()
    numbers = {record.number for record in records}
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert answer.grown == found.best_grown
    assert {answer.trial, answer.grown} <= numbers | {None}
    assert (answer.needs is None) == (answer.grow != "not shown")
    assert (answer.claim is None) == (not answer.equal_tokens and not answer.equal_compute)
    if answer.grow == "grow":
        assert answer.trial == found.best_grown
        assert answer.equal_tokens or answer.equal_compute
    if answer.grow == "do not grow":
        assert answer.trial != found.best_grown
    if found.best_grown is not None:
        assert found.best_grown in {found.lowest, *found.as_good}
        assert found.finalists[0].number == found.best_grown
    for claim in found.claims:
        assert (claim.half_width is None) == (claim.n < 2)
        assert claim.says == "not shown" or claim.half_width is not None


@pytest.mark.parametrize(
    ("control", "grown", "is_open"),
    [
        ([1e-3], [3e-4, 1e-3, 3e-3], True),
        ([3e-4, 1e-3], [3e-4, 1e-3, 3e-3], True),
        ([1e-3, 3e-3], [3e-4, 1e-3, 3e-3], True),
        ([3e-4, 1e-3, 3e-3], [2e-4, 1e-3, 5e-3], False),
        ([1e-3], [1e-3, 1.02e-3], False),
    ],
)
def test_the_control_has_rates_around_its_best_one(
    control: list[float], grown: list[float], is_open: bool
) -> None:
    """It is best at 1e-3."""
    records = [
        trial(number, 3.5 + (rate != 1e-3), role=Role.CONTROL, rate=rate)
        for number, rate in enumerate(control)
    ]
    records += [trial(10 + number, 3.4, rate=rate) for number, rate in enumerate(grown)]
    found = verdict(records, searched=Searched(rates=True))
    assert ("control's rate not found" in found.answer.limits) == is_open
    assert "control's rate not found" not in verdict(records).answer.limits, "no rate was searched"


def test_blocks_of_test_text_that_do_not_match_carry_no_claim() -> None:
    records = made_up(World(), random.Random(1))
    assert any(claim.half_width is not None for claim in verdict(records).claims)
    shorter = [
        replace(record, test_losses=record.test_losses[:-1]) if record.replicate_of == 0 else record
        for record in records
    ]
    found = verdict(shorter)
    assert all(claim.half_width is None for claim in found.claims if claim.against == 0)
    assert all(finalist.chance_best is None for finalist in found.finalists)


def test_one_block_of_test_text_carries_no_claim() -> None:
    records = [
        replace(record, test_losses=record.test_losses[:1]) for record in made_up(World(), random.Random(1))
    ]
    found = verdict(records, top=3, seeds=3)
    assert found.claims
    assert all(claim.half_width is None for claim in found.claims)
    assert found.answer.grow == "not shown"
    assert "too little test text" in found.answer.limits
    assert all(finalist.chance_best is None for finalist in found.finalists)


def test_matched_controls_of_another_control_do_not_count() -> None:
    records = [trial(0, 3.5, role=Role.CONTROL), trial(1, 3.4, role=Role.CONTROL, rate=2e-3), trial(2, 3.3)]
    for seed in (1, 2):
        records += [replicate(2 + seed, 1, seed, 3.4), replicate(4 + seed, 2, seed, 3.3)]
    old = [replicate(10 + seed, 2, seed, 3.0, role=Role.MATCHED, rate=1e-3) for seed in (1, 2)]
    new = [replicate(20 + seed, 2, seed, 3.2, role=Role.MATCHED, rate=2e-3) for seed in (1,)]
    found = verdict([*records, *old, *new], seeds=2).matched
    assert found is not None
    assert (found.number, dict(found.losses)) == (21, {1: 3.2})
