"""Trials that train injected layers alone: frozen weights are the base's own, and the control trains as much."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sweeps.__main__ import main
from sweeps.checks import machine
from sweeps.checks.memory import fitting_settings, largest_trial, room_problems
from sweeps.driver.single import assignment_of
from sweeps.errors import SpecError
from sweeps.folders import Folders
from sweeps.records import Assignment, Point, Role
from sweeps.spec import Spec, load_spec
from sweeps.worker.trial import WorkerContext, for_workers, run_trial
from tests.ranks import on_ranks
from tests.sweeps import rank_trials
from tli.models.descriptions import described
from tli.models.halved import halved_weights

WriteSpec = Callable[..., Path]
ALONE = ["trial.recipe.train=injected", "control.train=layers"]
CARD = 80 * 10**9


@pytest.fixture
def half(save_model: Callable[..., Path], tmp_path: Path) -> Path:
    """A model whose weights are bfloat16 numbers, its head apart from its embedding."""
    return save_model(tmp_path / "half", "llama", dtype="bfloat16", tie_word_embeddings=False)


@pytest.fixture
def alone(write_spec: WriteSpec, half: Path) -> Callable[..., Spec]:
    def made(*more: str) -> Spec:
        given = [f"base.model={half}", *ALONE, *more]
        return for_workers(load_spec(str(write_spec()), overrides=given))

    return made


def points(slot: WorkerContext, assignment: Assignment, folders: Folders) -> list[Point]:
    return [point for given in run_trial(slot, assignment, folders) for point in given]


def storages(tensors: Iterator[Tensor]) -> dict[int, int]:
    """Bytes by storage."""
    kept = (each.untyped_storage() for each in tensors)
    return {each.data_ptr(): each.nbytes() for each in kept}


def in_memory() -> int:
    """Bytes of all tensors that are alive."""
    gc.collect()
    return sum(storages(each for each in gc.get_objects() if isinstance(each, Tensor)).values())


@pytest.mark.parametrize(
    ("number", "precision", "recipe"),
    [
        (0, "fp32", []),
        (1, "bf16", []),
        (1, "fp32", ["trial.injection.init=slerp"]),
        (1, "bf16", ["trial.injection.init=mean"]),
        (0, "bf16", ["trial.recipe.train=injected+norms"]),
        (1, "bf16", ["trial.recipe.train=injected+norms"]),
        (1, "bf16", ["trial.recipe.train=all", "control.train=all", "trial.recipe.rates.original=0"]),
        (0, "bf16", ["control.train=all"]),
    ],
)
def test_what_is_shared_changes_no_loss_and_no_byte(
    number: int,
    precision: str,
    recipe: list[str],
    alone: Callable[..., Spec],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = alone(f"trial.recipe.precision={precision}", *recipe)
    assignment = assignment_of(spec, number)
    found = points(WorkerContext(spec), assignment, Folders(spec.root / "shared", spec.name))
    monkeypatch.setattr("tli.training.frozen.halve_frozen", lambda _model: 0)
    monkeypatch.setattr("tli.training.optimizer.untrained", lambda *_: frozenset())
    slot = WorkerContext(spec)
    assert not any(halved_weights(slot.model))
    whole = points(slot, assignment, Folders(spec.root / "copied", spec.name))
    assert [point.eval_loss for point in found] == pytest.approx([p.eval_loss for p in whole], abs=1e-6)
    assert found[0].eval_loss != found[-1].eval_loss
    written = [
        Folders(spec.root / name, spec.name).model_dir(number, 1) / "model.safetensors"
        for name in ("shared", "copied")
    ]
    if precision == "fp32":
        assert written[0].read_bytes() == written[1].read_bytes()


def test_a_trial_has_its_frozen_weights_in_common_with_the_base(alone: Callable[..., Spec]) -> None:
    """Of the grown model only the new layers take memory, and after a trial there is as much as before."""
    spec = alone("trial.recipe.precision=bf16", "trial.injection.init=mean")
    slot, folders = WorkerContext(spec), Folders(spec.root, spec.name)
    assert {each.dtype for each in slot.model.parameters() if each.ndim > 1} == {torch.bfloat16}
    before, kept = in_memory(), {name: each.clone() for name, each in slot.model.state_dict().items()}
    trial = run_trial(slot, assignment_of(spec, 1), folders)
    next(trial)
    frame: Any = trial.gi_frame
    assert frame is not None
    model, injected = frame.f_locals["model"], frame.f_locals["injected"]
    base = storages(iter(slot.model.parameters()))
    own = {at: size for at, size in storages(iter(model.parameters())).items() if at not in base}
    new = {name: each for name, each in model.named_parameters() if name in injected}
    assert sum(own.values()) == sum(4 * each.numel() for each in new.values())
    assert {each.dtype for each in new.values()} == {torch.float32}
    trial.close()
    del model, new, frame, trial
    for number in (0, 1):
        points(slot, assignment_of(spec, number), folders)
        gc.collect()
    after = in_memory() - sum(each.nbytes for each in kept.values())
    assert after <= before + 4096  # a generator's state, a loss
    assert all(torch.equal(kept[name], each) for name, each in slot.model.state_dict().items())


@pytest.mark.ranks
@pytest.mark.parametrize(("precision", "near"), [("fp32", 1e-5), ("bf16", 2e-2)])
def test_trials_over_ranks_share_what_they_do_not_train(
    write_spec: WriteSpec, half: Path, precision: str, near: float
) -> None:
    """Whatever is trained, one after the other: the losses of one process, and no byte more after the last."""
    path, kind = write_spec(), "torch.bfloat16" if precision == "bf16" else "torch.float32"
    given = [f"base.model={half}", *ALONE, f"trial.recipe.precision={precision}", "resources.workers=2"]
    found = on_ranks(2, "tests.sweeps.rank_trials:on_a_rank", path=str(path), overrides=given)
    spec = for_workers(load_spec(str(path), overrides=given))
    context, folders = WorkerContext(spec), Folders(spec.root / "alone", spec.name)
    for number in range(len(rank_trials.ROW)):
        alone = rank_trials.losses(context, folders, number)
        for rank in found:
            assert rank["losses"][number] == pytest.approx(alone, abs=near), rank_trials.ROW[number]
    for rank in found:
        assert rank["kinds"] == [kind]
        assert rank["memory"][-1] <= rank["memory"][0] + 4096


def test_the_control_trains_the_layers_that_new_ones_are_made_of(alone: Callable[..., Spec]) -> None:
    spec = alone("trial.recipe.injected_learning_rate=2e-3")
    slot = WorkerContext(spec)
    assert slot.control_layers == (1, 3)
    control = assignment_of(spec, 0)
    assert control.role is Role.CONTROL
    assert control.settings["recipe"]["train"] == "injected"
    assert control.settings["recipe"]["learning_rate"] == 2e-3
    trial = run_trial(slot, control, Folders(spec.root, spec.name))
    next(trial)
    training: Any = trial.gi_frame.f_locals["training"]
    moved = {name.split(".")[2] for name, each in training.model.named_parameters() if each.requires_grad}
    assert moved == {"1", "3"}
    trial.close()


def test_the_answer_says_what_such_a_control_does_not_show(
    write_spec: WriteSpec, half: Path, silent: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from sweeps.driver.service import run

    path = write_spec(trials=3)
    sweep = run(load_spec(str(path), overrides=[f"base.model={half}", *ALONE]), silent, runner="inline")
    control = next(record for record in sweep.records if record.role is Role.CONTROL)
    baseline = next(record for record in sweep.records if record.role is Role.BASELINE)
    assert control.settings["recipe"]["train"] == "injected"
    assert control.flops < baseline.flops
    assert any("control.train: layers" in each for each in sweep.verdict.warnings)
    capsys.readouterr()


@pytest.mark.parametrize(
    "given",
    [
        ["trial.recipe.train=all"],
        ["search={recipe.train: {choice: [injected, all]}}", "budget.trials=4"],
        ["trial.injection.method=moe", "search={recipe.learning_rate: {log: [1e-4, 1e-2]}}"],
    ],
)
def test_a_control_of_layers_wants_trials_of_injected_layers(given: list[str], write_spec: WriteSpec) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(str(write_spec()), overrides=[*ALONE, *given])
    (problem,) = [each for each in caught.value.problems if "control.train" in each.where]
    assert problem.remedy == "all"


def test_8b_with_injected_layers_alone_fits_a_card_of_80_gb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "gpus", lambda: 1)
    monkeypatch.setattr(machine, "gpu_memory", lambda: CARD)
    monkeypatch.setattr(machine, "free_space", lambda _path: 10**15)

    def on_a_card(*given: str) -> tuple[Spec, list[str]]:
        spec = load_spec("llama-3.1-8b", overrides=["resources.workers=1", *given])
        base = described(spec.base.model)
        assert base is not None
        return spec, [each.remedy for each in room_problems(spec, base, local=True, at_once=1)]

    own = "trial.recipe.activation_checkpointing=1"
    _, remedies = on_a_card("trial.recipe.train=injected", own)
    assert remedies == ["control.train: layers"], "the control is what does not fit"
    spec, remedies = on_a_card(*ALONE, own)
    assert remedies == []
    base = described(spec.base.model)
    assert base is not None
    largest = largest_trial(spec, base)
    assert largest.base == 0, "it has no base beside it"
    assert largest.own < 0.6 * CARD
    _, remedies = on_a_card(*ALONE)
    assert remedies == ["activation_checkpointing: 1"]
    whole, _ = on_a_card()
    assert "train: injected, control.train: layers" in list(fitting_settings(whole, base, CARD))[-1]


def test_auto_takes_the_least_recomputation_that_fits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from sweeps.checks.checkpointing import checkpointing

    monkeypatch.chdir(tmp_path)
    found = {}
    for gigabytes in (40, 80, 110):
        monkeypatch.setattr(machine, "gpu_memory", lambda size=gigabytes: size * 10**9)
        spec = load_spec(
            "llama-3.1-8b",
            overrides=["resources.workers=1", *ALONE, "trial.recipe.activation_checkpointing=auto"],
        )
        base = described(spec.base.model)
        assert base is not None
        found[gigabytes] = checkpointing(spec, base, local=True, at_once=1)
    every = [found[size] for size in sorted(found)]
    assert every[0] == 1
    assert every[-1] == 0
    steps = [1 / each if each else 0 for each in every]
    assert steps == sorted(steps, reverse=True)
    assert len(set(every)) > 2
    assert checkpointing(spec, base, local=False, at_once=1) == 1, (
        "of another machine's cards nothing is known"
    )
    given = ["--set", "trial.recipe.activation_checkpointing=auto"]
    assert main(["plan", "quickstart", "--json", *given]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["checkpointing"] == 0
    assert any("activation_checkpointing=auto is auto: 0" in note for note in planned["notes"])


def test_what_auto_came_to_is_kept_for_all_trials_of_a_study(
    write_spec: WriteSpec, silent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sweeps.driver.service import run

    auto = ["trial.recipe.activation_checkpointing=auto"]
    need = largest_of(load_spec(str(write_spec()), overrides=["trial.recipe.activation_checkpointing=1"]))
    monkeypatch.setattr(machine, "memory", lambda: need)
    first = run(load_spec(str(write_spec(trials=3)), overrides=auto), silent, runner="inline")
    every = first.ledger.study.checkpointing
    assert every == 1
    monkeypatch.setattr(machine, "memory", lambda: 100 * need)
    again = run(load_spec(str(write_spec(trials=4)), overrides=auto), silent, runner="inline", extend=True)
    assert again.ledger.study.checkpointing == 1
    lineages = sorted(again.spec.root.rglob("lineage.json")) or sorted(again.spec.root.rglob("*lineage*"))
    trained = [json.loads(path.read_text()) for path in lineages]
    assert trained
    assert all('"activation_checkpointing": 1' in json.dumps(each) for each in trained)


def largest_of(spec: Spec) -> int:
    from tli.models.base import find

    return largest_trial(spec, find(spec.base.model)).whole
