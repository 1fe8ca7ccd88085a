"""Two ranks against one process, at an equal batch: `python -m tests.bench.bench_ranks [--model 60m]`.

By turns, on the CPU: one process with one thread, one with two, and two ranks over gloo with a thread each. Printed
are tokens per second of wall-clock time (the median over turns of a turn's fastest step), the memory that a process takes for it at most, and how
far the last training losses lie apart.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.bench import llama_60m
from tests.ranks import on_ranks

if TYPE_CHECKING:
    from tli.sharded.processes import Group

_WAYS = {"1 process, 1 thread": (1, 1), "1 process, 2 threads": (1, 2), "2 ranks, 1 thread each": (2, 1)}
_SEQUENCE = 128
_MIB = 2**20
_BATCH = {"builtin": 2048, "60m": 512}  # tokens


def steps(group: Group, base: str, batch: int, threads: int, count: int) -> list[float]:
    """In one of the ranks: seconds of each step after the first, then bytes taken at most and the last loss."""
    import torch

    from tli.data.batches import Batches
    from tli.growth.in_memory import grow, injected_parameters
    from tli.models.base import find, vocabulary_of
    from tli.models.loading import load_model
    from tli.planning.injection import Injection
    from tli.planning.plan import plan_for
    from tli.sharded.base import read_base
    from tli.sharded.growth import grow_sharded
    from tli.training.loop import Training
    from tli.training.recipe import Recipe

    torch.set_num_threads(threads)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found, plan = find(base), plan_for(Injection(k=4, init="identity"), find(base).facts.depth)
    if group.ranks.size > 1:
        model = grow_sharded(read_base(found, group), plan)
    else:
        model = grow(load_model(base), plan)
    drawn = np.random.default_rng(3).integers(0, vocabulary_of(found.config), (count + 2) * batch + _SEQUENCE)
    recipe = Recipe(tokens=(count + 1) * batch, batch_tokens=batch, precision="fp32")
    batches = Batches(drawn.astype(np.uint16), _SEQUENCE, batch // _SEQUENCE, 0)
    heldout = drawn[: 2 * (_SEQUENCE + 1)].reshape(2, -1)
    injected = injected_parameters(model, plan)
    training = Training(model, recipe, batches, heldout, injected=injected, initial_loss=20.0)
    ended, losses = [time.perf_counter()], []
    for progress in training.run(range(1, count + 2)):
        ended.append(time.perf_counter())
        losses += [loss for _, loss in progress.train_loss]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return [*np.diff(ended)[1:].tolist(), float(peak - before), losses[-1]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_ranks", description=__doc__)
    parser.add_argument("--model", choices=sorted(_BATCH), default="builtin")
    parser.add_argument("--steps", type=int, default=4, help="that are timed, in each turn (default 4)")
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        is_60m = arguments.model == "60m"
        base = str(llama_60m.write(Path(folder) / "base")) if is_60m else "builtin:tiny-llama"
        batch = _BATCH[arguments.model]
        found: dict[str, list[list[float]]] = {name: [] for name in _WAYS}
        for turn in range(arguments.turns):
            for name in list(_WAYS) if turn % 2 == 0 else list(_WAYS)[::-1]:
                size, threads = _WAYS[name]
                given: dict[str, Any] = {"batch": batch, "threads": threads, "count": arguments.steps}
                ranks = on_ranks(size, "tests.bench.bench_ranks:steps", base=base, **given)
                found[name].append(max(ranks, key=lambda rank: sum(rank[:-2])))
    for name, turns in found.items():
        seconds = statistics.median(min(turn[:-2]) for turn in turns)
        peak, loss = max(turn[-2] for turn in turns), turns[-1][-1]
        print(f"{name:24} {batch / seconds:8,.0f} tokens/s, {peak / _MIB:6,.0f} MiB more, loss {loss:.6f}")


if __name__ == "__main__":
    main()
