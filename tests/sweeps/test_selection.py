"""Which trials are finalists, and which is the control."""

from __future__ import annotations

from typing import Any

from sweeps.records import Role, State, TrialRecord
from sweeps.results.finalists import control_of, finalists
from sweeps.results.selection import verdict
from tests.sweeps.made_records import replicate, trial


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
    found = verdict(METHODS, top=1, seeds=0, per="injection.method")
    assert (found.best_grown, found.control and found.control.number) == (3, 2)
    assert [finalist.number for finalist in found.finalists] == [3, 4]
    assert control_of(METHODS[:2]) is METHODS[0]
    assert control_of(METHODS[1:2]) is None
