"""No trial is spent on a configuration that another one has shown, as long as there is another."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

from sweeps.ledger import Ledger
from sweeps.ledger.search import sampling
from sweeps.ledger.search.apart import Places, Tried
from sweeps.ledger.search.features import Features
from sweeps.ledger.search.proposing import _alike
from sweeps.ledger.search.space import Space
from sweeps.records import Point, State
from sweeps.spec import Range, load_spec
from tests.sweeps.conftest import WriteSpec

K, INIT, RATE, SCALE = "injection.k", "injection.init", "recipe.learning_rate", "injection.scale"
CHOICES = "  injection.k: {choice: [1, 2, 4]}\n  injection.init: {choice: [copy, identity, random]}\n"
RATES = "  recipe.learning_rate: {log: [1e-4, 1e-2]}\n"


def asked(write_spec: WriteSpec, trials: int, sampler: str, searched: str) -> list[dict[str, Any]]:
    """Proposals one after another, two at a time, of a loss that is lowest at K=2 and the highest rate."""
    path = write_spec(replace={CHOICES + RATES: searched})
    spec = load_spec(str(path), overrides=[f"sampler.name={sampler}"])
    spec.root.mkdir(exist_ok=True)
    found: list[dict[str, Any]] = []
    with Ledger.driven(spec.study_url, spec) as ledger:
        for _ in range(trials):
            assignment = ledger.ask()
            assert assignment is not None
            found.append(dict(ledger.record(assignment.number).params))
            if len(found) > 1:
                number = assignment.number - 1
                params = found[-2]
                loss = 4.0 - 0.1 * math.log(params.get(RATE, 1e-3)) + 0.05 * (params.get(K) == 4)
                ledger.report(number, 1, [Point(0, 0, 0.0, 0.0, 5.0), Point(8, 512, 8.0, 0.8, loss)])
                ledger.tell(number, 1, State.COMPLETE)
    return found


@pytest.mark.parametrize("sampler", ["gp", "tpe", "qmc"])
def test_none_is_proposed_twice_where_the_best_lies_at_an_end(write_spec: WriteSpec, sampler: str) -> None:
    searched = "  injection.k: {choice: [2, 4]}\n  injection.init: {choice: [identity]}\n" + RATES
    found = asked(write_spec, 20, sampler, searched)
    assert len({tuple(params.items()) for params in found}) == 20
    if sampler == "qmc":  # spread evenly, it does not close in
        return
    for one, other in itertools.combinations(found, 2):
        if one[K] == other[K] and not {one[RATE], other[RATE]} & {1e-4, 1e-2}:
            # TPE draws twenty times at the most, so that it may have to take the nearer of them.
            share = 0.0099 if sampler == "gp" else 0.0024
            assert abs(math.log(one[RATE] / other[RATE])) >= share * math.log(100)
    if sampler == "gp":
        # The best is still found, and once.
        assert [params[RATE] for params in found if params[K] == 2].count(1e-2) == 1


def test_the_distance_is_halved_where_nothing_is_left(
    write_spec: WriteSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "SHARES", (0.4, 0.2, 0.1, 0.05, 0.0))
    places = sorted(math.log(p[RATE] / 1e-4, 100) for p in asked(write_spec, 9, "gp", RATES))
    gaps = [b - a for a, b in itertools.pairwise(places) if a > 0 and b < 1]
    assert min(gaps) >= 0.049
    assert max(gaps) < 0.4


@pytest.mark.parametrize("sampler", ["gp", "tpe", "random", "qmc"])
def test_what_has_no_range_in_effect_is_tried_once(write_spec: WriteSpec, sampler: str) -> None:
    """Beside first weights that are not scaled the range is idle: such a K is one configuration, however endless
    the space is."""
    searched = "  injection.init: {choice: [identity, damped]}\n"
    searched += "  injection.scale: {uniform: [0.1, 0.9], when: {injection.init: [damped]}}\n"
    found = asked(write_spec, 12, sampler, searched)
    assert sum(params[INIT] == "identity" for params in found) == 1
    assert len({params[SCALE] for params in found if params[INIT] == "damped"}) == 11


def test_a_setting_without_effect_sets_nothing_apart(write_spec: WriteSpec) -> None:
    spec = load_spec(str(write_spec()))
    search = {
        INIT: Range(choice=["identity", "damped"]),
        SCALE: Range(uniform=(0.1, 0.9)),
        RATE: Range(log=(1e-4, 1e-2)),
    }
    searched = spec.model_copy(update={"search": search})
    alike = partial(_alike, spec.trial.model_dump(), 4)
    places, tried = Places(Space.of(searched), Features(search), alike), Tried()

    def near(share: float, **values: Any) -> bool:
        return tried.near(places.of(_params(**values)), share)

    tried.add(places.of(_params(init="identity", scale=0.2, rate=1e-3)))
    tried.add(places.of(_params(init="damped", scale=0.2, rate=9.95e-3)))
    assert near(0.0, init="identity", scale=0.8, rate=1e-3), "first weights that are not scaled"
    assert near(0.01, init="identity", scale=0.8, rate=1.04e-3)
    assert not near(0.005, init="identity", scale=0.8, rate=1.04e-3)
    assert not near(0.01, init="damped", scale=0.2, rate=1e-3)
    assert near(0.01, init="damped", scale=0.201, rate=9.9e-3)
    assert not near(0.01, init="damped", scale=0.3, rate=9.9e-3)
    assert not near(0.01, init="damped", scale=0.2, rate=1e-2), "an end may be tried"
    tried.add(places.of(_params(init="damped", scale=0.2, rate=1e-2)))
    assert near(0.01, init="damped", scale=0.2, rate=1e-2), "once"


def _params(*, init: str, scale: float, rate: float) -> Mapping[str, Any]:
    return {INIT: init, SCALE: scale, RATE: rate}
