"""Keeps the model of a trial that has come to its end: a folder that plain transformers loads."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sweeps.folders import Folders
from sweeps.records import Assignment
from sweeps.spec import Spec

if TYPE_CHECKING:
    from tli.models.base import Base


class Keeper(Protocol):
    """What a worker keeps between trials, as far as a model is written from it."""

    spec: Spec
    base: Base
    leads: bool  # whether this process writes the curve; of those that train a model together, one does

    def write(self, model: Any, target: Path, lineage: dict[str, Any]) -> None:
        """Write a trained model as a folder."""


def keep(context: Keeper, assignment: Assignment, folders: Folders, training: Any, plan: Any) -> None:
    """Write the trained model as a folder that plain transformers loads."""
    from tli.models.lineage import lineage

    facts = {
        "sweep": context.spec.name,
        "spec_hash": context.spec.hash,
        "owner": assignment.owner,
        "trial": assignment.number,
        "attempt": assignment.attempt,
        "settings": dict(assignment.settings),
        "training": {
            "steps": training.step,
            "tokens": training.step * training.recipe.batch_tokens,
            "numerics": training.numerics,
            "activation_checkpointing": training.recipe.activation_checkpointing,
        },
    }
    target = folders.model_dir(assignment.number, assignment.attempt)
    if context.leads:
        shutil.rmtree(target, ignore_errors=True)  # of a trial that is run here again, for a debugger
    context.write(
        training.model,
        target,
        lineage(context.base, plan, seed=assignment.settings["seed"], extra=facts),
    )
