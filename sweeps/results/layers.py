"""Trials against a cost or a score: layers of which none is dominated by another, and finalists that cover
them.

A trial is dominated where another has no higher loss and costs no more, or scores no worse. The first layer
is the front; the next is what would be the front without it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from sweeps.records import TrialRecord

COSTS = {"flops_per_token": "FLOPs per token", "parameters": "parameters"}  # that there is a front against
_SAME = 1e-6  # of a cost or a score: below that, two are the same


def flops_per_token(record: TrialRecord) -> float | None:
    """What a trial has spent on one training token; None where that is not known."""
    return record.flops / record.tokens if record.flops and record.tokens else None


def cost_of(record: TrialRecord, cost: str) -> float | None:
    """One of `COSTS` of a trial; None where it is not known."""
    measured = flops_per_token(record) if cost == "flops_per_token" else None
    return measured or record.costs.get(cost)


def is_front(per: str | None) -> bool:
    """Whether finalists lie along a front: against one of `COSTS`, or a score, as `kobest_copa/acc`."""
    return per is not None and (per in COSTS or "/" in per)


def _place(record: TrialRecord, beside: str) -> float:
    """What is minimised beside the loss; infinite where it is not known."""
    if beside in COSTS:
        return cost_of(record, beside) or math.inf
    score = record.front_score
    return score.minimised if score is not None and score.name == beside else math.inf


def layers(ranked: Sequence[TrialRecord], beside: str) -> Iterator[list[TrialRecord]]:
    """The layers, the front first, each from the lowest loss to the lowest cost, or the best score.

    Args:
        ranked: complete trials, the lowest loss first.
        beside: one of `COSTS`, or a task's score; a trial without is taken to be the worst.
    """
    left = list(ranked)
    while left:
        layer: list[TrialRecord] = []
        rest: list[TrialRecord] = []
        lowest = math.inf
        for record in left:
            own = _place(record, beside)
            if not layer or own < lowest - (_SAME * abs(lowest) if math.isfinite(lowest) else 0.0):
                layer.append(record)
                lowest = own
            else:
                rest.append(record)
        yield layer
        left = rest


def along_front(ranked: Sequence[TrialRecord], beside: str, top: int) -> list[TrialRecord]:
    """So many trials that cover the front, the lowest loss first.

    All of the front where it has no more; then of the next layer. Of a layer that is too long, both ends and
    what lies evenly between, by the logarithm of the cost, or by the score.
    """
    chosen: list[TrialRecord] = []
    for layer in layers(ranked, beside):
        chosen += _spread(layer, beside, top - len(chosen))
        if len(chosen) == top:
            break
    numbers = {record.number for record in chosen}
    return [record for record in ranked if record.number in numbers]


def may_be_chosen(ranked: Sequence[TrialRecord], beside: str, top: int) -> list[TrialRecord]:
    """What `along_front` may choose, now or once there are more trials: a trial's layer never falls."""
    return [record for layer, _ in zip(layers(ranked, beside), range(top), strict=False) for record in layer]


def _spread(layer: Sequence[TrialRecord], beside: str, count: int) -> list[TrialRecord]:
    if len(layer) <= count:
        return list(layer)
    if count == 1:
        return [layer[0]]
    if beside in COSTS:
        places = [math.log(cost_of(record, beside) or 1.0) for record in layer]
    else:
        known = [place for record in layer if math.isfinite(place := _place(record, beside))]
        places = [min(_place(record, beside), max(known, default=0.0)) for record in layer]
    first, last = places[0], places[-1]
    chosen: dict[int, None] = {0: None, len(layer) - 1: None}
    for index in range(1, count - 1):
        wanted = first + (last - first) * index / (count - 1)
        free = [place for place in range(len(layer)) if place not in chosen]
        chosen[min(free, key=lambda place: (abs(places[place] - wanted), place))] = None
    return [layer[place] for place in sorted(chosen)][:count]
