"""What a sweep would cost, as `sweeps plan` prints it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sweeps.checks.budget import preview, used_up_first
from sweeps.checks.scoring import Scoring
from sweeps.checks.shapes import memory_lines, shape_row
from sweeps.checks.speeds import traffic_lines
from sweeps.text import counted, short, table

if TYPE_CHECKING:
    from sweeps.checks.estimate import Estimate


def estimate_lines(it: Estimate) -> Iterator[str]:
    """What a sweep would cost, line by line, for a terminal."""
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
        "base": "the base as it is",
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
