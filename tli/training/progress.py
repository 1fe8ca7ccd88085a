"""What a training yields at each measurement."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """What a stretch of training did, and the held-out loss at its end.

    Losses are nats per token; `seconds` and `tokens` are totals since step 0, of training steps alone.
    `measuring` is the time that this one held-out loss took, in seconds; 0 where it was known.
    """

    step: int
    tokens: int
    seconds: float
    eval_loss: float
    train_loss: tuple[tuple[int, float], ...]
    measuring: float = 0.0
