"""The recipe of one execution of a trial, as its model is trained."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tli.training.recipe import AUTO

if TYPE_CHECKING:
    from sweeps.records import Assignment
    from sweeps.spec import Spec
    from sweeps.spec.settings import TrialSettings
    from tli.training.recipe import Recipe


def recipe_of(spec: Spec, settings: TrialSettings, assignment: Assignment) -> Recipe:
    """The trial's own recipe, with what was settled for all trials or learned of the device's memory.

    Args:
        spec: of the sweep.
        settings: the whole `trial:` section of this trial.
        assignment: its execution.
    """
    recipe = settings.to_recipe()
    if recipe.activation_checkpointing == AUTO:
        every = spec.trial.recipe.activation_checkpointing
        recipe = replace(recipe, activation_checkpointing=0 if every == AUTO else every)
    if assignment.micro_batch_tokens is not None:
        recipe = replace(recipe, micro_batch_tokens=assignment.micro_batch_tokens)
    return recipe
