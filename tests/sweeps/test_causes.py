"""How an attempt ends that goes wrong: its cause, its words, and what is left on disk."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import sweeps.worker.trial
import tli.training.heldout
import tli.training.loop
from sweeps.driver.single import assignment_of
from sweeps.folders import Folders
from sweeps.records import Cause, State
from sweeps.spec import Spec, load_spec
from sweeps.worker.causes import disk_fault
from sweeps.worker.execution import Execution, Reply
from sweeps.worker.trial import cached_context, for_workers, run_trial
from tli.errors import CheckpointError, PlanError, Problem
from tli.files import open_regular


@pytest.fixture
def spec(write_spec: Any) -> Iterator[Spec]:
    cached_context.cache_clear()
    yield for_workers(load_spec(str(write_spec())))
    cached_context.cache_clear()


def ended(spec: Spec, **changes: Any) -> Reply:
    execution = Execution(spec, replace(assignment_of(spec, 1), **changes))
    while (reply := execution.advance()).outcome is None:
        pass
    execution.close()
    return reply


@pytest.mark.parametrize("answers", [True, False])
def test_a_process_whose_device_is_lost_runs_no_other_trial(
    spec: Spec, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    message = "CUDA error: device-side assert triggered"

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(message)

    monkeypatch.setattr(tli.training.heldout, "evaluate", fail)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", fail if not answers else lambda: None)
    execution = Execution(spec, assignment_of(spec, 1))
    outcome = execution.advance().outcome
    assert outcome is not None
    assert outcome.cause is Cause.ERROR
    assert execution.ruined is not answers


@pytest.mark.parametrize(
    ("error", "cause", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), Cause.OUT_OF_MEMORY, "2 GiB"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), Cause.OUT_OF_MEMORY, "CUBLAS"),
        (MemoryError(), Cause.OUT_OF_MEMORY, "MemoryError"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), Cause.OUT_OF_MEMORY, "Cannot allocate"),
        (RuntimeError("shapes differ\nsee above"), Cause.ERROR, "RuntimeError: shapes differ; log: "),
        (OSError(errno.EIO, "Input/output error"), Cause.ERROR, "Input/output"),
        (PlanError(Problem("injection.k", "9", "at most 4")), Cause.REFUSED, "at most 4"),
        (CheckpointError(Problem("tokenizer", "gone", "a file")), Cause.ERROR, "a file"),
    ],
)
def test_an_error_has_its_cause(
    spec: Spec, monkeypatch: pytest.MonkeyPatch, error: Exception, cause: Cause, words: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(tli.training.heldout, "evaluate", fail)
    outcome = ended(spec).outcome
    assert outcome is not None
    assert (outcome.state, outcome.cause, outcome.fatal) == (State.FAIL, cause, False)
    assert words in str(outcome.reason)
    log = Folders(spec.root, spec.name).trial(1) / "log.txt"
    assert log.read_text().startswith("attempt 1\nTraceback")
    assert type(error).__name__ in log.read_text()


def test_memory_that_the_machine_does_not_have(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tli.training.heldout, "evaluate", lambda *_, **__: torch.empty(2**60))
    outcome = ended(spec).outcome
    assert outcome is not None
    assert outcome.cause is Cause.OUT_OF_MEMORY, outcome.reason


def test_a_smaller_micro_batch_in_place_of_the_recipes(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an attempt that ran out of memory: it goes on from that one's state, in the same batches."""
    assignment = assignment_of(spec, 1)
    folders = Folders(spec.root, spec.name)
    slot = sweeps.worker.trial.WorkerContext(spec)
    whole = [point for points in run_trial(slot, assignment, folders) for point in points]
    rows = []
    inner = tli.training.loop.add_gradients

    def seen(model: Any, windows: Any, *rest: Any, **more: Any) -> Any:
        rows.append(len(windows))
        return inner(model, windows, *rest, **more)

    monkeypatch.setattr(tli.training.loop, "add_gradients", seen)
    smaller = replace(assignment, attempt=2, micro_batch_tokens=16)
    parts = [point for points in run_trial(slot, smaller, folders) for point in points]
    assert set(rows) == {1}  # of 4 in the batch
    assert [p.eval_loss for p in parts] == pytest.approx([p.eval_loss for p in whole], rel=1e-5)
    assert (folders.model_dir(1, 1) / "lineage.json").is_file()
    facts = json.loads((folders.model_dir(1, 2) / "lineage.json").read_text())
    assert facts["training"]["numerics"] == {"weights": "fp32", "evaluation": "fp32", "fp32 products": "fp32"}


def full_at(monkeypatch: pytest.MonkeyPatch, room: str, name: str) -> None:
    """Have what a room writes under a name go to a device that is always full."""

    def opened(path: Path, flags: int, mode: int = 0o644) -> int:
        return os.open("/dev/full", os.O_WRONLY) if name in path.name else open_regular(path, flags, mode)

    monkeypatch.setattr(f"{room}.open_regular", opened)


def test_a_curve_on_a_full_disk(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folders(spec.root, spec.name).trial(1)
    full_at(monkeypatch, "sweeps.curve", "curve.jsonl")
    outcome = ended(spec).outcome
    assert outcome is not None
    assert (outcome.state, outcome.fatal) == (State.FAIL, True)
    assert outcome.reason == f"the file system of {folder} is full; free space"


def test_a_state_on_a_full_disk_leaves_the_ones_before(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.worker.saving.CHECKPOINT_SECONDS", 0.0)
    folders = Folders(spec.root, spec.name)
    full_at(monkeypatch, "tli.training.state", ".step-00000004.tmp-")
    assignment = assignment_of(spec, 1)
    slowly = run_trial(
        sweeps.worker.trial.WorkerContext(spec), assignment, folders, lambda _work: time.sleep(0.05)
    )
    with pytest.raises(OSError, match="No space left"):
        list(slowly)
    states = sorted(path.name[:13] for path in folders.checkpoints(1).iterdir())
    assert len(states) == 2
    assert states[-1] == "step-00000003"


def test_no_room_for_a_state(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.worker.saving.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(
        "tli.training.saver.disk_space_problems", lambda *_: [Problem("here", "too little", "more")]
    )
    outcome = ended(spec).outcome
    assert outcome is not None
    checkpoints = Folders(spec.root, spec.name).checkpoints(1)
    assert outcome.reason == f"the file system of {checkpoints} is full; free space"
    assert outcome.fatal


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.EROFS, "read-only; make it"), (errno.EDQUOT, "quota"), (errno.ENOSPC, "full")],
)
def test_words_for_a_disk(number: int, words: str) -> None:
    assert words in str(disk_fault(OSError(number, "", "/data"), Path("/runs")))
    assert "/data" in str(disk_fault(OSError(number, "", "/data"), Path("/runs")))
    said = Exception(f"I/O error: something (os error {number})")  # as safetensors says it
    assert "/runs" in str(disk_fault(said, Path("/runs")))
    wrapped = CheckpointError(Problem("/data", "no place", "a place"))
    wrapped.__context__ = OSError(number, "", "/data")
    assert words in str(disk_fault(wrapped, Path("/runs")))
    assert disk_fault(OSError(errno.EIO, "", "/data"), Path("/runs")) is None


def test_a_loss_that_ran_away_is_divergence(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    from tli.training.evaluate import Evaluation

    losses = iter([12.0, 23.9, 24.1])
    monkeypatch.setattr(tli.training.heldout, "evaluate", lambda *_, **__: Evaluation(next(losses), 1))
    outcome = ended(spec).outcome
    assert outcome is not None
    assert (outcome.state, outcome.cause) == (State.FAIL, Cause.DIVERGED)
    assert str(outcome.reason).startswith("diverged: held-out loss is 24.1 at step ")
