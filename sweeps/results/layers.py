"""Trials against a cost: layers of which no trial is dominated by another, and finalists that cover them.

A trial is dominated where another costs no more and has no higher loss. The first layer is the front; the
next is what would be the front without it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from sweeps.records import TrialRecord

COSTS = {"flops_per_token": "FLOPs per token", "parameters": "parameters"}  # that there is a front against
_SAME = 1e-6  # of a cost: below that, two are the same


def flops_per_token(record: TrialRecord) -> float | None:
    """What a trial has spent on one training token; None where that is not known."""
    return record.flops / record.tokens if record.flops and record.tokens else None


def cost_of(record: TrialRecord, cost: str) -> float | None:
    """One of `COSTS` of a trial; None where it is not known."""
    measured = flops_per_token(record) if cost == "flops_per_token" else None
    return measured or record.costs.get(cost)


def layers(ranked: Sequence[TrialRecord], cost: str) -> Iterator[list[TrialRecord]]:
    """The layers, the front first, each from the lowest loss to the lowest cost.

    Args:
        ranked: complete trials, the lowest loss first.
        cost: one of `COSTS`; a trial without is taken to cost the most.
    """
    left = list(ranked)
    while left:
        layer: list[TrialRecord] = []
        rest: list[TrialRecord] = []
        lowest = math.inf
        for record in left:
            own = cost_of(record, cost) or math.inf
            if not layer or own < lowest * (1 - _SAME):
                layer.append(record)
                lowest = own
            else:
                rest.append(record)
        yield layer
        left = rest


def along_front(ranked: Sequence[TrialRecord], cost: str, top: int) -> list[TrialRecord]:
    """So many trials that cover the front, the lowest loss first.

    All of the front where it has no more; then of the next layer. Of a layer that is too long, both ends and
    what lies evenly between, by the logarithm of the cost.
    """
    chosen: list[TrialRecord] = []
    for layer in layers(ranked, cost):
        chosen += _spread(layer, cost, top - len(chosen))
        if len(chosen) == top:
            break
    numbers = {record.number for record in chosen}
    return [record for record in ranked if record.number in numbers]


def may_be_chosen(ranked: Sequence[TrialRecord], cost: str, top: int) -> list[TrialRecord]:
    """What `along_front` may choose, now or once there are more trials: a trial's layer never falls."""
    return [record for layer, _ in zip(layers(ranked, cost), range(top), strict=False) for record in layer]


def _spread(layer: Sequence[TrialRecord], cost: str, count: int) -> list[TrialRecord]:
    if len(layer) <= count:
        return list(layer)
    if count == 1:
        return [layer[0]]
    places = [math.log(cost_of(record, cost) or 1.0) for record in layer]
    first, last = places[0], places[-1]
    chosen: dict[int, None] = {0: None, len(layer) - 1: None}
    for index in range(1, count - 1):
        wanted = first + (last - first) * index / (count - 1)
        free = [place for place in range(len(layer)) if place not in chosen]
        chosen[min(free, key=lambda place: (abs(places[place] - wanted), place))] = None
    return [layer[place] for place in sorted(chosen)][:count]
