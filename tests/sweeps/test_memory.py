"""What runs at once against the memory of the machine and of its GPUs; what in a spec is seldom meant."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from sweeps.checks import machine
from sweeps.checks.estimate import estimate
from sweeps.checks.measured import measured_tokens
from sweeps.checks.memory import room_problems
from sweeps.checks.preflight import check
from sweeps.checks.usual_values import habit_notes
from sweeps.errors import Problem, SpecError
from sweeps.spec import Spec, load_spec
from tli.models.base import Base, find


@pytest.fixture
def spec(write_spec: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Spec:
    monkeypatch.setattr(machine, "cores", lambda: 8)
    monkeypatch.setattr(machine, "gpus", lambda: 2)
    return load_spec(str(write_spec()), overrides=["resources.parallel=null"])


@pytest.fixture
def base(spec: Spec) -> Base:
    return find(spec.base.model)


def needed(spec: Spec, base: Base) -> int:
    """Bytes of one trial, the deepest, with the base beside it."""
    return max(shape.memory.total for shape in estimate(spec, base).shapes) + 4 * base.facts.parameters


def found(spec: Spec, base: Base, **given: int) -> list[Problem]:
    return list(room_problems(spec, base, local=True, **given))


def test_all_that_run_at_once_are_counted_with_the_base_that_each_keeps(
    spec: Spec, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = needed(spec, base)
    monkeypatch.setattr(machine, "memory", lambda: 8 * one)
    assert found(spec, base) == []
    monkeypatch.setattr(machine, "memory", lambda: 8 * one - 1)
    (problem,) = found(spec, base)
    assert "resources.parallel" in problem.where
    assert problem.remedy == "7"
    assert problem.got.startswith("8 trials at once of about ")
    assert found(spec, base, at_once=7) == []
    assert list(room_problems(spec, base, local=False)) == [], "of another machine nothing is known"
    monkeypatch.setattr(machine, "memory", lambda: None)
    assert found(spec, base) == []


def test_where_not_even_one_fits_its_pieces_are_to_be_smaller(
    spec: Spec, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "memory", lambda: 10_000)
    (problem,) = found(spec, base)
    assert problem.where.endswith("micro_batch_tokens")
    assert problem.got.startswith("one trial of about ")


@pytest.mark.parametrize(
    ("share", "fit", "where", "remedy"),
    [
        ("0.25", 4, None, ""),
        ("0.25", 3, "resources.gpus", "0.34, or resources.parallel: 3"),
        ("1", 1, None, ""),
        (
            "0.5",
            0,
            "micro_batch_tokens",
            "micro_batch_tokens: 16, activation_checkpointing: 1, resources.workers: 2",
        ),
    ],
)
def test_those_on_one_gpu_share_its_memory(
    share: str,
    fit: int,
    where: str | None,
    remedy: str,
    base: Base,
    spec: Spec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = needed(spec, base)
    monkeypatch.setattr(machine, "memory", lambda: 0)  # of the machine it needs what it needs
    resources = spec.resources.model_copy(update={"gpus": float(share)})
    on_gpus = spec.model_copy(update={"resources": resources})
    monkeypatch.setattr(machine, "gpu_memory", lambda: fit * one + one // 2)
    problems = found(on_gpus, base)
    assert [problem.remedy for problem in problems] == ([remedy] if where else [])
    assert all(problem.where.endswith(str(where)) for problem in problems)
    monkeypatch.setattr(machine, "gpu_memory", lambda: None)
    assert found(on_gpus, base) == []


# -- habits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["quickstart", "quickstart-small", "methods"])
def test_what_is_packaged_is_usual(name: str) -> None:
    spec = load_spec(name)
    assert list(habit_notes(spec, find(spec.base.model), local=True)) == []


def test_no_more_is_measured_on_than_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two notes about the held-out text say the same of it, and the estimate counts that."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("".join(f"{n} bottles of beer on the wall.\n" for n in range(900)))
    given = ["data.source=text.txt", "data.eval_tokens=60000000", "data.sequence_length=64"]
    checked = check(load_spec("quickstart", overrides=given))
    there = checked.heldout
    assert there is not None
    assert there < 60_000
    marks = len(checked.spec.report_steps())
    whole = (there - 1) // 64 * 64
    assert measured_tokens(checked.spec, there) == marks * whole
    assert measured_tokens(checked.spec) == marks * (60_000_000 // 64 * 64)
    assert any(f"{there:,} tokens are there, and data.eval_tokens asks" in note for note in checked.notes)
    assert not any(f"{marks * 60_000_000:,}" in note for note in checked.notes)
    measuring = [note for note in checked.notes if "measured on" in note and "trained on" in note]
    assert all(f"measured on {marks * whole:,} tokens" in note for note in measuring)
    little, much = (estimate(checked.spec, checked.base, heldout=given) for given in (there, None))
    assert little.eval_tokens == marks * whole
    assert little.at_most.flops < much.at_most.flops


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trial.recipe.learning_rate=1000", r"trial.recipe.learning_rate is 1000; 1e-5 to 1e-2 with AdamW is usual"),
        ("search={recipe.learning_rate: {log: [1e-4, 100]}}", "search.recipe.learning_rate goes to 100; 1e-5 to 1e-2"),
        ("trial.recipe.injected_learning_rate=3", "trial.recipe.injected_learning_rate is 3"),
        ("trial.recipe.weight_decay=10", "weight_decay is 10; 0 to 0.1"),
        ("trial.recipe.warmup=0.9", "warmup is 0.9"),
        ("trial.recipe.clip=0.001", "clip is 0.001; about 1 is usual"),
        ("trial.recipe.tokens=4096", "4,096 tokens is 2 steps of 2,048"),
        ("data.eval_tokens=128", "data.eval_tokens is 128"),
        ("data.eval_tokens=1048576", "most of its time is measuring"),
        ("trial.recipe.tokens=4900000000", r"about \d+d\d\dh on this machine, at a rough 20 GFLOP/s a trial"),
        (
            "search={injection.method: {choice: [tli, dus]}, injection.k: {choice: [2, 4]}}",
            r"search.injection.k has no effect with dus: .*when: {injection.method: \[tli\]}",
        ),
        ("search={recipe.micro_batch_tokens: {choice: [1024, 2048]}}", "micro_batch_tokens changes no trial"),
        ("trial.recipe.decay=0.3", r"trial.recipe.decay changes no trial"),  # with a linear schedule
        ("search={recipe.decay: {choice: [0.1, 0.3]}}", r"search.recipe.decay changes no trial"),
        ("data.test_tokens=1048576", r"a run under a fresh seed is tested on 1,048,576 tokens"),
        ("control.rates=9", r"control.rates is 9, and the control has 6, .*budget.trials=36 has room for 9"),
        ("finalists.margin=0.05", r"finalists.margin is 0.05 nats: other seeds usually move"),
        ("finalists.margin=2%", r"finalists.margin is 2% of the control's loss: other seeds"),
    ],
)  # fmt: skip
def test_what_is_seldom_meant_is_noted_with_what_is_usual(override: str, said: str) -> None:
    spec = load_spec("quickstart", overrides=["trial.injection.m=2", override])
    notes = list(habit_notes(spec, find(spec.base.model), local=True))
    assert sum(re.search(said, note) is not None for note in notes) == 1, notes


def test_a_setting_that_the_schedule_or_the_control_reads_has_an_effect() -> None:
    read = ["trial.recipe.schedule=wsd", "trial.recipe.decay=0.3"]
    of_the_control = ["trial.recipe.train=injected", "trial.recipe.rates={norms: 2.0}"]
    searched = ["search={recipe.schedule: {choice: [linear, wsd]}}", "trial.recipe.decay=0.3"]
    for overrides in (read, of_the_control, searched):
        spec = load_spec("quickstart", overrides=overrides)
        notes = list(habit_notes(spec, find(spec.base.model), local=True))
        assert not [note for note in notes if "changes no trial" in note], notes


def test_hours_of_a_cluster_are_not_guessed() -> None:
    spec = load_spec("quickstart", overrides=["trial.recipe.tokens=4900000000"])
    assert list(habit_notes(spec, find(spec.base.model), local=False)) == []


# -- compilers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "override", ["trial.recipe.compile=true", "search={recipe.compile: {choice: [false, true]}}"]
)
def test_layers_are_compiled_where_there_is_a_compiler(
    override: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = load_spec("quickstart", overrides=[override])
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SpecError) as caught:
        check(spec)
    said = [str(problem) for problem in caught.value.problems if "recipe.compile" in problem.where]
    assert len(said) == 1
    assert (
        "true, and none of g++, clang++, c++ on this machine; expected a C++ compiler; try false" in said[0]
    )
    compiler = tmp_path / "g++"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    assert machine.missing_compiler(gpu=False) is None
    assert machine.missing_compiler(gpu=True) == (
        "no Triton" if find_spec("triton") is None else "none of gcc, clang, cc"
    )
