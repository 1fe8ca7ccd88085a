"""Checks of room: models kept on the disk, and all trials that run at once in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sweeps.checks import machine
from sweeps.checks.placement import on_one_gpu, slots, this_machine
from sweeps.checks.shapes import searched_shapes, setting_of, shape_memory, shape_of
from sweeps.errors import Problem
from sweeps.spec import Spec, with_settings
from sweeps.text import in_bytes
from tli.growth.activations import Setting
from tli.models.base import Base

_BYTES = 4  # of a weight: models are kept and trained in float32
_RANKS = (2, 4, 8, 16, 32, 64)
_STATES = 6  # models' worth on the disk while a trial runs: weights and both moments, old and new

_Change = tuple[str, Any]  # a setting's dotted path, and its value


@dataclass(frozen=True)
class Trial:
    """Bytes that one process of a trial needs: for the trial, and for the base that it keeps beside."""

    own: int
    base: int

    @property
    def whole(self) -> int:
        """All together."""
        return self.own + self.base


def room_problems(spec: Spec, base: Base, *, local: bool, at_once: int | None = None) -> Iterator[Problem]:
    """What does not fit.

    Memory is what the estimate says, without the libraries: what is refused does not fit, and what just fits
    may still be too much. That of a cluster's nodes, and of GPUs that do not say, is not known, not judged.

    Args:
        spec: a spec that fits its base.
        base: its base; only headers and configuration are read.
        local: whether the trials run on this machine.
        at_once: trials; None takes what the spec allows and this machine has.
    """
    at_once = at_once or slots(spec, [this_machine()])
    yield from _on_the_disk(spec, base, at_once)
    if local:
        trial = largest_trial(spec, base)
        room = _on_a_gpu if spec.resources.gpus else _in_memory
        yield from room(spec, base, trial, at_one_place(spec, at_once))


def at_one_place(spec: Spec, at_once: int) -> int:
    """Processes of so many trials at once that share the memory of a GPU, or of this machine."""
    processes = at_once * spec.resources.workers
    return min(processes, on_one_gpu(spec.resources.gpus)) if spec.resources.gpus else processes


def largest_trial(spec: Spec, base: Base) -> Trial:
    """What one process of the largest trial needs, the control's among them."""
    sizes = [shape_memory(spec, base, injection) for injection in (None, *searched_shapes(spec))]
    return max((Trial(needed.total, kept) for needed, kept in sizes), key=lambda trial: trial.whole)


def _on_the_disk(spec: Spec, base: Base, at_once: int) -> Iterator[Problem]:
    shapes = [shape_of(spec, base, injection) for injection in (None, *searched_shapes(spec))]
    weights = _BYTES * max(shape.cost.parameters for shape in shapes)
    # Kept: a model of each finalist, the control and the baseline.
    kept = spec.most_finalists + 2
    needed = weights * (kept + at_once * _STATES + (kept + at_once) * branch_models(spec))
    free = machine.free_space(spec.root)
    if needed > free:
        got = f"{in_bytes(free)} free at {str(machine.existing(spec.root))!r}"
        expected = f"about {in_bytes(needed)}"
        yield Problem(spec.where("storage.artifacts"), got, expected, "another folder")


def branch_models(spec: Spec) -> int:
    """How many models' worth the state takes from which a longer run goes on; 0 where no schedule has one."""
    searched = spec.search.get("recipe.schedule")
    schedules = {spec.trial.recipe.schedule, *(searched.ends if searched is not None else ())}
    return _STATES // 2 if schedules & {"constant", "wsd"} else 0


def _in_memory(spec: Spec, base: Base, trial: Trial, at_once: int) -> Iterator[Problem]:
    have = machine.memory()
    if have is None or at_once * trial.whole <= have:
        return
    expected = f"at most {in_bytes(have)}, the memory of this machine"
    if fits := have // trial.whole // spec.resources.workers:
        yield Problem(spec.where("resources.parallel"), _said(trial, at_once), expected, str(fits))
    else:
        yield _smaller(spec, base, trial, have, expected)


def _on_a_gpu(spec: Spec, base: Base, trial: Trial, at_once: int) -> Iterator[Problem]:
    have, together = machine.gpu_memory(), at_once
    if have is None or together * trial.whole <= have:
        return
    expected = f"at most {in_bytes(have)}, the memory of a GPU of this machine"
    if fits := have // trial.whole:
        share = math.ceil(100 / fits) / 100
        remedy = f"{share:g}, or resources.parallel: {fits}"
        yield Problem(spec.where("resources.gpus"), _said(trial, together), expected, remedy)
    else:
        yield _smaller(spec, base, trial, have, expected)


def _smaller(spec: Spec, base: Base, trial: Trial, have: int, expected: str) -> Problem:
    where = spec.where("trial.recipe.micro_batch_tokens")
    remedy = next(fitting_settings(spec, base, have), "a smaller base")
    return Problem(where, _said(trial, 1), expected, remedy)


def fitting_settings(spec: Spec, base: Base, have: int) -> Iterator[str]:
    """As `fitting_changes`, in words: `micro_batch_tokens: 128, resources.workers: 2`."""
    for change in fitting_changes(spec, base, have):
        yield ", ".join(f"{path.removeprefix('trial.recipe.')}: {value}" for path, value in change.items())


def fits(spec: Spec, base: Base, have: int) -> bool:
    """Whether one process of every trial fits in so many bytes as the spec is."""
    return largest_trial(spec, base).whole <= have


def fitting_changes(spec: Spec, base: Base, have: int) -> Iterator[dict[str, Any]]:
    """Settings with which one process of every trial fits in so many bytes, the least change first.

    Values by their dotted paths in the spec.

    Args:
        spec: whose trials do not fit.
        base: its base.
        have: bytes that there are for one process.
    """
    for option in _options(spec, setting_of(spec, base, None)):
        if largest_trial(with_settings(spec, dict(option)), base).whole <= have:
            yield dict(option)


def _options(spec: Spec, own: Setting) -> Iterator[list[_Change]]:
    shortest, recipe = spec.data.sequence_length, "trial.recipe"
    small: _Change = (f"{recipe}.micro_batch_tokens", shortest)
    again: _Change = (f"{recipe}.activation_checkpointing", 1)
    alone: _Change = (f"{recipe}.train", "injected")
    layers: _Change = ("control.train", "layers")
    rest = [*([small] if own.tokens > shortest else []), *([again] if own.checkpointing != 1 else [])]
    yield from ([change] for change in rest)
    yield rest
    parts, searched = spec.trial.to_recipe().moves != "all", "recipe.train" in spec.search
    if parts and not searched and spec.control.train == "all":
        yield from ([layers], *([change, layers] for change in rest), [*rest, layers])
    yield from ([*rest, ("resources.workers", n)] for n in _RANKS if n > own.ranks)
    if not (parts or searched) and own.ranks == 1:
        yield [*rest, alone, layers]


def _said(trial: Trial, at_once: int) -> str:
    kept = f", {in_bytes(trial.base)} of it the base that its process keeps" if trial.base else ""
    each = f"about {in_bytes(trial.whole)}{kept}"
    return f"one trial of {each}" if at_once == 1 else f"{at_once} trials at once of {each}"
