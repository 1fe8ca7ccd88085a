"""What runs again once the search is over: finalists, their runs under fresh seeds, compute-matched controls."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.records import Role, State, TrialRecord
from sweeps.results.candidates import matched_control
from sweeps.results.finalists import control_of, finalists, replicates_due
from sweeps.results.matched import matched_due, runs_due
from sweeps.results.winner import compared

STEPS, BATCH = 50, 20
CONTROL_COST = 100.0  # FLOPs a token


def trial(
    number: int,
    value: float | None,
    *,
    role: Role = Role.SEARCH,
    state: State = State.COMPLETE,
    cost: float | None = None,
    **fields: Any,
) -> TrialRecord:
    """A record whose settings are its own; the replicate of another has that one's settings."""
    of = fields.get("replicate_of")
    original = role in (Role.CONTROL, Role.MATCHED)
    injection = {"method": "none"} if original else {"method": "tli", "k": number if of is None else of}
    recipe = {"learning_rate": 1e-3, "tokens": STEPS * BATCH, "batch_tokens": BATCH}
    seed = fields.get("seed", 0)
    cost = cost if cost is not None else CONTROL_COST if original else CONTROL_COST + number
    return TrialRecord(
        **{
            "number": number,
            "role": role,
            "state": state,
            "params": {},
            "settings": {"injection": injection, "recipe": recipe, "seed": seed},
            "seed": seed,
            "steps": STEPS,
            "losses": {0: 4.0, STEPS: value} if value is not None else {0: 4.0},
            "value": value if state is State.COMPLETE else None,
            "tokens": STEPS * BATCH,
            "flops": STEPS * BATCH * cost,
            **fields,
        }
    )


def replicate(number: int, of: int, seed: int, value: float | None, **fields: Any) -> TrialRecord:
    return trial(number, value, role=Role.REPLICATE, replicate_of=of, seed=seed, **fields)


def by_method(number: int, method: str, value: float, **fields: Any) -> TrialRecord:
    settings = {"injection": {"method": method}, "recipe": {"learning_rate": number * 1e-3 + 1e-4}}
    return trial(number, value, settings=settings, **fields)


METHODS = [
    by_method(0, "none", 3.30, role=Role.CONTROL),
    by_method(1, "tli", 3.25, role=Role.BASELINE),
    by_method(2, "none", 3.10),
    by_method(3, "tli", 3.20),
    by_method(4, "dus", 3.40),
]


def test_the_control_is_the_best_original_of_all_rates() -> None:
    controls = [trial(number, 4 - 0.1 * number, role=Role.CONTROL) for number in range(3)]
    found = control_of([*controls, trial(3, 3.0), trial(4, 1.0, role=Role.MATCHED, replicate_of=2)])
    assert found is controls[2]
    searched = control_of(METHODS)
    assert searched is METHODS[2]
    assert control_of(METHODS[:2]) is METHODS[0]
    assert control_of(METHODS[1:2]) is None


def test_the_compared_run_under_the_same_fresh_seeds_one_seed_after_the_other() -> None:
    records = [
        trial(0, 3.5, role=Role.CONTROL, seed=7),
        trial(1, 3.4, role=Role.BASELINE, seed=7),
        trial(2, 3.1, seed=7),
        trial(3, 3.2, seed=7),
        trial(4, 3.3, seed=7),
        trial(5, 3.45, role=Role.CONTROL, seed=7),  # the control at a better rate stands for all its rates
    ]
    assert replicates_due(records, 2, 2) == [(5, 8), (1, 8), (2, 8), (3, 8), (5, 9), (1, 9), (2, 9), (3, 9)]
    assert replicates_due(METHODS, 1, 1, "injection.method") == [(2, 1), (1, 1), (3, 1), (4, 1)]


@pytest.mark.parametrize("state", list(State))
def test_a_replicate_that_exists_in_any_state_is_not_due_again(state: State) -> None:
    records = [trial(2, 3.1), replicate(3, 2, 1, 3.1 if state is State.COMPLETE else None, state=state)]
    assert replicates_due(records, 1, 2) == [(2, 2)]


def test_a_baseline_among_the_finalists_is_replicated_once_and_a_failed_control_never() -> None:
    records = [trial(0, None, role=Role.CONTROL, state=State.FAIL), trial(1, 3.0, role=Role.BASELINE)]
    assert replicates_due(records, 3, 1) == [(1, 1)]


@given(
    values=st.lists(st.floats(1, 9), min_size=1, max_size=6), top=st.integers(0, 4), seeds=st.integers(1, 3)
)
def test_running_what_is_due_leaves_nothing_due(values: list[float], top: int, seeds: int) -> None:
    records = [trial(number, value) for number, value in enumerate(values)]
    for number, (of, seed) in enumerate(replicates_due(records, top, seeds), start=len(values)):
        records.append(replicate(number, of, seed, 3.0))
    assert replicates_due(records, top, seeds) == []
    assert len(records) == len(values) + min(top, len(values)) * seeds


def winner_among(records: list[TrialRecord], top: int, seeds: int) -> int:
    found = compared(records, top=top, seeds=seeds, per=None, depth=None, margin=None).winner
    assert found is not None
    return found.number


