"""What a sweep, or a rung of its ladder, would cost in all."""

from __future__ import annotations

from dataclasses import dataclass


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
