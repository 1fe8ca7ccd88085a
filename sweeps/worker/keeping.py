"""Writes the model that a trial has trained."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from sweeps.folders import Folders
from sweeps.records import Assignment
from sweeps.worker.keeps import Keeps

if TYPE_CHECKING:
    from tli.planning.plan import Plan
    from tli.training.loop import Training


def keep_model(
    context: Keeps, assignment: Assignment, folders: Folders, training: Training, plan: Plan
) -> None:
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
