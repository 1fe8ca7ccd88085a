"""The model sizes in a search: every depth that its trials may have, by integer arithmetic."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sweeps.spec import Range, Spec
from sweeps.text import counted, in_bytes, short
from tli.architectures.lookup import family_of
from tli.growth.activations import BF16, FP32, Setting
from tli.growth.cost import Cost, cost
from tli.growth.memory import PIECES, Memory, kept_base, memory
from tli.models.base import Base
from tli.planning.checks import injection_problems
from tli.planning.injection import METHODS, Injection
from tli.planning.plan import Plan, plan_for
from tli.training.eight_bits import moment_bytes
from tli.training.recipe import AUTO, Trained

T = TypeVar("T")
_MOST_ROWS = 16  # of an integer range; of a wider one both ends and what lies evenly between are shown


@dataclass(frozen=True)
class Shape:
    """One size that trials may have. `injection` is None for the control; `memory` is of one process of a
    trial, `base_bytes` of what it keeps of the base beside; `note` says what is unusual.
    """

    injection: Injection | None
    baseline: bool
    cost: Cost
    memory: Memory
    base_bytes: int
    sets: tuple[int, ...]
    note: str = ""

    @property
    def label(self) -> str:
        """As the first column of a table has it."""
        return "control" if self.injection is None else self.injection.label


def searched_shapes(spec: Spec) -> list[Injection]:
    """Every injection in play that gives another size, the baseline's and the searched ones; some of them for
    wide ranges. What does not change a size is as in the baseline.
    """
    own = spec.trial.to_injection()
    searched = {path: wanted for path, wanted in spec.search.items() if path in SHAPING}
    options = [[(path, value) for value in _values(wanted)] for path, wanted in searched.items()]
    combined = itertools.islice(itertools.product(*options), _MOST_ROWS**2)
    found = [own, *(spec.settings_for(dict(chosen)).to_injection() for chosen in combined)]
    # By what they are called: two of one size need no two rows.
    usable = {each.label: each for each in map(_resolved, found) if each is not None}
    usable.pop("none", None)
    return _spread(sorted(usable.values(), key=_order), _MOST_ROWS + 1)


# Settings that change a size.
SHAPING = tuple(
    f"injection.{name}"
    for name in ("method", "k", "layers", "after", "least_important_sets", "block", "m", "g", "experts.count")
)


def _resolved(injection: Injection) -> Injection | None:
    """What the settings mean; None for a combination that no trial can run with."""
    return None if injection_problems(injection, None) else injection.resolved()


def _order(injection: Injection) -> tuple[int, int, str]:
    return METHODS.index(injection.method), injection.k or 0, injection.label


def _values(wanted: Range) -> Sequence[Any]:
    if wanted.choice is not None:
        return wanted.choice
    low, high = wanted.ends
    return _spread(range(low, high + 1, int(wanted.step or 1)), _MOST_ROWS)


def _spread(every: Sequence[T], most: int) -> list[T]:
    """All of them, or both ends and what lies evenly between."""
    if len(every) <= most:
        return list(every)
    return [every[round(i * (len(every) - 1) / (most - 1))] for i in range(most)]


def shape_of(spec: Spec, base: Base, injection: Injection | None) -> Shape:
    """The size of an injection's trials on a base; None is the control."""
    plan = plan_of(injection, base.facts.depth)
    setting = setting_of(spec, base, injection)
    length = spec.data.sequence_length
    found = cost(base, plan, sequence_length=length, train=setting.train, also=setting.also)
    short = injection is not None and plan.sets and plan.sets[-1] != injection.k
    note = f"the last set is shorter ({plan.sets[-1]} of {injection.k})" if injection and short else ""
    own = _resolved(spec.trial.to_injection())
    baseline = injection is not None and own is not None and own.label == injection.label
    needed, beside = shape_memory(spec, base, injection)
    return Shape(injection, baseline, found, needed, beside, plan.sets, note)


def shape_memory(spec: Spec, base: Base, injection: Injection | None) -> tuple[Memory, int]:
    """What one process of an injection's trials needs, None being the control, and bytes of the base that it
    keeps beside.
    """
    plan, setting = plan_of(injection, base.facts.depth), setting_of(spec, base, injection)
    return memory(base, plan, setting), kept_base(base, plan, setting)


