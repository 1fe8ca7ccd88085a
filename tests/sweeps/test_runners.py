"""One contract for both runners: what the agenda hands out is carried out, and the same numbers come of it."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeps.curve import read_curve
from sweeps.driver.service import run
from sweeps.errors import SpecError
from sweeps.folders import Folders
from sweeps.records import Role, State
from sweeps.results.sweep import Sweep
from sweeps.spec import load_spec

RUNNERS = ["inline", pytest.param("ray", marks=pytest.mark.ray)]


@pytest.fixture(scope="module")
def first_results() -> dict[str, Any]:
    """What the first runner found, for the second to be compared with."""
    return {}


def swept(write_spec: Any, silent: Any, runner: str, **given: Any) -> Sweep:
    return run(load_spec(str(write_spec(**given))), silent, runner=runner)


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_whole_sweep(runner: str, write_spec: Any, silent: Any, first_results: dict[str, Any]) -> None:
    # A learning rate of 1e30 diverges: a failure belongs to a whole sweep, too.
    sweep = swept(
        write_spec,
        silent,
        runner,
        trials=7,
        replace={
            "recipe.learning_rate: {log: [1e-4, 1e-2]}": "recipe.learning_rate: {choice: [1e-4, 1e-3, 1e30]}",
            "parallel: 2": "parallel: 1",
            "rule: asha": "rule: median",
        },
    )
    records = sweep.records
    roles = [record.role for record in records]
    assert roles[:7] == [Role.CONTROL, Role.BASELINE, *[Role.SEARCH] * 5]
    assert set(roles[7:]) == {Role.REPLICATE}
    assert all(record.state.finished for record in records)
    assert sweep.ledger.finished
    # The control is the base as it is: equal, before training, to every function-preserving trial.
    initial = records[0].initial_loss
    assert records[1].initial_loss == initial
    assert records[0].settings["injection"]["method"] == "none"
    for record in records:
        if record.state is State.COMPLETE:
            assert record.value == record.losses[8]
            assert record.tokens == 512
            assert record.value is not None
            assert math.isfinite(record.value)
            curve = read_curve(sweep.folders.trial(record.number) / "curve.jsonl")
            assert {point.step: point.eval_loss for point in curve} == record.losses
            assert [s for point in curve for s, _ in point.train_loss] == list(range(1, 9))
        assert not sweep.folders.checkpoints(record.number).exists()
    diverged = [r for r in records if r.settings["recipe"]["learning_rate"] == 1e30 and r.state is State.FAIL]
    assert diverged
    assert all(r.reason is not None and r.reason.startswith("diverged:") for r in diverged)
    # Models are kept of those that may be asked for.
    kept = {
        r.number for r in records if (sweep.folders.model_dir(r.number, r.attempt) / "lineage.json").is_file()
    }
    answer = sweep.verdict.answer
    assert {1, answer.trial, answer.grown} <= kept
    assert not kept & {r.number for r in records if r.role is Role.REPLICATE}
    # Both runners, and any number of runs of them, give the same losses to the last bit.
    found = {record.number: (record.state, dict(record.losses)) for record in records}
    assert first_results.setdefault("whole", found) == found


def test_a_trial_that_breaks_is_told_with_its_log_and_the_sweep_goes_on(
    write_spec: Any, silent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = load_spec(str(write_spec(trials=3)))
    keep = Folders.write_spec

    def in_the_way(folders: Folders, kept: dict) -> None:
        (folders.trial(0) / "curve.jsonl").mkdir(parents=True)  # where a file must go
        keep(folders, kept)

    monkeypatch.setattr(Folders, "write_spec", in_the_way)
    sweep = run(spec, silent, runner="inline")
    control, *others = sweep.records
    assert control.state is State.FAIL
    log = sweep.folders.trial(0) / "log.txt"
    assert control.reason is not None
    assert "IsADirectoryError" in control.reason
    assert str(log) in control.reason
    assert "Traceback" in log.read_text()
    assert all(record.state in (State.COMPLETE, State.PRUNED) for record in others)
    assert any("control" in warning for warning in sweep.verdict.warnings)


def test_text_too_short_for_a_batch_ends_the_command_before_anything_starts(
    write_spec: Any, silent: Any
) -> None:
    replace = {"tokens: 512, batch_tokens: 64": "tokens: 32768, batch_tokens: 16384"}
    spec = load_spec(str(write_spec(replace=replace)))
    with pytest.raises(
        SpecError, match=r"data.source: got [\d,]+ tokens of training text; expected at least 16,385"
    ):
        run(spec, silent, runner="inline")
    assert not (spec.root / "study.db").exists()


def test_running_again_does_nothing_and_more_budget_goes_on(write_spec: Any, silent: Any) -> None:
    path = str(write_spec(trials=4))
    first = run(load_spec(path), silent, runner="inline")
    before = [(r.number, r.state, dict(r.losses), r.finished) for r in first.records]
    again = run(load_spec(path), silent, runner="inline")
    assert [(r.number, r.state, dict(r.losses), r.finished) for r in again.records] == before
    more = load_spec(path, overrides=["budget.trials=6"])
    with pytest.raises(
        ValueError, match=r"budget.trials: got 6; expected 4, the study's own; try --extend \(extend=True\)"
    ):
        run(more, silent, runner="inline")
    extended = run(more, silent, runner="inline", extend=True)
    assert [(r.number, r.state, dict(r.losses), r.finished) for r in extended.records][
        : len(before)
    ] == before
    assert sum(record.role is not Role.REPLICATE for record in extended.records) == 6
    # The old command on the extended sweep: nothing is taken back.
    run(load_spec(path), silent, runner="inline")
    assert "the study's budget is 6 trials, larger than 4; going on with 6" in silent.notes


def test_an_interrupted_trial_goes_on_from_its_checkpoint(
    write_spec: Any, silent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle of training and resumed, a trial ends with the same bits as one left alone."""
    from sweeps.driver.single import assignment_of
    from sweeps.worker.trial import WorkerContext, for_workers, run_trial

    monkeypatch.setattr("sweeps.worker.saving.CHECKPOINT_SECONDS", 0.0)
    spec = for_workers(load_spec(str(write_spec())))
    slot, assignment = WorkerContext(spec), assignment_of(spec, 1)
    alone, stopped = (Folders(spec.root / name, spec.name) for name in ("alone", "stopped"))
    whole = [point for points in run_trial(slot, assignment, alone) for point in points]
    slowly = run_trial(slot, assignment, stopped, lambda _work: time.sleep(0.05))
    while next(slowly)[-1].step < 4:
        pass
    slowly.close()
    assert len(list(stopped.checkpoints(1).iterdir())) == 2
    resumed = [point for points in run_trial(slot, assignment, stopped) for point in points]
    losses = [(p.step, p.eval_loss, p.train_loss) for p in whole]
    assert [(p.step, p.eval_loss, p.train_loss) for p in resumed] == losses
    weights = [folders.model_dir(1, 1) / "model.safetensors" for folders in (alone, stopped)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    # The newest state cut short: the one before it serves.
    newest = max(stopped.checkpoints(1).iterdir())
    newest.write_bytes(newest.read_bytes()[:-100])
    again = [point for points in run_trial(slot, assignment, stopped) for point in points]
    assert [(p.step, p.eval_loss, p.train_loss) for p in again] == losses


def test_nothing_of_one_trial_is_left_for_the_next(write_spec: Any) -> None:
    from sweeps.driver.single import assignment_of
    from sweeps.worker.trial import WorkerContext, for_workers, run_trial

    spec = for_workers(load_spec(str(write_spec())))
    slot = WorkerContext(spec)
    before = {name: value.clone() for name, value in slot.model.state_dict().items()}
    folders = Folders(spec.root, spec.name)
    control, baseline = assignment_of(spec, 0), assignment_of(spec, 1)
    first = [p.eval_loss for points in run_trial(slot, baseline, folders) for p in points]
    list(run_trial(slot, control, folders))
    assert [p.eval_loss for points in run_trial(slot, baseline, folders) for p in points] == first
    after = slot.model.state_dict()
    assert all(after[name].equal(value) for name, value in before.items())
    assert not any(p.grad is not None for p in slot.model.parameters())


def test_a_trial_that_is_stopped_holds_no_memory(
    write_spec: Any, silent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Model and optimizer go with it, and not when Python next looks for rings of objects."""
    import gc
    import weakref

    from tli.training.loop import Training

    before: list[int] = []
    made: list[weakref.ref[Training]] = []
    init = Training.__init__

    def counted(self: Training, *given: Any, **named: Any) -> None:
        before.append(sum(training() is not None for training in made))
        made.append(weakref.ref(self))
        init(self, *given, **named)

    monkeypatch.setattr(Training, "__init__", counted)
    gc.disable()
    try:
        records = run(load_spec(str(write_spec())), silent, runner="inline").records
    finally:
        gc.enable()
    assert State.PRUNED in {record.state for record in records}
    assert set(before) == {0}


def test_models_grown_alike_are_measured_once_before_they_train(
    write_spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tli.training.heldout
    from sweeps.driver.single import assignment_of
    from sweeps.worker.trial import WorkerContext, for_workers, run_trial

    spec = for_workers(load_spec(str(write_spec())))
    folders, baseline = Folders(spec.root, spec.name), assignment_of(spec, 1)
    measured: list[float] = []
    evaluate = tli.training.heldout.evaluate

    def counted(*given: Any, **named: Any) -> Any:
        measured.append(found := evaluate(*given, **named))
        return found

    monkeypatch.setattr(tli.training.heldout, "evaluate", counted)

    def points(slot: WorkerContext, number: int, **changes: Any) -> list[tuple[float, float]]:
        measured.clear()
        settings = {**baseline.settings, **changes}
        trial = replace(baseline, number=number, settings=settings)
        return [(p.eval_loss, p.measuring) for given in run_trial(slot, trial, folders) for p in given]

    slot, recipe = WorkerContext(spec), {**baseline.settings["recipe"], "learning_rate": 3e-3}
    random = {**baseline.settings["injection"], "init": "random"}
    first = points(slot, 1)
    assert len(measured) == len(first)
    other = points(slot, 2, recipe=recipe)
    assert len(measured) == len(other) - 1
    assert other[0] == (first[0][0], 0.0)
    assert [loss for loss, _ in points(WorkerContext(spec), 3, recipe=recipe)] == [loss for loss, _ in other]
    for number, changes in enumerate([{"injection": random}, {"injection": random, "seed": 1}], 4):
        drawn = points(slot, number, **changes)
        assert len(measured) == len(drawn), "another model"


def test_the_spec_is_kept_beside_its_results(write_spec: Any, silent: Any) -> None:
    sweep = swept(write_spec, silent, "inline", trials=2)
    kept = json.loads((Path(sweep.spec.root) / "tiny" / "spec.json").read_text())
    assert kept == json.loads(json.dumps(sweep.spec.to_json()))
