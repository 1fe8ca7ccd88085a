"""Stopping rules, asked through the ledger: where they compare trials."""

from __future__ import annotations

import math
import random
from typing import Any

import optuna
import pytest
from optuna.pruners import BasePruner

from sweeps.ledger import Ledger
from sweeps.records import Point, Role, State
from sweeps.spec import load_spec


def stopped_at(ledger: Ledger, number: int, loss: float, cost: float) -> int | None:
    """The step at which a trial that stays at `loss` and spends `cost` a step is stopped."""
    for step in range(8):
        spent = Point(step, step * 64, flops=cost * step, seconds=cost * step, eval_loss=loss)
        if ledger.report(number, 1, [spent]):
            return step
    return None


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("asha", optuna.pruners.SuccessiveHalvingPruner(min_resource=2, reduction_factor=2)),
        ("hyperband", optuna.pruners.HyperbandPruner(min_resource=2, max_resource=8, reduction_factor=2)),
    ],
)
def test_halving_decides_as_optuna_does(write_spec: Any, name: str, rule: BasePruner) -> None:
    """With the ledger opened again in between, losses that are equal, infinite and no number among them."""
    spec = load_spec(str(write_spec(replace={"rule: asha": f"rule: {name}"})))
    spec.root.mkdir(exist_ok=True)
    chance = random.Random(3)
    theirs = optuna.create_study(study_name=spec.name)  # brackets go by it
    decisions = []
    for number in range(40):
        if number % 7 == 0:
            ledger = Ledger.open(spec.study_url, spec)
        ledger.ask()
        trial = theirs.ask()
        for step in (0, chance.choice([1, 2, 5]), 6):
            loss = chance.choice([1.0, 2.0, chance.random() * 3, math.inf, math.nan])
            trial.report(loss, step)
            stop = ledger.report(number, 1, [Point(step, step * 64, 1.0, 1.0, loss)])
            assert stop == rule.prune(theirs, theirs.trials[-1])
            decisions.append(stop)
            if stop:
                break
        theirs.tell(trial, state=optuna.trial.TrialState.FAIL)
        ledger.tell(number, 1, State.FAIL)
    assert 10 < sum(decisions) < len(decisions) - 10


@pytest.mark.parametrize("rule", ["asha", "hyperband", "median"])
@pytest.mark.parametrize("on", ["tokens", "flops", "seconds"])
def test_each_rule_compares_at_what_it_is_told_to(write_spec: Any, rule: str, on: str) -> None:
    """Of two bad trials one costs four times as much a step: it is stopped after a quarter of the steps."""
    replace = {"rule: asha, grace: 0.25": f"rule: {rule}, on: {on}, grace: 0.5"}
    spec = load_spec(str(write_spec(replace=replace)))
    spec.root.mkdir(exist_ok=True)
    ledger = Ledger.open(spec.study_url, spec)
    ledger.start(Role.BASELINE, ledger.spec.trial.model_dump())
    for number in range(6):
        if number:
            ledger.ask()
        loss = 2.0 - number / 100
        assert stopped_at(ledger, number, loss, 1.0) is None, "each is better than all before it"
        ledger.report(number, 1, [Point(8, 512, 8.0, 8.0, loss)])
        ledger.tell(number, 1, State.COMPLETE)
    cheap, dear = [], []
    for found, cost in ((cheap, 1.0), (dear, 4.0)) * 4:
        assignment = ledger.ask()
        assert assignment is not None
        found.append(stopped_at(ledger, assignment.number, 9.0, cost))
    # Hyperband's brackets let some trials on for longer; each rule stops some as soon as it may.
    assert min(step for step in cheap if step is not None) == 4
    assert min(step for step in dear if step is not None) == (4 if on == "tokens" else 1)
    again = Ledger.open(spec.study_url, spec)
    assert again._reference == (None if on == "tokens" else 8.0)
