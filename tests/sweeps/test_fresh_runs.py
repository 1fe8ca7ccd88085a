"""Runs under fresh seeds, in a whole sweep: whose they are, what they are measured on, what Optuna sees of them."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import optuna
import pytest

from sweeps.curve import read_curve
from sweeps.driver.service import run
from sweeps.errors import SpecError
from sweeps.ledger import Ledger, open_storage, read_file
from sweeps.ledger.store.marks import SPEC
from sweeps.records import Point, Role, State, TrialRecord
from sweeps.results.compare import compare
from sweeps.results.finalists import control_of, flops_per_token
from sweeps.results.finding import find, resumed
from sweeps.results.sweep import Sweep
from sweeps.spec import load_spec
from sweeps.worker.texts import TEST_BLOCKS
from sweeps.worker.trial import WorkerContext, for_workers
from tests.sweeps.conftest import SPEC as TEXT
from tests.sweeps.conftest import Silent

SEEDS = 2


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[[str], Path]) -> Sweep:
    """Carried out once, in this process. Shared: look only."""
    root = tmp_path_factory.mktemp("fresh")
    text = root / "text.txt"
    text.write_text("".join(f"{n} bottles of beer on the wall, {n} bottles of beer.\n" for n in range(200)))
    given = {"model": tiny_model("llama"), "text": text, "trials": 9, "study": "sqlite", "tracking": "null"}
    path = root / "tiny.yaml"
    path.write_text(TEXT.format(name="tiny", runs=root / "runs", **given))
    overrides = [
        f"finalists={{top: 2, seeds: {SEEDS}}}",
        "control={rates: 2, matched: true}",
        "data.test_tokens=320",
        "stopping.rule=none",
        "trial.injection.k=1",
    ]
    return run(load_spec(str(path), overrides=overrides), Silent(), runner="inline")


def of(sweep: Sweep, role: Role) -> list[TrialRecord]:
    return [record for record in sweep.records if record.role is role]


def test_all_that_is_compared_runs_under_the_same_fresh_seeds(sweep: Sweep) -> None:
    replicates = of(sweep, Role.REPLICATE)
    compared = {record.replicate_of for record in replicates}
    control = control_of(sweep.records)
    (baseline,) = of(sweep, Role.BASELINE)
    assert control is not None
    assert {control.number, baseline.number} <= compared
    assert 3 <= len(compared) <= 4  # the baseline may be one of the two finalists
    for number in compared:
        seeds = [record.seed for record in replicates if record.replicate_of == number]
        assert seeds == [baseline.seed + 1, baseline.seed + 2]
    assert {record.seed for record in sweep.records if not record.role.fresh} == {baseline.seed}


def test_the_control_has_two_rates_and_its_best_stands_for_both(sweep: Sweep) -> None:
    controls = of(sweep, Role.CONTROL)
    rates = [record.settings["recipe"]["learning_rate"] for record in controls]
    assert rates == [1e-3, pytest.approx(3e-3)]
    best = control_of(sweep.records)
    assert best is min(controls, key=lambda record: record.value or math.inf)
    folders = sweep.folders
    kept = {record.number for record in controls if folders.model_dir(record.number, record.attempt).exists()}
    assert kept == {best.number}


def test_a_matched_control_spends_the_flops_of_the_winner_to_its_own_end(sweep: Sweep) -> None:
    matched, control = of(sweep, Role.MATCHED), control_of(sweep.records)
    assert control is not None
    assert [record.seed for record in matched] == [control.seed + 1, control.seed + 2]
    (number,) = {record.replicate_of for record in matched}
    assert number is not None
    winner = sweep.records[number]
    theirs, own = flops_per_token(winner), flops_per_token(control)
    assert theirs is not None
    assert own is not None
    steps = round(control.steps * theirs / own)
    assert steps > control.steps == winner.steps
    batch = control.settings["recipe"]["batch_tokens"]
    for record in matched:
        assert (record.state, record.steps, record.step, record.tokens) == (
            State.COMPLETE,
            steps,
            steps,
            steps * batch,
        )
        assert record.flops == pytest.approx(winner.flops, abs=own * batch / 2)
        assert record.settings["recipe"] == {**control.settings["recipe"], "tokens": steps * batch}
        assert record.original


def test_the_test_text_is_measured_under_fresh_seeds_alone(sweep: Sweep) -> None:
    for record in sweep.records:
        assert record.state is State.COMPLETE
        assert len(record.test_losses) == (TEST_BLOCKS if record.role.fresh else 0)
        owner = sweep.ledger.owner(record)
        curve = read_curve(sweep.folders.trial(record.number) / "curve.jsonl", owner)
        assert [point.test_losses for point in curve[:-1]] == [()] * (len(curve) - 1)
        assert curve[-1].test_losses == record.test_losses
        model = sweep.folders.model_dir(record.number, record.attempt)
        if record.role.fresh:  # of the matched controls the one that may be handed over is kept
            assert model.exists() == (record.number == sweep.verdict.matched.number)


def test_the_test_loss_is_that_of_the_trained_model(sweep: Sweep) -> None:
    """Trained again by hand, without a worker."""
    from tli.growth.in_memory import grow, injected_parameters
    from tli.planning.plan import plan_for
    from tli.training.evaluate import evaluate
    from tli.training.loop import Training

    context = WorkerContext(for_workers(sweep.spec))
    windows = context.texts.test_windows(sequence_length=16, test_tokens=320)["source"]
    assert len(windows) == 20
    heldout = {tuple(window) for window in context.heldout}
    assert not any(tuple(window) in heldout for window in windows)
    for record in (of(sweep, Role.REPLICATE)[-1], of(sweep, Role.MATCHED)[0]):
        settings = sweep.spec.trial.model_validate(record.settings)
        recipe = settings.to_recipe()
        plan = plan_for(settings.to_injection(), context.depth)
        model = grow(context.model, plan, seed=record.seed)
        batches = context.texts.batches(
            sequence_length=16, batch_tokens=recipe.batch_tokens, seed=record.seed
        )
        injected = injected_parameters(model, plan)
        training = Training(model, recipe, batches, context.heldout, injected=injected, seed=record.seed)
        (last,) = training.run([recipe.steps])
        assert last.eval_loss == pytest.approx(record.value, abs=1e-6)
        # Of 20 windows in 16 blocks, every fourth block has two.
        ends = [20 * block // 16 for block in range(17)]
        blocks = [evaluate(model, windows[start:end]).loss for start, end in itertools.pairwise(ends)]
        assert record.test_losses == pytest.approx(blocks, abs=1e-6)
        assert record.test_loss == pytest.approx(fmean(blocks), abs=1e-6)


def test_optuna_speaks_of_the_search_alone(sweep: Sweep) -> None:
    study = optuna.load_study(study_name="tiny", storage=open_storage(sweep.spec.study_url))
    searched = [r for r in sweep.records if r.role in (Role.BASELINE, Role.SEARCH)]
    best = min(searched, key=lambda record: record.value or math.inf)
    assert min(record.value or math.inf for record in sweep.records) is not None
    assert (study.best_trial.number, study.best_value) == (best.number, best.value)
    frame = study.trials_dataframe()
    told = frame[frame["value"].notna()]
    assert set(told["number"]) == {record.number for record in searched}
    assert set(frame[frame["state"] == "COMPLETE"]["number"]) == set(told["number"])
    importances = optuna.importance.get_param_importances(study)
    assert set(importances) == {"injection.k", "injection.init", "recipe.learning_rate"}
    assert sum(importances.values()) == pytest.approx(1.0)
    for record in sweep.records:
        hidden = record.role not in (Role.BASELINE, Role.SEARCH)
        trial = study.trials[record.number]
        assert trial.state.name == ("PRUNED" if hidden else "COMPLETE")
        assert trial.user_attrs.get("sweeps:value") == (record.value if hidden else None)


def test_every_reader_has_the_values_that_optuna_has_not(sweep: Sweep) -> None:
    by_sql, by_optuna = read_file(sweep.spec.study_url, "tiny"), Ledger.read(sweep.spec.study_url, "tiny")
    assert by_sql is not None
    assert by_sql.trials() == by_optuna.trials() == sweep.records
    for record in by_sql.trials():
        assert (record.state, record.value) == (State.COMPLETE, record.losses[record.steps])


def test_a_matched_control_is_no_replicate_of_the_winner(sweep: Sweep) -> None:
    winner = of(sweep, Role.MATCHED)[0].replicate_of
    found = compare(["tiny"], runs=str(sweep.folders.artifacts))
    (entry,) = (each for each in found.entries if each.key == f"tiny:{winner}")
    assert set(entry.curves) == {0, 1, 2}
    assert {curve[-1].step for curve in entry.curves.values()} == {sweep.spec.steps}


def test_a_matched_control_is_compared_under_the_seeds_that_it_shares(sweep: Sweep) -> None:
    runs = str(sweep.folders.artifacts)
    found = compare("tiny", runs=runs)
    first, second, _ = found.entries
    assert (first.what, second.what) == ("control", "matched control")
    assert (second.record.number, set(second.curves)) == (sweep.verdict.matched.number, {1, 2})  # type: ignore[union-attr]
    assert found.seeds == (1, 2)
    longer = max(record.steps for record in of(sweep, Role.MATCHED))
    assert [longer in losses for losses in found.losses.values()] == [False, True, False]
    compared_trials = {record.replicate_of for record in of(sweep, Role.REPLICATE)}
    other = next(r.number for r in of(sweep, Role.SEARCH) if r.number not in compared_trials)
    apart = compare("tiny", f"tiny:{other}", runs=runs)
    assert "matched control" not in [entry.what for entry in apart.entries]
    assert any(text.startswith("tiny: the control with the FLOPs of trial") for text in apart.warnings)


def test_running_it_again_finds_nothing_to_do(sweep: Sweep) -> None:
    before = len(sweep.records)
    assert len(run(sweep.spec, Silent(), runner="inline").records) == before


def test_a_study_from_before_fresh_seeds_is_read_and_not_run_on(sweep: Sweep) -> None:
    """As the version before kept it: no `control`, and a finalist's first seed counted."""
    old = sweep.spec.to_json()
    del old["control"], old["data"]["test_tokens"], old["finalists"]["margin"]
    old["finalists"]["seeds"], old["name"] = 3, "old"
    storage = open_storage(sweep.spec.study_url)
    study = optuna.create_study(study_name="old", storage=storage, direction="minimize")
    study.set_user_attr(SPEC, json.dumps(old))
    study.set_user_attr("sweeps:identity", "0" * 32)
    runs = str(sweep.folders.artifacts)
    folder = sweep.folders.artifacts / "old"
    folder.mkdir()
    (folder / "spec.json").write_text(json.dumps(old))
    read = find("old", runs=runs).spec
    assert (read.finalists.seeds, read.control.rates, read.control.matched) == (2, 1, False)
    for refused in (
        lambda: resumed("old", runs=runs),
        lambda: run(sweep.spec.model_copy(update={"name": "old"}), Silent(), runner="inline"),
    ):
        with pytest.raises(SpecError, match=r"made by an earlier version.*name: old-2"):
            refused()
    assert json.loads(storage.get_study_user_attrs(study._study_id)[SPEC]) == old


def test_points_without_test_losses_are_those_of_old_curves() -> None:
    point = Point(8, 512, 1.0, 2.0, 3.5, ((8, 3.6),), 7.0, 0.1)
    assert "test_losses" not in point.to_json()
    assert Point.from_json(point.to_json()) == point
    tested = Point(8, 512, 1.0, 2.0, 3.5, test_losses=(3.4, 3.6))
    assert Point.from_json(json.loads(json.dumps(tested.to_json()))) == tested
    assert not Point(8, 512, 1.0, 2.0, 3.5, test_losses=(3.4, math.nan)).finite
    for wrong in ([True], ["3"], 3.0):
        with pytest.raises(TypeError):
            Point.from_json({**tested.to_json(), "test_losses": wrong})
