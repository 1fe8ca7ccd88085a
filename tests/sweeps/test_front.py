"""Losses against a cost: the aim in the spec, the search along the front, its finalists, its answer, its export."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

import sweeps
from sweeps.__main__ import main
from sweeps.driver.service import run
from sweeps.errors import SpecError
from sweeps.ledger.search.features import Features
from sweeps.ledger.search.front_proposals import CostAim, cost_levels
from sweeps.ledger.search.learned import Learned
from sweeps.ledger.search.model_proposals import ModelProposals
from sweeps.ledger.search.space import Space
from sweeps.records import Role, State, TrialRecord
from sweeps.results.at_most import described, within_cost
from sweeps.results.finalists import finalists, may_be_finalists
from sweeps.results.selection import verdict
from sweeps.results.sweep import Sweep
from sweeps.spec import Range, Spec, load_spec
from tests.sweeps.conftest import SPEC, Silent, copied
from tests.sweeps.made_records import replicate, trial

FLOPS = "flops_per_token"
K, RATE = "injection.k", "recipe.learning_rate"

# -- the spec ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "cost"),
    [
        ("[eval_loss, flops_per_token]", FLOPS),
        ("[parameters, eval_loss]", "parameters"),
        ("[eval_loss]", None),
    ],
)
def test_a_list_of_aims_is_the_section(written: str, cost: str | None) -> None:
    spec = load_spec("quickstart", overrides=[f"objective={written}"])
    assert (spec.objective.metric, spec.objective.cost, spec.spread) == ("eval_loss", cost, cost)
    assert Spec.from_json(spec.to_json()) == spec
    assert (spec.hash == load_spec("quickstart").hash) is (cost is None)


@pytest.mark.parametrize(
    ("written", "place", "remedy"),
    [
        ("[eval_loss, flops]", "objective[1]", "flops_per_token"),
        ("[1, parameters]", "objective[0]", ""),
        ("[parameters]", "objective", "[eval_loss, flops_per_token]"),
        ("[eval_loss, parameters, flops_per_token]", "objective", "[eval_loss, flops_per_token]"),
        ("[eval_loss, eval_loss]", "objective", "[eval_loss, flops_per_token]"),
        ("[]", "objective", "[eval_loss, flops_per_token]"),
    ],
)
def test_wrong_aims_have_their_place(written: str, place: str, remedy: str, tmp_path: Path) -> None:
    path = tmp_path / "aims.yaml"
    path.write_text(
        f"name: aims\nbase: {{model: builtin:tiny-llama}}\ndata: {{source: builtin:stdlib}}\nobjective: {written}\nsearch: {{injection.k: {{choice: [1, 2]}}}}\nbudget: {{trials: 8}}\n"
    )
    with pytest.raises(SpecError) as caught:
        load_spec(str(path))
    (problem,) = caught.value.problems
    assert problem.where.startswith(f"{path}:4:")
    assert problem.where.endswith(f" {place}")
    assert problem.remedy == remedy


def test_what_goes_by_the_lowest_loss_alone_is_refused_beside_a_cost() -> None:
    others = ["sampler.name=tpe", "stopping.rule=asha", "finalists.per=injection.k", "objective.answer=each"]
    with pytest.raises(SpecError) as caught:
        load_spec("quickstart", overrides=["objective.cost=parameters", *others])
    places = {problem.where.split("=")[0].removeprefix("--set ") for problem in caught.value.problems}
    assert places == {other.split("=")[0] for other in others}


# -- the search -------------------------------------------------------------------------------------------

SEARCH = {K: Range(choice=(1, 2, 4, 8)), RATE: Range(log=(1e-4, 1e-2))}


def costs(settings: Mapping[str, Any]) -> dict[str, float]:
    """Of eight layers and one more for each K."""
    return {FLOPS: 1e6 * (8 + math.ceil(8 / settings["injection"]["k"]))}


def loss_of(params: Mapping[str, Any]) -> float:
    """Dearer models are better, and want another rate each."""
    off = math.log10(params[RATE]) + 3.6 - 0.45 * math.log2(params[K])
    return 3.0 + 0.03 * math.log2(params[K]) + 0.05 * off**2


def _searched(spec: Spec, seed: int, aim: CostAim | None) -> list[TrialRecord]:
    proposals = ModelProposals(
        Features(spec.search), Space.of(spec), answer="best", rate=lambda: 1e-3, cost=aim
    )
    done: list[TrialRecord] = []
    for number in range(16):
        params = proposals.propose(100 * seed + number, done, lambda r: r.number, [], {}, lambda _: True)
        assert params is not None
        settings, loss = spec.settings_for(params).model_dump(), loss_of(params)
        done.append(
            TrialRecord(number, Role.SEARCH, State.COMPLETE, params, settings, 0, 8, {0: 4.0, 8: loss}, loss)
        )
    return done


def test_the_search_goes_along_the_front() -> None:
    """At each cost the best is found to 2 mnats; the search for the lowest loss alone leaves the cheap side open."""
    plain = load_spec("quickstart").to_json()
    plain["search"] = {path: wanted.to_json() for path, wanted in SEARCH.items()}
    spec = Spec.from_json(plain)
    aim = CostAim(FLOPS, spec.trial.model_dump(), costs)

    def gaps(records: Sequence[TrialRecord]) -> list[float]:
        return [
            min(r.value for r in records if r.params[K] == k and r.value) - (3.0 + 0.03 * math.log2(k))
            for k in (1, 2, 4, 8)
        ]

    front = [max(gaps(_searched(spec, seed, aim))) for seed in range(2)]
    alone = [max(gaps(_searched(spec, seed, None))) for seed in range(2)]
    assert max(front) < 0.002
    assert np.median(alone) > 3 * max(front)


def test_levels_are_the_different_costs_and_not_too_many() -> None:
    assert cost_levels(np.array([2.0, 1.0, 2.0 + 1e-9, math.inf])) == [1.0, 2.0]
    many = cost_levels(np.arange(1.0, 101.0))
    assert (len(many), many[0], many[-1]) == (16, 1.0, 100.0)


@pytest.mark.parametrize(("cost", "stops"), [(True, False), (False, True)])
def test_a_cheap_trial_is_not_stopped_for_what_dear_ones_reach(cost: bool, stops: bool) -> None:
    """Its forecast is far above the lowest loss, and the best of what costs no more."""
    spec = load_spec("quickstart")
    chance, whole = random.Random(0), []
    for number in range(9):
        k = 8 if number % 3 == 0 else 1
        final = (3.4 if k == 8 else 3.1) + 0.01 * chance.random()
        settings = spec.settings_for({K: k, RATE: 1e-3 * (1 + 0.1 * number)}).model_dump()
        losses = {0: 4.0, 4: final + 0.2, 8: final}
        whole.append(TrialRecord(number, Role.SEARCH, State.COMPLETE, {K: k}, settings, 0, 8, losses, final))
    rule = Learned(steps=8)
    rule.cost = CostAim(FLOPS, spec.trial.model_dump(), costs) if cost else None
    running = optuna.trial.create_trial(
        state=optuna.trial.TrialState.RUNNING,
        intermediate_values={0: 4.0, 4: 3.6},
        user_attrs={"sweeps:settings": spec.settings_for({K: 8}).model_dump()},
    )

    class _Study:
        mirror = type("Mirror", (), {"known": staticmethod(lambda: whole)})

    assert rule.prune(_Study(), running) is stops  # type: ignore[arg-type]


# -- finalists --------------------------------------------------------------------------------------------


def _priced(number: int, value: float, cost: float, **fields: Any) -> TrialRecord:
    return trial(number, value, flops=1000.0 * cost, **fields)


def test_finalists_cover_the_front() -> None:
    """Both ends and what lies between, not the lowest losses alone; then the layer behind."""
    records = [
        _priced(n, value, cost)
        for n, value, cost in (
            (1, 3.0, 200),
            (2, 3.001, 199.9),
            (3, 3.002, 200),
            (4, 3.1, 140),
            (5, 3.3, 110),
            (6, 3.11, 150),
        )
    ]
    assert [r.number for r in finalists(records, 3)] == [1, 2, 3]
    assert [r.number for r in finalists(records, 3, FLOPS)] == [1, 4, 5]
    assert [r.number for r in finalists(records, 5, FLOPS)] == [1, 2, 3, 4, 5]
    assert [r.number for r in finalists(records, 1, FLOPS)] == [1]
    with_parameters = [
        _priced(7, 3.0, 100, costs={"parameters": 9.0}),
        _priced(8, 3.2, 100, costs={"parameters": 5.0}),
    ]
    assert [r.number for r in finalists(with_parameters, 2, "parameters")] == [7, 8]


def test_what_is_freed_never_becomes_a_finalist() -> None:
    """Models of what may not be chosen are dropped as trials end: the finalists are those of all trials together."""
    for seed in range(30):
        chance = random.Random(seed)
        records = [_priced(n, 3 + chance.random(), chance.choice((110, 130, 150, 200))) for n in range(1, 31)]
        top = chance.choice((1, 2, 3, 5))
        kept: list[TrialRecord] = []
        for record in records:
            kept = may_be_finalists([*kept, record], top, FLOPS)
        assert finalists(kept, top, FLOPS) == finalists(records, top, FLOPS)


# -- the answer -------------------------------------------------------------------------------------------


def _answered(
    losses: Mapping[int, tuple[float, float]], noise: float = 0.001
) -> tuple[list[TrialRecord], Any]:
    """By number the loss and the cost; 0 is the control, 1 the baseline."""
    chance, records = random.Random(1), []
    roles = {0: Role.CONTROL, 1: Role.BASELINE}
    for number, (loss, cost) in losses.items():
        records.append(_priced(number, loss, cost, role=roles.get(number, Role.SEARCH)))
    for seed in (1, 2, 3):
        shared = chance.gauss(0, 0.01)
        for number, (loss, cost) in losses.items():
            value = loss + shared + chance.gauss(0, noise)
            again = replicate(100 * seed + number, number, seed, value, flops=1000.0 * cost)
            blocks = tuple(
                value + 0.1 + 0.02 * math.sin(block) + chance.gauss(0, noise) for block in range(16)
            )
            records.append(TrialRecord(**{**again.__dict__, "test_losses": blocks}))
    return records, verdict(records, top=5, seeds=3, per=FLOPS, margin=0.002)


def test_the_front_says_what_is_shown() -> None:
    records, found = _answered(
        {0: (3.5, 100), 1: (3.3, 150), 2: (3.4, 110), 3: (3.3005, 180), 4: (3.6, 130), 5: (3.2, 200)}
    )
    front = found.front
    assert front is not None
    assert [each.number for each in front.members] == [0, 2, 4, 1, 3, 5], "the cheapest first"
    stands = {each.number: (each.stands, each.than) for each in front.members}
    better = ("better than all cheaper", None)
    assert stands == {
        0: ("cheapest", None),
        2: better,
        4: ("dominated", 2),
        1: better,
        3: ("not shown to be better", 1),
        5: better,
    }
    assert [each.times for each in front.members] == pytest.approx([1.0, 1.1, 1.3, 1.5, 1.8, 2.0])
    assert front.compared == 15
    assert (
        json.loads(json.dumps(found.to_json()))["front"]["members"][1]["stands"] == "better than all cheaper"
    )
    assert verdict(records, top=5, seeds=3).front is None


def test_at_most_takes_the_best_within_and_says_so() -> None:
    records, found = _answered({0: (3.5, 100), 1: (3.3, 150), 2: (3.4, 110), 3: (3.6, 120), 4: (3.2, 200)})

    def taken(limit: float, *, grown: bool = False) -> int:
        return within_cost(found, records, limit, cost=FLOPS, grown=grown).number

    assert [taken(limit) for limit in (1, 1.1, 1.49, 1.5, 1.99, 2, 9)] == [0, 2, 2, 1, 1, 4, 4]
    words = described(found, records, 2, within_cost(found, records, 1.3, cost=FLOPS, grown=False))
    assert "1.10x the original's FLOPs per token, of at most 1.3x" in words
    assert "better than the original" in words
    only = within_cost(found, records, 1.05, cost=FLOPS, grown=False)
    assert (only.number, only.grown_within) == (0, False)
    assert "no grown model within" in only.words
    for limit, grown, remedy in ((0.9, False, "--at-most 1x"), (1.05, True, "--at-most 1.1x")):
        with pytest.raises(SpecError) as caught:
            taken(limit, grown=grown)
        assert caught.value.problems[0].remedy == remedy
    for limit in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(SpecError, match="above 0"):
            taken(limit)


def test_the_original_is_taken_where_it_is_the_better_one_within() -> None:
    records, found = _answered({0: (3.3, 100), 1: (3.4, 110), 2: (3.35, 150), 3: (3.2, 200)})
    assert within_cost(found, records, 1.6, cost=FLOPS, grown=False).number == 0
    assert within_cost(found, records, 1.6, cost=FLOPS, grown=True).number == 2


# -- a real sweep -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ran(tiny_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep `tiny` along a front, run to its end."""
    root = tmp_path_factory.mktemp("front")
    text = root / "text.txt"
    text.write_text("".join(f"{n} bottles of beer on the wall, {n} bottles of beer.\n" for n in range(200)))
    given = {
        "model": tiny_model("llama"),
        "text": text,
        "trials": 8,
        "study": "sqlite",
        "runs": "runs",
        "tracking": "null",
    }
    content = SPEC.format(name="tiny", **given)
    for old, new in {
        "stopping: {rule: asha, grace: 0.25, keep: 0.5}": "objective: [eval_loss, parameters]",
        "top: 1, seeds: 1": "top: 2, seeds: 2",
    }.items():
        assert content.count(old) == 1
        content = content.replace(old, new)
    (root / "tiny.yaml").write_text(content)
    run(load_spec(str(root / "tiny.yaml"), runs=str(root / "runs")), Silent(), runner="inline")
    return root


