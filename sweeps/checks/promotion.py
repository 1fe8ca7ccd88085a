"""What a promotion would cost: FLOPs, memory, disk, time; and its spec, checked as any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweeps.checks.data import Text
from sweeps.checks.memory import branch_models
from sweeps.checks.scoring import forward_flops
from sweeps.checks.shapes import shape_of
from sweeps.records import Role
from sweeps.spec import Spec
from sweeps.spec.equivalence import replaced
from tli.models.base import Base
from tli.planning.injection import Injection

if TYPE_CHECKING:
    from tli.tasks.sizes import TaskSize

_OF_ONE_TRIAL = ("name", "base", "data", "resources", "retries")  # sections; the others are of a search
_NO_SEARCH = {"budget": {"trials": 2}, "control": {"rates": 1}, "finalists": {"top": 1, "seeds": 1}}
_BYTES, _MODELS = 4, 8  # of a weight; its model, a copy, and the states while it runs, in models' worth


@dataclass(frozen=True)
class Expected:
    """Of one long run. `memory` is that of one process, `disk` of model and states, both in bytes.

    `tokens` are those still to be trained on, `flops` theirs; `seconds` at the trial's speed, and `passes`
    over the training text of the whole run, are None where they are not known.
    """

    tokens: int
    flops: float
    parameters: int
    memory: int
    disk: int
    seconds: float | None
    passes: float | None


def promoted_spec(spec: Spec, settings: Mapping[str, Any], ranks: int) -> Spec:
    """The spec of a sweep whose one trial is the long run.

    Args:
        spec: of the sweep.
        settings: of the long run, the whole `trial:` section.
        ranks: that train it together.

    Raises:
        SpecError: the batch cannot be shared by so many ranks, or another check of the spec fails.
    """
    whole = spec.to_json()
    changed = {"trial": settings, "resources.workers": ranks, "resources.parallel": None}
    own = {name: whole[name] for name in _OF_ONE_TRIAL}
    plain = replaced({**own, **_NO_SEARCH}, changed)
    made = Spec.from_json(plain, name="the long run:")
    # Stores as they are known here: the JSON has no passwords. No finalists: two models are kept, its own
    # and a copy that is handed over.
    alone = made.finalists.model_copy(update={"top": 0, "per": None})
    stores = {"storage": spec.storage, "tracking": spec.tracking}
    return made.model_copy(update={**stores, "search": {}, "finalists": alone})


@dataclass(frozen=True)
class ExpectedScoring:
    """Of one long run's model on the sweep's downstream tasks, after its last step: documents, sequences and
    tokens that go through it, padding aside, and FLOPs.
    """

    tasks: tuple[str, ...]
    documents: int
    sequences: int
    tokens: int
    flops: float


def expected_scoring(
    spec: Spec, base: Base, role: Role, settings: Mapping[str, Any], tasks: Sequence[TaskSize]
) -> ExpectedScoring | None:
    """What scoring a long run's model takes.

    Args:
        spec: of the sweep.
        base: its base; only headers and configuration are read.
        role: of the long run.
        settings: of it, the whole `trial:` section.
        tasks: what goes through a model on each, as `task_sizes` gives it.

    Returns:
        None where it is not scored, or what goes through is not known.
    """
    original = settings["injection"]["method"] == "none"
    if not tasks or not spec.evaluation.applies_to(role.value, original=original):
        return None
    own = Injection.from_json(settings["injection"])
    shape = shape_of(spec, base, None if original else own)
    return ExpectedScoring(
        tuple(each.task for each in tasks),
        sum(each.documents for each in tasks),
        sum(each.sequences for each in tasks),
        sum(each.tokens for each in tasks),
        forward_flops(base, [shape], tasks)[0],
    )


def expected(spec: Spec, base: Base, *, done: int, tokens_per_second: float | None) -> Expected:
    """What a long run takes.

    Args:
        spec: as `promoted_spec` gives it.
        base: its base; only headers and configuration are read.
        done: steps of the state that it begins with.
        tokens_per_second: of the trial that it makes longer; None where that is not known.
    """
    own = spec.trial.to_injection()
    shape = shape_of(spec, base, None if own.method == "none" else own)
    batch = spec.trial.recipe.batch_tokens
    left = (spec.steps - done) * batch
    text = Text(spec).train(base)
    weights = _BYTES * shape.cost.parameters
    return Expected(
        tokens=left,
        flops=shape.cost.flops_per_token * left,
        parameters=shape.cost.parameters,
        memory=shape.memory.total,
        disk=weights * (_MODELS + branch_models(spec)),
        seconds=left / tokens_per_second if tokens_per_second else None,
        passes=spec.steps * batch / text if text else None,
    )