def setting_of(spec: Spec, base: Base, injection: Injection | None) -> Setting:
    """How trials of an injection are trained, as far as memory goes; of None, the control's."""
    recipe, resources = spec.trial.recipe, spec.resources
    ranks = resources.workers
    whole = recipe.batch_tokens // ranks
    train = _train(spec)
    also: tuple[int, ...] = ()
    if injection is None:  # no injected layers that it could train alone
        also = control_layers(spec, base)
        train = train if also else "all"
    halved = spec.in_bf16 and base.facts.dtype == "BF16"
    return Setting(
        tokens=min(recipe.micro_batch_tokens or whole, whole),
        precision=recipe.precision,
        train=train,
        ranks=ranks,
        checkpointing=0 if recipe.activation_checkpointing == AUTO else recipe.activation_checkpointing,
        pieces=PIECES["cuda" if resources.gpus else "cpu"] if _head_apart(base) else 0,
        fused=bool(resources.gpus),
        moments=_in_8_bits(base) if recipe.optimizer == "adamw8bit" else 2 * FP32,
        frozen=BF16 if halved and train != "all" else FP32,
        kept=BF16 if halved else FP32,
        also=also,
    )


def _in_8_bits(base: Base) -> float:
    """Bytes that both moments of a parameter take in 8 bits a value, with scales: the mean of a base."""
    shapes = [each.shape for each in base.checkpoint.tensors.values()]
    sizes = [math.prod(shape) for shape in shapes]
    return 2 * sum(size * moment_bytes(shape) for size, shape in zip(sizes, shapes, strict=True)) / sum(sizes)


def control_layers(spec: Spec, base: Base) -> tuple[int, ...]:
    """Layers of the base that the control trains, where that is not all of it: those that the baseline's new
    ones are made of.
    """
    if spec.control.train == "all":
        return ()
    plan = plan_of(spec.trial.to_injection(), base.facts.depth)
    return tuple(sorted({plan.sources[position] for position in plan.injected}))


def _head_apart(base: Base) -> bool:
    """Whether the head can go over a pass in pieces."""
    return family_of(base.facts.model_type).head_apart


def plan_of(injection: Injection | None, depth: int) -> Plan:
    """The plan of an injection, None being the control. Where text decides which sets get a layer, any do:
    the size is the same.
    """
    wanted = injection or Injection("none")
    return plan_for(
        wanted, depth, block_influence=[0.0] * depth if wanted.least_important_sets is not None else None
    )


def _train(spec: Spec) -> Trained:
    searched = any(path == "recipe.train" or path.startswith("recipe.rates.") for path in spec.search)
    return "all" if searched else spec.trial.to_recipe().moves


def memory_lines(shapes: Sequence[Shape], ranks: int, layers: Sequence[int]) -> Iterator[str]:
    """What the largest trial needs, for a terminal, and which layers the control trains, if not all."""
    largest = max(shapes, key=lambda shape: shape.memory.total)
    found, whose = largest.memory, f"each of the {ranks} ranks" if ranks > 1 else "the process"
    yield f"memory of {whose} of a trial, most for {largest.label}: {in_bytes(found.total)} at {found.at}"
    yield f"  {', '.join(f'{name} {in_bytes(size)}' for name, size in found.parts.items())}"
    if kept := largest.base_bytes:
        yield f"  beside it {in_bytes(kept)} of the base, which the process keeps"
    else:
        yield "  and no base beside it: what is frozen is the base's own"
    if layers:
        yield (
            f"the control trains {counted(len(layers), 'layer')} of the original "
            f"({', '.join(map(str, layers))}), not all of it: control.train is layers"
        )


def shape_row(shape: Shape) -> tuple[str, ...]:
    """A row of the table of sizes, for a terminal."""
    found = shape.cost
    notes = [*(["the baseline"] if shape.baseline else []), *([shape.note] if shape.note else [])]
    return (
        shape.label,
        str(found.depth),
        short(found.parameters),
        short(found.injected_parameters) if shape.injection is not None else "-",
        short(found.flops_per_token),
        in_bytes(shape.memory.total),
        "; ".join(notes),
    )