def test_the_winner_is_told_by_fresh_seeds_alone() -> None:
    records = [trial(2, 3.0), trial(3, 3.1), trial(4, 3.2)]

    def winner(top: int) -> int:
        return winner_among(records, top, seeds=2)

    assert winner(3) == 2, "by its own seed while there is no other"
    records += [replicate(5, 2, 1, 3.3), replicate(6, 3, 1, 3.2), replicate(7, 4, 1, 3.25)]
    assert winner(3) == 3
    # Seed 2 is easier: a mean over another number of seeds would compare the seeds.
    records += [replicate(8, 4, 2, 2.0)]
    assert winner(3) == 3
    # One that failed under a seed comes after those that did not.
    records += [replicate(9, 3, 2, None, state=State.FAIL), replicate(10, 2, 2, 2.2)]
    assert winner(3) == 4
    assert winner(1) == 2, "who is no finalist cannot win"


def test_of_equal_finalists_the_cheaper_wins() -> None:
    records = [trial(2, 3.0, cost=900.0), trial(3, 3.1, cost=300.0)]
    records += [replicate(4, 2, 1, 3.2), replicate(5, 3, 1, 3.2)]
    assert winner_among(records, 2, seeds=1) == 3


def finished(cost: float, **control: Any) -> list[TrialRecord]:
    """A control and one finalist of this cost, each under two fresh seeds."""
    records = [trial(0, 3.5, role=Role.CONTROL, **control), trial(1, 3.2, cost=cost)]
    for seed in (1, 2):
        records += [replicate(10 * seed + of, of, seed, 3.3) for of in (0, 1)]
    return records


@pytest.mark.parametrize(("cost", "steps"), [(150.0, 75), (133.0, 66), (100.9, None), (90.0, None)])
def test_a_matched_control_spends_the_flops_of_the_winner_in_whole_batches(
    cost: float, steps: int | None
) -> None:
    records = finished(cost)
    due = matched_due(records, 1, 2)
    if steps is None:  # the winner costs no more than the control, to a batch
        assert due == []
        return
    assert [number for number, _ in due] == [1, 1]
    assert [settings["seed"] for _, settings in due] == [1, 2]
    for _, settings in due:
        assert settings["recipe"] == {**records[0].settings["recipe"], "tokens": steps * BATCH}
        assert settings["injection"] == {"method": "none"}
    flops = steps * BATCH * CONTROL_COST
    assert flops == pytest.approx(records[1].flops, rel=0.5 / steps)


def test_a_matched_control_is_due_once_and_none_without_costs() -> None:
    records = finished(150.0)
    for number, (of, settings) in enumerate(matched_due(records, 1, 2), start=40):
        records.append(
            trial(number, None, role=Role.MATCHED, state=State.FAIL, replicate_of=of, settings=settings)
        )
        records[-1].settings["recipe"]["learning_rate"] = 1e-3
    assert matched_due(records, 1, 2) == []
    assert [settings["seed"] for _, settings in matched_due(records, 1, 3)] == [3]
    assert matched_due(finished(150.0, flops=None), 1, 2) == []


@pytest.mark.parametrize(("cost", "serves"), [(150.0, True), (170.0, False)])
def test_a_matched_control_serves_every_winner_of_the_same_cost(cost: float, serves: bool) -> None:
    records = finished(150.0)
    for number, (of, settings) in enumerate(matched_due(records, 1, 2), start=40):
        own: dict[str, Any] = {"settings": settings, "seed": settings["seed"], "steps": 75}
        records.append(trial(number, 3.4, role=Role.MATCHED, replicate_of=of, losses={75: 3.4}, **own))
    records.append(trial(2, 3.1, cost=cost))  # found later, and better
    records += [replicate(50 + seed, 2, seed, 3.2) for seed in (1, 2)]
    assert winner_among(records, 2, seeds=2) == 2
    due = matched_due(records, 2, 2)
    found = matched_control(records[-3], records, records[0])
    if not serves:
        assert [(of, settings["seed"]) for of, settings in due] == [(2, 1), (2, 2)]
        assert found is None
        return
    assert due == []
    assert found is not None
    assert dict(found.losses) == {1: 3.4, 2: 3.4}
    # Under one more seed it joins the others, so that all seeds of one control are of one trial.
    records += [replicate(60 + of, of, 3, 3.2) for of in (0, 1, 2)]
    assert [(of, settings["seed"]) for of, settings in matched_due(records, 2, 3)] == [(1, 3)]


def test_what_is_left_to_run_is_known_before_there_is_a_winner() -> None:
    records = finished(150.0)
    before, after = records[:2], records
    assert [runs_due(before, 1, 2, matched=matched) for matched in (False, True)] == [4, 6]
    assert [runs_due(after, 1, 2, matched=matched) for matched in (False, True)] == [0, 2]
    assert runs_due(finished(90.0), 1, 2, matched=True) == 0


def test_fresh_runs_are_no_finalists() -> None:
    records = [trial(2, 3.2), replicate(3, 2, 1, 2.0), trial(4, 1.0, role=Role.MATCHED, replicate_of=2)]
    assert finalists(records, 3) == records[:1]
