"""What a sweep would cost, before anything runs: sizes, arithmetic, memory and, once measured, hours."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, TypeVar

from sweeps import machine
from sweeps.spec import Range, Spec
from tli.base import Base
from tli.cost import Cost, cost
from tli.injection import METHODS, Injection, injection_problems
from tli.plan import Plan, plan_for

T = TypeVar("T")
_MOST_ROWS = 16  # of an integer range; of a wider one both ends and what lies evenly between are shown


@dataclass(frozen=True)
class Shape:
    """One size that trials may have. `injection` is None for the control; `note` says what is unusual."""

    injection: Injection | None
    baseline: bool
    cost: Cost
    sets: tuple[int, ...]
    note: str = ""

    @property
    def label(self) -> str:
        """As the first column of a table has it."""
        return "control" if self.injection is None else self.injection.label


@dataclass(frozen=True)
class Total:
    """Training tokens, FLOPs (of training and of measuring) and, if the speed is known, hours."""

    tokens: int
    flops: float
    hours: float | None = None


@dataclass(frozen=True)
class Estimate:
    """What a sweep would cost.

    Attributes:
        name: of the sweep.
        base: the base model as the user wrote it.
        shapes: every depth in play, the control first.
        trials: of the budget, the control and the baseline included.
        replicates: most runs that come on top.
        steps: optimizer steps of one whole trial.
        trial_tokens: training tokens of one whole trial.
        eval_tokens: held-out tokens that one whole trial is measured on, over all its measurements.
        rule: the stopping rule.
        at_most: were no trial stopped, and all as deep as the deepest.
        expected: if the stopping rule keeps its share at every rung, and all depths are tried alike.
        parallel: trials at once.
        flops_per_second: of one trial, as measured; None when it was not.
    """

    name: str
    base: str
    shapes: tuple[Shape, ...]
    trials: int
    replicates: int
    steps: int
    trial_tokens: int
    eval_tokens: int
    rule: str
    at_most: Total
    expected: Total
    parallel: int
    flops_per_second: float | None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        labels = [shape.label for shape in self.shapes]
        plain = asdict(self)
        shapes = [{"label": label, **shape} for label, shape in zip(labels, plain["shapes"], strict=True)]
        return {**plain, "shapes": shapes}

    def text(self) -> str:
        """As lines for a terminal."""
        return "\n".join(_lines(self))


def estimate(
    spec: Spec, base: Base, *, flops_per_second: float | None = None, parallel: int | None = None
) -> Estimate:
    """The cost of a sweep on a base that was found and fits the spec.

    Args:
        spec: a checked spec.
        base: its base model; only headers and configuration are read.
        flops_per_second: speed of one trial on its cpus and gpus, as measured in a few steps.
        parallel: trials at once; None takes what the spec allows and this machine has.
    """
    shapes = tuple(_shape(spec, base, injection) for injection in (None, *searched_shapes(spec)))
    at_once = parallel or slots(spec)
    recipe, data = spec.trial.recipe, spec.data
    windows = data.eval_tokens // data.sequence_length
    measured = len(spec.report_steps()) * windows * data.sequence_length
    trial_tokens = spec.steps * recipe.batch_tokens
    work = {shape.injection: _work(spec, base, shape, trial_tokens, measured) for shape in shapes}
    deepened = [flops for injection, flops in work.items() if injection is not None] or [work[None]]
    baseline = next((work[shape.injection] for shape in shapes if shape.baseline), work[None])
    seeds = spec.finalists.seeds
    searched, share = spec.budget.trials - 2, expected_share(spec)

    def total(one: float, part: float) -> Total:
        whole = 2 + spec.replicates + searched * part  # in whole trials
        flops = (work[None] + baseline) * seeds + one * (spec.most_finalists * (seeds - 1) + searched * part)
        hours = flops / flops_per_second / at_once / 3600 if flops_per_second else None
        return Total(round(whole * trial_tokens), flops, hours)

    return Estimate(
        name=spec.name,
        base=base.name,
        shapes=shapes,
        trials=spec.budget.trials,
        replicates=spec.replicates,
        steps=spec.steps,
        trial_tokens=trial_tokens,
        eval_tokens=measured,
        rule=spec.stopping.rule,
        at_most=total(max(deepened), 1.0),
        expected=total(fmean(deepened), share),
        parallel=at_once,
        flops_per_second=flops_per_second,
    )


def expected_share(spec: Spec) -> float:
    """Share of its budget that a searched trial gets on average, if each rung passes what it should.

    The rungs are those of `sweeps.ledger.stopping`: successive halving from the grace on, the median rule at
    the grace. A rule that decides on few trials keeps more at first, so the real share is a little larger.
    """
    grace = spec.grace_step / spec.steps
    if spec.stopping.rule == "none" or grace >= 1:
        return 1.0
    if spec.stopping.rule == "median":
        return grace + 0.5 * (1 - grace)
    factor = max(2, round(1 / spec.stopping.keep))
    share, alive, reached, rung = 0.0, 1.0, 0.0, grace
    while rung < 1:
        share += alive * (rung - reached)
        alive, reached, rung = alive / factor, rung, rung * factor
    return share + alive * (1 - reached)


def slots(spec: Spec) -> int:
    """How many trials this machine runs at once, within what the spec allows; at least 1."""
    wanted = spec.resources
    fitting = machine.cores() // wanted.cpus
    if wanted.gpus:
        fitting = min(fitting, int(machine.gpus() / wanted.gpus))
    return max(1, min(fitting, wanted.parallel or fitting))


def searched_shapes(spec: Spec) -> list[Injection]:
    """Every injection in play that gives another size, the baseline's and the searched ones; some of them for
    wide ranges. What does not change a size is as in the baseline.
    """
    own = spec.trial.to_injection()
    searched = {path: wanted for path, wanted in spec.search.items() if path in _SHAPING}
    options = [[(path, value) for value in _values(wanted)] for path, wanted in searched.items()]
    combined = itertools.islice(itertools.product(*options), _MOST_ROWS**2)
    found = [own, *(spec.settings_for(dict(chosen)).to_injection() for chosen in combined)]
    # By what they are called: two of one size need no two rows.
    usable = {each.label: each for each in map(_resolved, found) if each is not None}
    usable.pop("none", None)
    return _spread(sorted(usable.values(), key=_order), _MOST_ROWS + 1)


_SHAPING = tuple(
    f"injection.{name}"
    for name in ("method", "k", "layers", "after", "sets", "block", "m", "g", "experts.count")
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


def _shape(spec: Spec, base: Base, injection: Injection | None) -> Shape:
    plan = plan_of(injection, base.facts.depth)
    recipe = spec.trial.recipe
    passes = recipe.micro_batch_tokens or recipe.batch_tokens
    # The control has no injected layers that it could train alone.
    train = "all" if injection is None else _train(spec)
    found = cost(base, plan, sequence_length=spec.data.sequence_length, batch_tokens=passes, train=train)
    short = injection is not None and plan.sets and plan.sets[-1] != injection.k
    note = f"the last set is shorter ({plan.sets[-1]} of {injection.k})" if injection and short else ""
    own = _resolved(spec.trial.to_injection())
    baseline = injection is not None and own is not None and own.label == injection.label
    return Shape(injection, baseline, found, plan.sets, note)


def plan_of(injection: Injection | None, depth: int) -> Plan:
    """The plan of an injection, None being the control. Where text decides which sets get a layer, any do:
    the size is the same.
    """
    wanted = injection or Injection("none")
    return plan_for(wanted, depth, change=[0.0] * depth if wanted.sets is not None else None)


def _train(spec: Spec) -> str:
    return "all" if "recipe.train" in spec.search else spec.trial.recipe.train


def _work(spec: Spec, base: Base, shape: Shape, trained: int, measured: int) -> float:
    """FLOPs of one whole trial. Measuring goes forward only: a third of training everything."""
    plan, sequence = plan_of(shape.injection, base.facts.depth), spec.data.sequence_length
    whole = cost(base, plan, sequence_length=sequence, batch_tokens=sequence)
    return shape.cost.flops_per_token * trained + whole.flops_per_token / 3 * measured


def _lines(it: Estimate) -> Iterator[str]:
    batch = it.trial_tokens // it.steps
    yield (
        f"{it.name}: {it.trials} trials of {it.trial_tokens:,} tokens ({it.steps:,} steps of {batch:,}), "
        f"and at most {it.replicates} runs under further seeds"
    )
    own = it.shapes[0].cost
    yield f"base: {it.base}, {own.depth} layers, {short(own.parameters)} parameters"
    yield ""
    head = ("", "layers", "parameters", "injected", "FLOPs/token", "memory/trial", "")
    yield from _table([head, *(_row(shape) for shape in it.shapes)])
    yield ""
    kept = "expected" if it.rule == "none" else f"expected with {it.rule}"
    hours = ("hours here",) if it.at_most.hours is not None else ()
    rows = [("", "tokens", "FLOPs", *hours)]
    for name, total in (("at most", it.at_most), (kept, it.expected)):
        time = (f"{total.hours:.2f}",) if total.hours is not None else ()
        rows.append((name, f"{total.tokens:,}", f"{total.flops:.2e}", *time))
    yield from _table(rows)
    yield ""
    if it.flops_per_second is None:
        yield f"{it.parallel} at once on this machine; hours are not known: sweeps plan --calibrate measures"
    else:
        speed = f"{it.flops_per_second / 1e9:.3g} GFLOP/s"
        yield f"{it.parallel} at once on this machine, {speed} each, as measured"


def _row(shape: Shape) -> tuple[str, ...]:
    found = shape.cost
    notes = [*(["the baseline"] if shape.baseline else []), *([shape.note] if shape.note else [])]
    return (
        shape.label,
        str(found.depth),
        short(found.parameters),
        short(found.injected_parameters) if shape.injection is not None else "-",
        short(found.flops_per_token),
        _bytes(found.memory_bytes),
        "; ".join(notes),
    )


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns aligned: texts at both ends of a row to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.ljust(width) if column in {0, 6} else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def short(number: float) -> str:
    """Three digits and a unit: `1.84M`."""
    for size, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}" if number / size < 999.5 else f"{number / size:.0f}{unit}"
    return f"{number:.3g}"


def _bytes(number: int) -> str:
    for size, unit in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB")):
        if number >= size:
            return f"{number / size:.1f} {unit}" if number / size < 10 else f"{number / size:.0f} {unit}"
    return f"{number / 1024:.0f} KiB"
