"""What a training yields at each measurement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tli.training.evaluate import Evaluation
from tli.training.heldout import Measured


@dataclass(frozen=True)
class Progress:
    """What a stretch of training did, and the held-out loss at its end.

    Losses are nats per token; `seconds` and `tokens` are totals since step 0, of training steps alone.
    `measuring` is the time that this one held-out loss took, in seconds; 0 where it was known.
    `texts` is what was measured of each of several held-out texts, by name; `eval_loss` is their
    weighted mean.
    """

    step: int
    tokens: int
    seconds: float
    eval_loss: float
    train_loss: tuple[tuple[int, float], ...]
    measuring: float = 0.0
    texts: Mapping[str, Evaluation] = field(default_factory=dict)

    @property
    def heldout(self) -> Measured:
        """The held-out loss, with that of each text."""
        return Measured(self.eval_loss, self.texts)
