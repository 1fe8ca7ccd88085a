"""A search that begins with what earlier sweeps found: what is taken over, what is refused, what it is worth."""

from __future__ import annotations

import itertools
import json
import math
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest

import sweeps
from sweeps.__main__ import main
from sweeps.driver.schedule.warm_start import WarmStart
from sweeps.driver.service import run
from sweeps.errors import SpecError
from sweeps.ledger.search.features import Features
from sweeps.ledger.search.model import Modeller
from sweeps.ledger.search.model_proposals import ModelProposals
from sweeps.ledger.search.prior import Prior, observed
from sweeps.ledger.search.space import Space
from sweeps.records import Role
from sweeps.spec import Spec, load_spec
from sweeps.warm_start import Observed, Taken, all_taken
from tests.sweeps.conftest import SPEC, Silent, copied
from tests.sweeps.test_model import BEST, INIT, RATE, SCALE, SEARCH, K, record, true_loss

# -- what it is worth -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spec() -> Spec:
    plain = load_spec("quickstart").to_json()
    plain["search"] = {path: wanted.to_json() for path, wanted in SEARCH.items()}
    return Spec.from_json(plain)


Loss = Callable[[Mapping[str, Any]], float]


def alike(params: Mapping[str, Any]) -> float:
    """Another base: all losses higher, the valley steeper and a little elsewhere."""
    return 3.9 + 1.4 * (true_loss({**params, RATE: params[RATE] * 1.2}) - 3.2)


def wrong(params: Mapping[str, Any]) -> float:
    """The worst first weights are the best, and the rate is ten times too low."""
    off = math.log(params[RATE] / 1e-4)
    return (
        2.9
        + 0.004 * math.log2(math.ceil(8 / params[K]))
        + {"copy": 0.0, "identity": 0.02, "damped": 0.01}[params[INIT]]
        + 0.02 * off**2
    )


def prior_of(spec: Spec, loss: Loss, rate: float) -> Prior:
    """Of a sweep over every K and first weights, at rates on both sides of its best."""
    chance, rows = random.Random(0), []
    for k, init in itertools.product((1, 2, 4, 8), ("copy", "identity", "damped")):
        for times in (0.5, 1.8):
            values = {K: k, INIT: init, RATE: rate * times * math.exp(chance.gauss(0, 0.1))}
            values |= {SCALE: chance.uniform(0.1, 0.9)} if init == "damped" else {}
            rows.append(Observed(values, loss(values) + chance.gauss(0, 3e-4), 0.0))
    found = Prior.of(Features(spec.search), [Taken("sibling", "base", "text", rate, tuple(rows))])
    assert found is not None
    return found


def needed(spec: Spec, seed: int, prior: Prior | None, most: int) -> int:
    """Trials until the lowest loss is truly within 1.5 mnats of the best."""
    proposals = ModelProposals(
        Features(spec.search), Space.of(spec), answer="best", rate=lambda: 1.2e-3, prior=prior
    )
    chance, done = random.Random(seed), list[sweeps.TrialRecord]()
    for number in range(most):
        params = proposals.propose(
            1000 * seed + number, done, lambda each: each.number, [], {}, lambda _: True
        )
        assert params is not None
        done.append(record(number, params, spec, loss=true_loss(params) + chance.gauss(0, 3e-4)))
        lowest = min(done, key=lambda each: each.value or math.inf)
        if true_loss(lowest.params) - BEST < 0.0015:
            return number + 1
    return most + 1


def _counted(spec: Spec, seeds: int, most: int) -> tuple[list[int], list[int], list[int]]:
    """Trials that are needed alone, with a sibling, and with one that is wrong."""
    good, bad = prior_of(spec, alike, 8e-4), prior_of(spec, wrong, 1e-4)
    found = [[needed(spec, seed, prior, most) for seed in range(seeds)] for prior in (None, good, bad)]
    return found[0], found[1], found[2]


def test_a_sibling_saves_trials_and_a_wrong_one_misleads_for_a_while_only(spec: Spec) -> None:
    cold, warm, misled = _counted(spec, 2, 16)
    assert sum(warm) <= 0.7 * sum(cold), (warm, cold)
    assert sum(misled) <= 2 * sum(cold), (misled, cold)


@pytest.mark.slow
def test_siblings_over_many_seeds(spec: Spec) -> None:
    cold, warm, misled = _counted(spec, 20, 24)
    assert sum(warm) <= 0.7 * sum(cold), (warm, cold)
    assert sum(misled) <= 2 * sum(cold), (misled, cold)
    assert max(misled) <= 24, misled


def test_a_prior_is_no_observation(spec: Spec) -> None:
    """Losses are predicted where this search's lie, in nats, from one trial on; without any there is no model."""
    features = Features(spec.search)
    prior = prior_of(spec, alike, 8e-4)
    params = {K: 2, INIT: "copy", RATE: 1e-3}
    modeller = Modeller(features, prior)
    assert modeller.model([], 1e-3) is None
    model = modeller.model([record(0, params, spec)], 1e-3)
    assert model is not None
    assert model.said.numbers == (0,)
    means, _ = model.posterior(features.rows([params, {**params, RATE: 1e-4}, {**params, INIT: "identity"}]))
    found = model.scale.losses(means)
    assert found[0] == pytest.approx(true_loss(params), abs=0.003)
    assert found[1] > found[0] + 0.02
    assert found[2] < found[0]


def test_what_is_taken_is_read_again_or_refused() -> None:
    taken = Taken("one", "b", "t", None, (Observed({K: 2}, 3.1, 0.0), Observed({K: 4}, 3.2, 1e-4)))
    assert all_taken(json.loads(json.dumps([taken.to_json()]))) == (taken,)
    assert "2 trials of one" in taken.words
    plain = taken.to_json()
    for wrong_one in (
        {**plain, "sweep": 1},
        {**plain, "rate": True},
        {**plain, "trials": [[{}, math.nan, 0.0]]},
        {**plain, "trials": [3]},
    ):
        with pytest.raises((TypeError, ValueError)):
            all_taken([wrong_one])


