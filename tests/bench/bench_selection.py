"""How well a sweep chooses, on made-up curves: `python -m tests.bench.bench_selection [--seeds 20] ...`.

Each row is one stopping rule with one sampler: a whole sweep by the real agenda, ledger and stopping rule on a
virtual clock (`tests.bench.simulator`), once for each seed. Its winner is the trial with the lowest measured
loss; how good it is, is told by its true loss, which only the landscape knows. Printed are how often that was
within 0.5 % of the best there is, how far from it the winner is in the median, the slot seconds spent, and how
many times those seconds a plain random search needs, every trial to its end, until its own winner is as good:
the median over the seeds; where the search never gets there within its limit, at least that.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sweeps.ledger.search.space import Space
from sweeps.ledger.search.stopping import RULES
from sweeps.records import Role, State
from sweeps.spec import Spec
from tests.bench.landscape import best_loss, measured, seconds_per_step, true_loss
from tests.bench.simulator import World, opened

NEAR = 0.005  # of the best loss
_LIMIT = 2000  # trials of the random search


@dataclass(frozen=True)
class Chosen:
    """One sweep's winner."""

    loss: float  # its true one
    seconds: float  # that all slots spent
    steps: int  # of a whole trial


def sweep(world: World) -> Chosen:
    """Run one to its end."""
    with opened(world) as simulation:
        for _ in simulation.run():
            pass
        records = simulation.ledger.trials()
        done = [r for r in records if r.state is State.COMPLETE and r.role in (Role.BASELINE, Role.SEARCH)]
        winner = min(done, key=lambda record: record.value or math.inf)
        return Chosen(true_loss(winner.settings), simulation.seconds, winner.steps)


def by_random(spec: Spec, seed: int) -> Iterator[tuple[float, float]]:
    """Of a random search, trial after trial: the true loss of its winner, and the slot seconds so far."""
    from optuna import create_study
    from optuna.samplers import RandomSampler

    space = Space.of(spec)
    study = create_study(sampler=RandomSampler(seed=10_000 + seed))
    spent, best = 0.0, (math.inf, math.inf)
    for _ in range(_LIMIT):
        trial, params = study.ask(), {}
        for name, distribution in space.walk(params):
            params[name] = trial._suggest(name, distribution)
        settings = spec.settings_for(params).model_dump()
        best = min(best, (measured(settings, spec.steps, spec.steps), true_loss(settings)))
        spent += spec.steps * seconds_per_step(settings)
        yield best[1], spent


def times_random(spec: Spec, seed: int, chosen: Chosen) -> tuple[float, bool]:
    """How many times the seconds of a sweep a random search needs to be as good; whether it got there."""
    spent = 0.0
    for loss, spent in by_random(spec, seed):
        if loss <= chosen.loss:
            return spent / chosen.seconds, True
    return spent / chosen.seconds, False


def row(world: World, seeds: int) -> str:
    """One line of the table."""
    best = best_loss()
    chosen: list[Chosen] = []
    ratios: list[tuple[float, bool]] = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory(prefix="selection-", dir=world.folder) as folder:
            one = World(
                Path(folder),
                world.study,
                world.trials,
                world.slots,
                world.rule,
                world.sampler,
                seed,
                steps=world.steps,
            )
            chosen.append(sweep(one))
            ratios.append(times_random(one.spec(), seed, chosen[-1]))
    near = sum(each.loss <= best * (1 + NEAR) for each in chosen)
    off = statistics.median(each.loss / best - 1 for each in chosen)
    spent = statistics.fmean(each.seconds for each in chosen)
    times, reached = sorted(ratios)[len(ratios) // 2]
    return (
        f"| {world.rule} | {world.sampler} | {world.trials} | {near} of {seeds} | {100 * off:.2f} % | {spent:,.0f} "
        f"| {'' if reached else 'over '}{times:.1f} |"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_selection", description=__doc__)
    parser.add_argument("--rules", nargs="+", choices=list(RULES), default=list(RULES))
    parser.add_argument("--samplers", nargs="+", choices=["gp", "tpe", "random"], default=["tpe", "random"])
    parser.add_argument("--trials", type=int, default=48)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=20)
    given = parser.parse_args(arguments)
    print(
        "| rule | sampler | trials | within 0.5 % of the best | off, median | slot seconds | random needs, times |"
    )
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="selection-") as folder:
        for rule in given.rules:
            for sampler in given.samplers:
                world = World(
                    Path(folder), "sqlite", given.trials, given.slots, rule, sampler, steps=given.steps
                )
                print(row(world, given.seeds), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
