"""Checks of room: models kept on the disk, and all trials that run at once in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sweeps.checks import machine
from sweeps.checks.estimate import estimate
from sweeps.checks.placement import on_one_gpu, slots, this_machine
from sweeps.checks.shapes import Shape, plan_of, searched_shapes, setting_of
from sweeps.errors import Problem
from sweeps.spec import Spec
from sweeps.text import in_bytes
from tli.growth.memory import memory
from tli.models.base import Base

_BYTES = 4  # of a weight: models are kept and trained in float32
_RANKS = (2, 4, 8, 16, 32, 64)
_STATES = 6  # models' worth on the disk while a trial runs: weights and both moments, old and new

_Change = tuple[dict[str, Any], str]  # of a `Setting`, and as a spec says it


@dataclass(frozen=True)
class _Trial:
    """Bytes that the process of one trial needs: for the trial, and for the base that it keeps beside."""

    own: int
    base: int

    @property
    def whole(self) -> int:
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
    shapes = estimate(spec, base, parallel=at_once).shapes
    yield from _on_the_disk(spec, shapes, at_once)
    if local:
        trial = _trial(spec, base, {})
        room = _on_a_gpu if spec.resources.gpus else _in_memory
        yield from room(spec, base, trial, at_once * spec.resources.workers)


def _trial(spec: Spec, base: Base, other: Mapping[str, Any]) -> _Trial:
    """What one process of the largest trial needs, with other settings in place of the spec's. The control
    trains all of its layers, whatever the others do.
    """
    most, ranks = 0, 1
    for injection in (None, *searched_shapes(spec)):
        own = setting_of(spec, base, injection)
        setting = replace(
            own, **{**other, "train": other.get("train", own.train) if injection else own.train}
        )
        most = max(most, memory(base, plan_of(injection, base.facts.depth), setting).total)
        ranks = setting.ranks
    return _Trial(most, _BYTES * base.facts.parameters // ranks)


def _on_the_disk(spec: Spec, shapes: Sequence[Shape], at_once: int) -> Iterator[Problem]:
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


def _in_memory(spec: Spec, base: Base, trial: _Trial, at_once: int) -> Iterator[Problem]:
    have = machine.memory()
    if have is None or at_once * trial.whole <= have:
        return
    expected = f"at most {in_bytes(have)}, the memory of this machine"
    if fits := have // trial.whole // spec.resources.workers:
        yield Problem(spec.where("resources.parallel"), _said(trial, at_once), expected, str(fits))
    else:
        yield _smaller(spec, base, trial, have, expected)


def _on_a_gpu(spec: Spec, base: Base, trial: _Trial, at_once: int) -> Iterator[Problem]:
    have, together = machine.gpu_memory(), min(at_once, on_one_gpu(spec.resources.gpus))
    if have is None or together * trial.whole <= have:
        return
    expected = f"at most {in_bytes(have)}, the memory of a GPU of this machine"
    if fits := have // trial.whole:
        share = math.ceil(100 / fits) / 100
        remedy = f"{share:g}, or resources.parallel: {fits}"
        yield Problem(spec.where("resources.gpus"), _said(trial, together), expected, remedy)
    else:
        yield _smaller(spec, base, trial, have, expected)


def _smaller(spec: Spec, base: Base, trial: _Trial, have: int, expected: str) -> Problem:
    where = spec.where("trial.recipe.micro_batch_tokens")
    remedy = next(fitting_settings(spec, base, have), "a smaller base")
    return Problem(where, _said(trial, 1), expected, remedy)


def fitting_settings(spec: Spec, base: Base, have: int) -> Iterator[str]:
    """Settings with which one process of every trial fits in so many bytes, the least change first.

    Args:
        spec: whose trials do not fit.
        base: its base.
        have: bytes that there are for one process.
    """
    shortest, own = spec.data.sequence_length, setting_of(spec, base, None)
    small: _Change = ({"tokens": shortest}, f"micro_batch_tokens: {shortest}")
    again: _Change = ({"checkpointing": 1}, "activation_checkpointing: 1")
    rest = [*([small] if own.tokens > shortest else []), *([again] if own.checkpointing != 1 else [])]
    options = [[change] for change in rest] + [rest]
    options += [[*rest, ({"ranks": n}, f"resources.workers: {n}")] for n in _RANKS if n > own.ranks]
    options.append([*rest, ({"train": "injected"}, "train: injected")])
    for option in options:
        other = {key: value for given, _ in option for key, value in given.items()}
        if _trial(spec, base, other).whole <= have:
            yield ", ".join(name for _, name in option)


def _said(trial: _Trial, at_once: int) -> str:
    each = f"about {in_bytes(trial.whole)}, {in_bytes(trial.base)} of it the base that its process keeps"
    return f"one trial of {each}" if at_once == 1 else f"{at_once} trials at once of {each}"
