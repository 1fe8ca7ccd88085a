"""What a sweep, or a rung of its ladder, would cost in all."""

from __future__ import annotations

from dataclasses import dataclass

from sweeps.spec import Spec

_WHOLE, _LEARNED = 4, 2 / 3  # trials before the rule has learned, and the share of steps of a later one


@dataclass(frozen=True)
class Total:
    """Training tokens, FLOPs (of training and of measuring) and, if the speed is known, hours."""

    tokens: int
    flops: float
    hours: float | None = None


@dataclass(frozen=True)
class Climb:
    """One rung of the ladder: runs of so many tokens each, at most, and what they cost together."""

    tokens: int
    runs: int
    total: Total


def expected_share(spec: Spec) -> float:
    """Share of its budget that a searched trial gets on average, if each rung passes what it should.

    The rungs are those of `sweeps.ledger.search.stopping`: successive halving from the grace on, the median
    rule at the grace. A rule that decides on few trials keeps more at first, so the real share is a little
    larger. What `learned` will stop is not known before: a first handful of trials runs whole, and the others
    are taken to run two thirds of their steps.
    """
    if spec.stopping.rule == "learned":
        searched = max(1, spec.budget.trials - 2)
        whole = min(_WHOLE, searched)
        return (whole + _LEARNED * (searched - whole)) / searched
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
