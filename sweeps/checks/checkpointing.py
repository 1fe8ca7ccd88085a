"""Activation checkpointing by the memory that there is: the least recomputation, for all trials alike."""

from __future__ import annotations

from sweeps.checks import machine
from sweeps.checks.memory import at_one_place, largest_trial
from sweeps.checks.placement import slots, this_machine
from sweeps.spec import Spec, with_settings
from tli.models.base import Base
from tli.training.recipe import AUTO

PATH = "trial.recipe.activation_checkpointing"
_OPTIONS = (0, 4, 3, 2, 1)  # every so many layers one is calculated again: none, a quarter, ... all
MARGIN = 1.1  # on a GPU: what fragments and libraries take


def is_auto(spec: Spec) -> bool:
    """Whether a sweep leaves the choice to the estimate."""
    return bool(spec.trial.recipe.activation_checkpointing == AUTO)


def checkpointing(spec: Spec, base: Base, *, local: bool, at_once: int | None) -> int:
    """Every how many layers one is calculated again, so that every trial of a sweep fits.

    That of the most memory where none fits, and where the memory of a GPU is not known; 0 on CPUs of which
    it is not.

    Args:
        spec: a spec that fits its base, with `auto`.
        base: its base; only headers and configuration are read.
        local: whether the trials run on this machine.
        at_once: trials; None takes what the spec allows and this machine has.
    """
    on_gpus = spec.resources.gpus > 0
    have = (machine.gpu_memory() if on_gpus else machine.memory()) if local else None
    if have is None:
        return _OPTIONS[-1] if on_gpus else 0
    together = at_one_place(spec, at_once or slots(spec, [this_machine()]))
    return least(spec, base, have / together / (MARGIN if on_gpus else 1))


def least(spec: Spec, base: Base, room: float) -> int:
    """The choice with which one process of every trial has so many bytes; that of the most memory where none
    fits.
    """
    fitting = (each for each in _OPTIONS if largest_trial(chosen(spec, each), base).whole <= room)
    return next(fitting, _OPTIONS[-1])


def chosen(spec: Spec, every: int) -> Spec:
    """The spec with a choice in place of what it has."""
    return with_settings(spec, {PATH: every})


def settled(spec: Spec, every: int | None) -> Spec:
    """The spec with the choice in place of `auto`; as it is where there is none."""
    return chosen(spec, every) if is_auto(spec) and every is not None else spec


def choice_note(spec: Spec, every: int) -> str:
    """What was chosen, in words."""
    times = {0: "no layer", 1: "every layer", 2: "every second layer", 3: "every third layer"}
    what = times.get(every, f"one layer in {every}")
    return f"{spec.where(PATH)} is auto: {every}, {what} is calculated again in all trials"