def test_only_trials_that_this_search_could_have_are_taken(spec: Spec) -> None:
    """Not other choices, not rates far outside, nor what differs in a setting that this spec has fixed."""
    baseline = spec.trial.model_dump()
    inside = {K: 2, INIT: "copy", RATE: 1e-3}
    records = [record(n, {**inside, RATE: 1e-3 * (1 + n / 10)}, spec) for n in range(4)]
    records += [
        record(4, {**inside, INIT: "mean"}, spec, loss=3.0),
        record(5, {**inside, RATE: 0.5}, spec, loss=3.0),
    ]
    records += [record(6, {**inside, "recipe.warmup": 0.5}, spec)]
    searched = [*SEARCH, "recipe.warmup"]
    found = observed(Features(spec.search), baseline, searched, records)
    assert [each.values[RATE] for each in found] == pytest.approx([1e-3, 1.1e-3, 1.2e-3, 1.3e-3])
    assert all(each.values.keys() == inside.keys() for each in found)


# -- real sweeps ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def first(tiny_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished sweep `tiny`."""
    root = tmp_path_factory.mktemp("warm")
    text = root / "text.txt"
    text.write_text("".join(f"{n} bottles of beer on the wall, {n} bottles of beer.\n" for n in range(200)))
    given = {
        "model": tiny_model("llama"),
        "text": text,
        "trials": 6,
        "study": "sqlite",
        "runs": "runs",
        "tracking": "null",
    }
    content = (
        SPEC.format(name="tiny", **given)
        .replace("{rule: asha, grace: 0.25, keep: 0.5}", "{rule: none}")
        .replace("tokens: 512", "tokens: 256")
    )
    (root / "tiny.yaml").write_text(content)
    run(load_spec(str(root / "tiny.yaml"), runs=str(root / "runs")), Silent(), runner="inline")
    return root


def _next(name: str, begins: str, **replaced: str) -> str:
    """The spec of a sweep that begins with others."""
    text = (
        Path("tiny.yaml").read_text().replace("name: tiny", f"name: {name}").replace("trials: 6", "trials: 4")
    )
    for old, new in replaced.items():
        text = text.replace(old, new)
    Path(f"{name}.yaml").write_text(f"{text}\nwarm_start: {begins}\n")
    return f"{name}.yaml"


def test_a_sweep_begins_with_another_and_needs_it_no_more(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copied(first, tmp_path, monkeypatch)
    path = _next("second", "[tiny]")
    assert main(["plan", path, "--json"]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    (said,) = [note for note in notes if "of tiny" in note]
    silent = Silent()
    run(path, silent, runner="inline")
    assert said in silent.notes
    sweep = sweeps.find("second")
    (taken,) = sweep.ledger.study.warm_start
    ended = [r for r in sweeps.find("tiny").records if r.role in (Role.BASELINE, Role.SEARCH)]
    assert 3 <= len(taken.trials) <= len(ended)
    assert taken.words in said
    study = optuna.load_study(study_name="second", storage=sweep.spec.study_url)
    assert study.user_attrs["sweeps:warm_start"] == [taken.to_json()]
    assert len(study.trials) == len(sweep.records), "its trials are not among the study's own"
    assert main(["best", "second", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["warm_start"] == [taken.summary()]
    assert main(["best", "second"]) == 0
    assert "of tiny (base" in " ".join(capsys.readouterr().out.split())
    shutil.rmtree("runs/tiny")  # and it goes on without
    again = run(path, Silent(), runner="inline", overrides={"budget.trials": 5})
    assert again.ledger.study.warm_start == (taken,)
    assert len(again.records) > len(sweep.records) - 1
    with pytest.raises(SpecError, match="warm_start"):
        run(path, Silent(), runner="inline", overrides={"warm_start": []})


def test_what_cannot_be_begun_with_is_refused_before_anything_is_made(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copied(first, tmp_path, monkeypatch)
    unfinished = load_spec("tiny.yaml", overrides={"name": "begun", "budget.trials": 4})
    monkeypatch.setattr("sweeps.driver.service.carry_out", _interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(unfinished, Silent(), runner="inline")
    path = _next("third", "[tinny, begun]")
    before = sorted(each.name for each in Path("runs").iterdir())
    for command in ("validate", "plan", "run"):
        assert main([command, path]) == 2
        told = [line for line in capsys.readouterr().err.splitlines() if "warm_start" in line]
        assert "warm_start[0]: got 'tinny', no sweep in " in told[0]
        assert told[0].endswith("expected one of begun, tiny; try tiny")
        assert "warm_start[1]: got 'begun', which is not finished" in told[1]
        assert told[1].endswith("try sweeps resume begun, first")
    assert sorted(each.name for each in Path("runs").iterdir()) == before
    other = load_spec(
        "tiny.yaml",
        overrides={
            "name": "other",
            "warm_start": ["tiny"],
            "search": {"recipe.warmup": {"uniform": [0.0, 0.5]}},
        },
    )
    (problem,) = WarmStart().look(other)
    assert "'tiny', which searched injection.k" in problem.got
    assert problem.expected == "a sweep over one of recipe.warmup"
    narrow = {"recipe.learning_rate": {"log": [1e-7, 1e-6]}}
    (problem,) = WarmStart().look(
        load_spec("tiny.yaml", overrides={"name": "other", "warm_start": ["tiny"], "search": narrow})
    )
    assert "0 of whose trials" in problem.got


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt
