"""Trials one after the other over what a worker keeps, as one process and as one rank of several."""

from __future__ import annotations

import gc
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import torch

from sweeps.driver.single import assignment_of
from sweeps.folders import Folders
from sweeps.records import Assignment
from sweeps.spec import Spec, load_spec
from sweeps.worker.ranks import RankContext
from sweeps.worker.trial import WorkerContext, for_workers, run_trial

_OPTIMIZER = "adamw" if find_spec("torchao") is None else "adamw8bit"
ROW: list[dict[str, Any]] = [
    {"train": "injected"},
    {"train": "all"},
    {"train": "injected+norms", "optimizer": _OPTIMIZER},
    {"train": "all", "optimizer": _OPTIMIZER},
    {"train": "injected", "optimizer": _OPTIMIZER},
    {"train": "injected"},
]


def assigned(spec: Spec, number: int, recipe: dict[str, Any]) -> Assignment:
    """The baseline with another recipe, as a trial of its own."""
    given = assignment_of(spec, 1)
    settings = {**given.settings, "recipe": {**given.settings["recipe"], **recipe}}
    return replace(given, number=number, settings=settings, owner=f"trial {number}")


def losses(context: WorkerContext, folders: Folders, number: int) -> list[float]:
    """Of the trial of that number in the row."""
    trial = run_trial(context, assigned(context.spec, number, ROW[number]), folders)
    return [point.eval_loss for points in trial for point in points]


def in_memory() -> int:
    """Bytes of this process's part of all tensors that are alive and have memory."""
    gc.collect()
    tensors = [each for each in gc.get_objects() if isinstance(each, torch.Tensor)]
    own = [each.to_local() if hasattr(each, "to_local") else each for each in tensors]
    kept = [
        each.untyped_storage() for each in own if each.device.type != "meta" and type(each) is torch.Tensor
    ]
    return sum({each.data_ptr(): each.nbytes() for each in kept}.values())


def on_a_rank(group: Any, path: str, overrides: list[str]) -> dict[str, Any]:
    """The losses of all of them, bytes in memory after each, and the types that the base is kept in."""
    spec = for_workers(load_spec(path, overrides=overrides))
    context, folders = RankContext(spec, group), Folders(spec.root, spec.name)
    found, memory = [], []
    for number in range(len(ROW)):
        found.append(losses(context, folders, number))
        memory.append(in_memory())
    kinds = sorted({str(each.local.dtype) for each in context.rows.rows.values()})
    return {"losses": found, "memory": memory, "kinds": kinds}