def test_a_sweep_ends_in_a_front_and_hands_over_from_it(
    ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work = copied(ran, tmp_path, monkeypatch)
    sweep = sweeps.find("tiny")
    front = sweep.verdict.front
    assert front is not None
    assert front.cost == "parameters"
    by_number = {record.number: record for record in sweep.records}
    _costs_are_of_what_was_trained(sweep)
    dearest = max(front.members, key=lambda each: each.cost)
    for each in front.members:
        assert each.cost == by_number[each.number].costs["parameters"]
        assert sweep.model_of(by_number[each.number]) is not None, "finalists' weights are kept"
    for times, grown in ((f"{dearest.times}x", []), ("1", []), (str(dearest.times), ["--grown"])):
        out = work / f"out-{times}-{len(grown)}"
        assert main(["export", "tiny", "--out", str(out), "--at-most", times, "--json", *grown]) == 0
        told = json.loads(capsys.readouterr().out)
        member = next(each for each in front.members if each.number == told["trial"])
        assert member.times is not None
        assert member.times <= float(times.removesuffix("x")) * (1 + 1e-6)
        assert "the original's parameters" in told["what"]
        assert (out / "config.json").exists()
        assert not (grown and member.original)
    assert main(["best", "tiny", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["front"]
    assert [each["trial"] for each in told["members"]] == [each.number for each in front.members]
    assert main(["best", "tiny"]) == 0
    shown = capsys.readouterr().out
    assert "The front" in shown
    assert "\nfront  " in shown
    assert main(["export", "tiny", "--out", str(work / "x"), "--at-most", "cheap"]) == 2
    assert "--at-most: got 'cheap'" in capsys.readouterr().err
    with pytest.raises(SpecError, match="one of them"):
        sweep.export(work / "x", trial=1, at_most=1.3)
    assert not (work / "x").exists()


def _costs_are_of_what_was_trained(sweep: Sweep) -> None:
    """What was planned before a trial is what its training counted; Optuna's trials bear it."""
    study = optuna.load_study(study_name="tiny", storage=sweep.spec.study_url)
    for record, theirs in zip(sweep.records, study.trials, strict=True):
        assert theirs.user_attrs["sweeps:parameters"] == record.costs["parameters"]
        if record.flops and record.tokens:
            assert record.flops / record.tokens == pytest.approx(record.costs[FLOPS])
