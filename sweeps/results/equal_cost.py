"""Held-out losses interpolated at equal cost: steps, tokens, FLOPs or seconds of training.

Between two measurements of a curve its loss is taken to lie on the line; beyond the last one nothing is said.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from sweeps.records import Point, Role, TrialRecord
from sweeps.results.labels import grown
from sweeps.results.paired import Difference, difference
from sweeps.results.task_scores import task_scores

# What trials can be made equal in, by name: how much of it a point has spent. FLOPs and seconds are those of
# training, measuring left out.
AXES: Mapping[str, Callable[[Point], float]] = {
    "steps": lambda point: point.step,
    "tokens": lambda point: point.tokens,
    "flops": lambda point: point.flops,
    "seconds": lambda point: point.seconds,
}

Curve = Sequence[Point]  # by step, one point or more, every loss finite
_SHARES = (0.25, 0.5, 1.0)  # of the longest curve, at which losses are shown
_SAME = 1e-4  # nats: losses that four digits do not tell apart


@dataclass(frozen=True)
class Entry:
    """One configuration that is compared, under each seed that it ran with."""

    sweep: str
    record: TrialRecord
    curves: Mapping[int, Curve]  # by seed
    parameters: int | None  # of the model; None where its weights were not kept
    told: str = ""  # the value it was picked for, where its shape does not show it

    @property
    def key(self) -> str:
        """What a user calls it: `methods:3`."""
        return f"{self.sweep}:{self.record.number}"

    @property
    def what(self) -> str:
        """`control`, `tli K=4 identity`, `dus m=2 copy`, with the method in front wherever there is one."""
        if self.record.role in (Role.MATCHED, Role.PROMOTED_CONTROL):
            return self.record.role.value
        if self.record.original:
            return "control"
        method = self.record.settings["injection"]["method"]
        shape = grown(self.record).removeprefix(f"{method} ")
        long = self.record.role.value if self.record.role.promoted else ""
        return " ".join(part for part in (long, method, shape, self.told) if part)


@dataclass(frozen=True)
class Equal:
    """Losses where all have spent the same of one axis: as much as the one that ended first had in all."""

    axis: str
    amount: float
    ended_first: tuple[str, ...]  # keys; empty where all ended there
    losses: Mapping[str, Mapping[int, float]]  # nats per token, by key and seed
    order: tuple[str, ...]  # keys, the lowest mean first
    lead: Difference | None  # of the lowest over the next; None where they share no seed, or there is no next
    against_control: Difference | None  # of the lowest over the best other control

    def mean(self, key: str) -> float:
        """Over the seeds."""
        return fmean(self.losses[key].values())


@dataclass(frozen=True)
class Comparison:
    """What `sweeps compare` shows.

    `losses` are means over `seeds` by key and step, where the curve goes so far; `reached` is what each had
    spent, by key and axis, when its loss first was that of the base before training, where it ever was.
    """

    entries: tuple[Entry, ...]
    seeds: tuple[int, ...]  # that all entries have, and that chose none; empty: each has its own alone
    base_loss: float | None
    losses: Mapping[str, Mapping[int, float]]
    reached: Mapping[str, Mapping[str, float | None]]
    equal: tuple[Equal, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        value: dict[str, Any] = {
            "base_loss": self.base_loss,
            "seeds": self.seeds,
            "trials": [self._entry_json(entry) for entry in self.entries],
            "equal": {each.axis: _equal_json(each) for each in self.equal},
            "warnings": self.warnings,
        }
        plain: dict[str, Any] = json.loads(json.dumps(value, allow_nan=False, default=vars))
        return plain

    def _entry_json(self, entry: Entry) -> dict[str, Any]:
        record = entry.record
        return {
            "trial": entry.key,
            "sweep": entry.sweep,
            "number": record.number,
            "what": entry.what,
            "control": record.original,
            "state": record.state.value,
            "seeds": list(entry.curves),
            "params": dict(record.params),
            "settings": dict(record.settings),
            "parameters": entry.parameters,
            "initial_loss": self.losses[entry.key][0],
            "losses": self.losses[entry.key],
            "reached_base_loss": self.reached[entry.key],
            "tasks": task_scores(record),
        }


def compared(entries: Sequence[Entry], warnings: Sequence[str] = ()) -> Comparison:
    """The arithmetic, on curves that can be compared; each has a step or more beyond its first point."""
    entries = sorted(entries, key=lambda entry: not entry.record.original)  # controls first
    seeds = shared_seeds(entries)
    chosen = {
        entry.key: {seed: entry.curves[seed] for seed in seeds or [entry.record.seed]} for entry in entries
    }
    means = {key: mean_curve(list(curves.values())) for key, curves in chosen.items()}
    controls = [entry.key for entry in entries if entry.record.original]
    base = next((loss for key in controls if (loss := loss_at(means[key], "steps", 0)) is not None), None)
    roles = (Role.MATCHED, Role.PROMOTION, Role.PROMOTED_CONTROL)
    longer = [entry.key for entry in entries if entry.record.role in roles]
    usual = [point.step for key, curve in means.items() if key not in longer for point in curve]
    ends = [means[key][-1].step for key in longer]
    steps = _shown_steps(usual or ends, ends)
    return Comparison(
        entries=tuple(entries),
        seeds=tuple(seeds),
        base_loss=base,
        losses={
            key: {step: loss for step in steps if (loss := loss_at(curve, "steps", step)) is not None}
            for key, curve in means.items()
        },
        reached={
            key: {axis: None if base is None else reached_at(curve, axis, base + _SAME) for axis in AXES}
            for key, curve in means.items()
        },
        equal=tuple(_equal(axis, chosen, controls) for axis in AXES),
        warnings=(*_one_seed(seeds), *warnings),
    )


# -- one curve -------------------------------------------------------------------------------------


def finite_part(points: Sequence[Point]) -> tuple[Point, ...]:
    """A curve up to where its loss is no number: what comes after that is not compared."""
    return tuple(itertools.takewhile(lambda point: math.isfinite(point.eval_loss), points))


def end(curve: Curve, axis: str) -> float:
    """How much of an axis a curve has spent in all."""
    return AXES[axis](curve[-1])


def loss_at(curve: Curve, axis: str, amount: float) -> float | None:
    """The loss (nats per token) where so much was spent, by linear interpolation; None outside the curve."""
    for (low, before), (high, after) in _lines(curve, axis):
        if low <= amount <= high:
            return before if high == low else before + (after - before) * (amount - low) / (high - low)
    first = curve[0]
    return first.eval_loss if AXES[axis](first) == amount else None  # of a curve of one point


def reached_at(curve: Curve, axis: str, loss: float) -> float | None:
    """How much was spent when a loss was first reached, by linear interpolation; None if it never was."""
    if curve[0].eval_loss <= loss:
        return AXES[axis](curve[0])
    for (low, before), (high, after) in _lines(curve, axis):
        if after <= loss:  # and before > loss, or it would have been found earlier
            return low + (high - low) * (before - loss) / (before - after)
    return None


def mean_curve(curves: Sequence[Curve]) -> tuple[Point, ...]:
    """The mean of curves under several seeds, at the steps that all of them measured."""
    by_step = [{point.step: point for point in curve} for curve in curves]
    shared = sorted(set.intersection(*(set(each) for each in by_step)))
    return tuple(_mean([each[step] for each in by_step]) for step in shared)


# -- inside ---------------------------------------------------------------------------------------


def shared_seeds(entries: Sequence[Entry]) -> list[int]:
    """Seeds that all have. Those that chose a trial flatter it, and count only where there are no others."""
    shared = set.intersection(*(set(entry.curves) for entry in entries))
    chose = {entry.record.seed for entry in entries if not entry.record.role.fresh}
    return sorted(shared - chose or shared)


def _mean(points: Sequence[Point]) -> Point:
    return Point(
        step=points[0].step,
        tokens=points[0].tokens,
        flops=fmean(point.flops for point in points),
        seconds=fmean(point.seconds for point in points),
        eval_loss=fmean(point.eval_loss for point in points),
    )


def _lines(curve: Curve, axis: str) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    """Neighbouring measurements, as (spent, loss)."""
    return itertools.pairwise([(AXES[axis](point), point.eval_loss) for point in curve])


def _shown_steps(measured: Sequence[int], ends: Sequence[int]) -> list[int]:
    """The first step, those measured next to some shares of the longest curve, and other ends."""
    known, last = sorted(set(measured)), max(measured)
    shares = _SHARES[1:] if ends else _SHARES
    near = {min(known, key=lambda step: abs(step - share * last)) for share in shares}
    return sorted({0, *near, *ends})


def _equal(axis: str, chosen: Mapping[str, Mapping[int, Curve]], controls: Sequence[str]) -> Equal:
    ends = {key: min(end(curve, axis) for curve in curves.values()) for key, curves in chosen.items()}
    amount = min(ends.values())
    losses = {
        key: {
            seed: loss for seed, curve in curves.items() if (loss := loss_at(curve, axis, amount)) is not None
        }
        for key, curves in chosen.items()
    }
    order = sorted(losses, key=lambda key: fmean(losses[key].values()))
    lowest, following = order[0], order[1] if len(order) > 1 else None
    control = next((key for key in order if key in controls and key != lowest), None)
    first = tuple(key for key in chosen if ends[key] == amount)
    return Equal(
        axis=axis,
        amount=amount,
        ended_first=() if len(first) == len(chosen) else first,
        losses=losses,
        order=tuple(order),
        lead=difference(losses[lowest], losses[following]) if following else None,
        against_control=difference(losses[lowest], losses[control]) if control else None,
    )


def _equal_json(each: Equal) -> dict[str, Any]:
    return {
        "at": each.amount,
        "ended_first": each.ended_first,
        "losses": {key: each.mean(key) for key in each.losses},
        "lowest": each.order[0],
        "lead": each.lead,
        "against_control": each.against_control,
    }


def _one_seed(seeds: Sequence[int]) -> Iterator[str]:
    if not seeds:
        yield "no seed is shared by all: the differences hold those of the seeds, and have no intervals"
    elif len(seeds) == 1:
        yield "one seed is shared by all: no intervals, so small differences may be chance"
