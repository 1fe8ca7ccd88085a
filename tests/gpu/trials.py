"""Trials one after another in a process: what is left of them, the time between two, and two at once."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import replace

import torch

from tests.gpu.apart import side_by_side
from tests.gpu.contenders import Ours, settle
from tests.gpu.memory import held, release
from tests.gpu.shapes import Shape, batches_of, heldout_of, model_of, recipe_of
from tests.gpu.table import Row, judged, measured, skipped
from tli.growth.in_memory import grow, injected_parameters
from tli.planning.plan import plan
from tli.training.loop import Training

_BOUND = 1.0  # seconds from one trial's end to the next one's first step
_ALIKE = 2**20  # bytes: what the allocator rounds to, and a library's workspace


def rows(shape: Shape, device: torch.device, *, count: int) -> Iterator[Row]:
    """So many trials of one step each, from a base whose weights stay on the device.

    Each grows the base anew, by another K and under another seed, trains it and is let go.
    """
    shape = replace(shape, passes=1)
    base = model_of(shape, device).eval()
    depth = shape.config["num_hidden_layers"]
    batches, heldout = batches_of(shape), heldout_of(shape)
    sets = [size for size in (depth, depth // 2) if depth % size == 0]

    def trial(number: int) -> float:
        """Seconds until the first step could begin; the step itself is not counted."""
        decided = plan(depth, k=sets[number % len(sets)], init="copy")
        settle(device)
        started = time.perf_counter()
        model = grow(base, decided, seed=number).train()
        injected = injected_parameters(model, decided)
        made = Training(
            model, recipe_of(shape), batches, heldout, injected=injected, seed=number, initial_loss=20.0
        )
        settle(device)
        seconds = time.perf_counter() - started
        for _ in made.run([1]):
            pass
        return seconds

    trial(0)  # libraries set themselves up
    release(device)
    began = held(device)
    times = [trial(number) for number in range(count)]
    ended = held(device)
    yield judged(
        f"{shape.name}: memory after {count} trials", f"{ended - began:+,} bytes (at most {_ALIKE:,} more)",
        holds=ended - began <= _ALIKE, before=began, after=ended,
    )  # fmt: skip
    usual, longest = statistics.median(times), max(times)
    yield judged(
        f"{shape.name}: from trial to trial", f"{usual:.3f} s, {longest:.3f} s at most (at most {_BOUND:g})",
        holds=longest <= _BOUND, median=usual, longest=longest,
    )  # fmt: skip


def rows_at_once(shape: Shape, device: torch.device, seconds: float) -> Iterator[Row]:
    """Two trials with half of the device's memory each, against one that has it alone."""
    alone = Ours(shape, device)
    alone.warm()
    speed = shape.steps * shape.batch / alone.run(shape.steps)
    del alone
    release(device)
    try:
        shared = side_by_side(shape, device, seconds)
    except RuntimeError as error:
        yield skipped(f"{shape.name}: two at once", str(error))
        return
    said = " and ".join(f"{each:,.0f}" for each in shared)
    yield measured(
        f"{shape.name}: two at once", f"{said} tokens/s, together {sum(shared) / speed:.2f} of one alone",
        alone=speed, shared=shared,
    )  # fmt: skip
