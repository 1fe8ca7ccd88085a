"""What a sweep would cost, as `sweeps plan` prints it and answers programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from sweeps.checks.budget import Reach, preview, used_up_first
from sweeps.checks.runs import Runs
from sweeps.checks.scoring import Scoring
from sweeps.checks.shapes import Shape, memory_lines, shape_row
from sweeps.checks.speeds import Traffic, traffic_lines
from sweeps.checks.totals import Climb, Total
from sweeps.text import counted, short, table


@dataclass(frozen=True)
class Estimate:
    """What a sweep would cost.

    Attributes:
        name: of the sweep.
        base: the base model as the user wrote it.
        shapes: every depth in play, the control first.
        trials: of the budget, the controls and the baseline included.
        controls: of these, the original trained on, each at a learning rate of its own.
        reaches: how far each setting of the budget takes the search.
        replicates: most runs that come on top, under fresh seeds.
        steps: optimizer steps of one whole trial.
        trial_tokens: training tokens of one whole trial.
        eval_tokens: held-out tokens that one whole trial is measured on, over all its measurements.
        rule: the stopping rule.
        at_most: were no trial stopped, and all as deep as the deepest; up to what the budget allows.
        expected: if the stopping rule keeps its share at every rung, and all depths are tried alike.
        parallel: trials at once.
        ranks: processes that train one trial together.
        checkpointing: every how many layers one is calculated again; 0: none.
        control_layers: of the original that the control trains; empty where it trains all.
        traffic: what the largest trial sends, stores and reaches.
        compiled: whether layers are.
        flops_per_second: of one trial, as measured; None when it was not.
        ladder: the rungs, were all finalists as deep as the deepest; part of `at_most` and `expected`.
        runs: how many there are of each kind at most, in the order in which they begin.
        scoring: on downstream tasks, likewise, its FLOPs and hours a part of the totals; None without tasks.
    """

    name: str
    base: str
    shapes: tuple[Shape, ...]
    trials: int
    controls: int
    reaches: tuple[Reach, ...]
    replicates: int
    steps: int
    trial_tokens: int
    eval_tokens: int
    rule: str
    at_most: Total
    expected: Total
    parallel: int
    ranks: int
    checkpointing: int
    control_layers: tuple[int, ...]
    traffic: Traffic
    compiled: bool
    flops_per_second: float | None
    ladder: tuple[Climb, ...] = ()
    runs: tuple[Runs, ...] = ()
    scoring: Scoring | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        labels = [shape.label for shape in self.shapes]
        plain = asdict(self)
        shapes = [{"label": label, **shape} for label, shape in zip(labels, plain["shapes"], strict=True)]
        return {**plain, "shapes": shapes}

    def text(self) -> str:
        """As lines for a terminal."""
        return "\n".join(_lines(self))


# -- inside ----------------------------------------------------------------------------------------


def _lines(it: Estimate) -> Iterator[str]:
    steps = f"{counted(it.steps, 'step')} of {it.trial_tokens // it.steps:,}"
    yield (
        f"{it.name}: {it.trials} trials of {it.trial_tokens:,} tokens ({steps}), "
        f"and at most {it.replicates} runs under fresh seeds"
    )
    if it.controls > 1:
        yield (
            f"{it.controls} of the trials, a quarter at most, are the original trained on, each at another "
            "learning rate"
        )
    own = it.shapes[0].cost
    yield f"base: {it.base}, {counted(own.depth, 'layer')}, {short(own.parameters)} parameters"
    yield ""
    head = ("", "layers", "parameters", "injected", "FLOPs/token", "memory", "")
    yield from table(head, [shape_row(shape) for shape in it.shapes], left={0, 6})
    yield from ("", *memory_lines(it.shapes, it.ranks, it.control_layers))
    if it.ranks > 1 or it.traffic.speeds:
        yield from traffic_lines(it.traffic, ranks=it.ranks, compiled=it.compiled)
    yield ""
    rows = [(each.what, f"{each.count:,}", f"{each.tokens:,}" if each.tokens else "-") for each in it.runs]
    yield from table(("runs", "at most", "tokens each"), rows, left={0})
    yield ""
    if it.scoring is not None:
        yield from _scoring_lines(it.scoring)
        yield ""
    kept = "expected" if it.rule == "none" else f"expected with {it.rule}"
    hours = ("hours here",) if it.at_most.hours is not None else ()
    rows = []
    for name, total in (("at most", it.at_most), (kept, it.expected)):
        time = (f"{total.hours:.2f}",) if total.hours is not None else ()
        rows.append((name, f"{total.tokens:,}", f"{total.flops:.2e}", *time))
    for rung in it.ladder:
        name, time = f"  of that {rung.runs} runs of {short(rung.tokens)} tokens", ()
        if rung.total.hours is not None:
            time = (f"{rung.total.hours:.2f}",)
        rows.insert(
            1 + it.ladder.index(rung), (name, f"{rung.total.tokens:,}", f"{rung.total.flops:.2e}", *time)
        )
    if it.scoring is not None and (scored := it.scoring.total) is not None:
        time = (f"{scored.hours:.2f}",) if scored.hours is not None else ()
        rows.insert(1 + len(it.ladder), ("  of that scoring on tasks", "-", f"{scored.flops:.2e}", *time))
    yield from table(("", "tokens", "FLOPs", *hours), rows, left={0})
    yield ""
    if len(it.reaches) > 1:
        settings, *reached = preview(it.reaches)
        yield from table(settings, reached, left={0})
        yield used_up_first(it.reaches)
        yield ""
    if it.flops_per_second is None:
        yield f"{it.parallel} at once on this machine; hours are not known: sweeps plan --calibrate measures"
    else:
        speed = f"{it.flops_per_second / 1e9:.3g} GFLOP/s"
        yield f"{it.parallel} at once on this machine, {speed} each, as measured"


def _scoring_lines(it: Scoring) -> Iterator[str]:
    """Which models are scored, on what, and what goes through each."""
    words = {
        "finalists": "of finalists and the baseline",
        "control": "of the original, trained on",
        "base": "of the base as it is",
        "search": "of the search, on the task that it goes by",
    }
    parts = (f"{number} {words[name]}" for name, number in it.models.items())
    yield f"scored on tasks after training, at most {counted(it.count, 'model')}: {', '.join(parts)}"
    if it.total is None or it.sequences is None:
        yield "  what a model reads for that is not known here: the base's tokenizer is not on this machine"
        return
    rows = [
        (f"  {each.task}", f"{each.documents:,}", f"{each.sequences:,}", f"{each.tokens:,}")
        for each in it.tasks
    ]
    yield from table(("  task", "documents", "sequences", "tokens of one model"), rows, left={0})
    yield (
        f"  {it.sequences:,} sequences, {it.total.tokens:,} tokens go forward through all of them, "
        "padding aside"
    )
