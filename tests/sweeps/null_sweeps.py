"""Made-up sweeps, as trial records: a search under one seed, runs under fresh seeds, matched controls.

The loss of configuration c under seed s on block b of a text is

    mu_c + seed_s + text_b + e_cs + t_cb

with the effects of seeds and blocks shared by all. Sizes are those that were measured on the quickstart:
0.0039 nats between seeds, 0.0004 nats of e (the paired residual), and a standard error over the test text
of a difference of 0.0003 nats. The same e stands in the validation and the test loss of a run.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sweeps.records import Role, State, TrialRecord

BLOCKS, STEPS, TOKENS = 16, 24, 49_152
SEED, RESIDUAL, TEXT = 0.0039, 0.0004, 0.0003
LOSS = 3.15


@dataclass(frozen=True)
class World:
    """What is true of a made-up sweep."""

    searched: int = 20
    seeds: int = 3
    finalists: int = 3
    better: float = 0.0  # noise units by which configuration 2 is better than the controls
    spread: float = 0.001  # nats by which the other grown ones are worse, at most
    heavy: bool = False  # e and t of Student's t with 3 degrees of freedom, not normal
    noisy: Mapping[int, float] = field(
        default_factory=dict
    )  # factor of the standard deviation of e, by number
    text: float = TEXT
    matched: float = 0.0  # nats by which the control with more FLOPs is better than the control

    @property
    def unit(self) -> float:
        """The noise of a difference: the standard deviation of configuration 2 less the control, measured
        under one seed on one test text; nats.
        """
        return math.sqrt(sum(self.residual(number) ** 2 for number in (0, 2)) + self.text**2)

    def residual(self, number: int) -> float:
        """Standard deviation of e, nats."""
        return RESIDUAL * self.noisy.get(number, 1.0)


class MadeSweep:
    """One of a world, whose finalists may be given more fresh seeds.

    Control 0, baseline 1, searched 2 to 1 + `searched`; then runs under fresh seeds.
    """

    def __init__(self, world: World, rng: random.Random) -> None:
        self._draw = draw = _Draws(world, rng)
        numbers = range(2 + world.searched)
        means = {number: LOSS + (world.spread * rng.random() if number > 1 else 0.0) for number in numbers}
        means = {number: LOSS if world.spread == 0 else mean for number, mean in means.items()}
        if world.searched:
            means[2] = LOSS - world.better * world.unit
        roles = {0: Role.CONTROL, 1: Role.BASELINE}
        self.records = [
            _record(number, roles.get(number, Role.SEARCH), 0, draw.validation(number, means[number], 0))
            for number in numbers
        ]
        grown = sorted(self.records[1:], key=lambda record: record.value or 0)
        self._means = {**means, -1: LOSS - world.matched}
        self._chosen = [record.number for record in grown[: world.finalists]]
        self.seeds = 0
        self.run(world.seeds)

    def run(self, seeds: int) -> None:
        """So many fresh seeds in all, of all that is compared."""
        new, means = range(self.seeds + 1, seeds + 1), self._means
        for seed in new:
            for number in dict.fromkeys((0, 1, *self._chosen)):
                self._add(Role.REPLICATE, number, seed, self._draw.both(number, means[number], seed))
        for seed in new:  # one matched control for whichever wins
            losses = self._draw.both(-1, means[-1], seed)
            for number in self._chosen:
                self._add(Role.MATCHED, number, seed, losses)
        self.seeds = seeds

    def _add(self, role: Role, of: int, seed: int, losses: tuple[float, tuple[float, ...]]) -> None:
        self.records.append(_fresh(len(self.records), role, of, seed, *losses))


def sweep(world: World, rng: random.Random) -> list[TrialRecord]:
    """Its records, after as many fresh seeds as the world has."""
    return MadeSweep(world, rng).records


class _Draws:
    """Random effects, each drawn once."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self._world, self._rng = world, rng
        self._seeds: dict[int, float] = {}
        self._texts: dict[tuple[str, int], list[float]] = {}
        self._runs: dict[tuple[int, int], float] = {}

    def validation(self, number: int, mean: float, seed: int) -> float:
        """Loss of a run on the validation text."""
        return self._run(number, mean, seed) + sum(self._text("validation", number)) / BLOCKS

    def both(self, number: int, mean: float, seed: int) -> tuple[float, tuple[float, ...]]:
        """Validation loss, and the test loss of each block."""
        run = self._run(number, mean, seed)
        shared = self._text("test", -2)
        test = tuple(run + b + t for b, t in zip(shared, self._text("test", number), strict=True))
        return self.validation(number, mean, seed), test

    def _run(self, number: int, mean: float, seed: int) -> float:
        if seed not in self._seeds:
            self._seeds[seed] = self._rng.gauss(0, SEED)
        if (number, seed) not in self._runs:
            self._runs[number, seed] = self._world.residual(number) * self._unit()
        return mean + self._seeds[seed] + self._runs[number, seed]

    def _text(self, side: str, number: int) -> list[float]:
        """By block; the standard error of a difference between two configurations is the world's `text`."""
        if (side, number) not in self._texts:
            scale = 0.05 if number == -2 else self._world.text * math.sqrt(BLOCKS / 2)
            self._texts[side, number] = [scale * self._unit() for _ in range(BLOCKS)]
        return self._texts[side, number]

    def _unit(self) -> float:
        """Standard deviation 1."""
        normal = self._rng.gauss(0, 1)
        if not self._world.heavy:
            return normal
        return normal / math.sqrt(sum(self._rng.gauss(0, 1) ** 2 for _ in range(3)))


def _record(number: int, role: Role, seed: int, value: float, **fields: Any) -> TrialRecord:
    k = fields.get("replicate_of", number)
    original = role in (Role.CONTROL, Role.MATCHED) or k == 0
    flops = 1.0 if original else 1.1 + 0.01 * k
    return TrialRecord(
        **{
            "number": number,
            "role": role,
            "state": State.COMPLETE,
            "params": {} if original else {"injection.k": k},
            "settings": {"injection": {"method": "none"} if original else {"k": k}},
            "seed": seed,
            "steps": STEPS,
            "losses": {0: LOSS + 0.08, STEPS: value},
            "value": value,
            "tokens": TOKENS,
            "flops": flops * TOKENS,
            **fields,
        }
    )


def _fresh(
    number: int, role: Role, of: int, seed: int, value: float, blocks: tuple[float, ...]
) -> TrialRecord:
    return _record(number, role, seed, value, replicate_of=of, test_losses=blocks)


def sweeps(world: World, count: int, seed: int = 0) -> Iterator[list[TrialRecord]]:
    """So many of a world."""
    rng = random.Random(seed)
    return (sweep(world, rng) for _ in range(count))
