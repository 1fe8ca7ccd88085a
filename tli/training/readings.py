"""Train losses and gradient norms by step. Those on a GPU are read behind the training's back.

To read a number from a GPU is to wait until it has done all that it was given, and it idles while it is given
more. So each pair is copied into memory of the host by the GPU itself, and looked at once it has arrived.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tli.errors import DivergedError

_STEPS_AHEAD = 2  # that a GPU has been given, at most, beyond the one whose loss is known


@dataclass(frozen=True)
class _Underway:
    """A step whose loss and norm are written into `pair` once `arrival` has happened."""

    step: int
    pair: torch.Tensor
    arrival: torch.cuda.Event

    @property
    def arrived(self) -> bool:
        """Whether it has happened."""
        return bool(self.arrival.query())  # type: ignore[no-untyped-call] # torch's


class Readings:
    """Losses by step since the last report, each of them finite."""

    def __init__(self, *, early: bool = True) -> None:
        """With `early` a step is looked at as soon as it has come.

        Ranks look at the same step together, or one of them would raise a step before the others.
        """
        self._early = early
        self._known: list[tuple[int, float]] = []
        self._underway: deque[_Underway] = deque()

    def add(self, step: int, loss: torch.Tensor, norm: torch.Tensor) -> None:
        """Take note of a step: on the CPU at once, from a GPU when it has come so far.

        Raises:
            DivergedError: this loss or norm, or one before it, is not finite.
        """
        pair = torch.stack([loss.double(), norm.double()])
        if pair.device.type != "cuda":
            self._take(step, pair)
            return
        target = torch.empty(2, dtype=torch.float64, pin_memory=True)
        target.copy_(pair, non_blocking=True)
        arrival = torch.cuda.Event()  # type: ignore[no-untyped-call] # torch's
        arrival.record()
        self._underway.append(_Underway(step, target, arrival))
        while len(self._underway) > _STEPS_AHEAD or (
            self._early and self._underway and self._underway[0].arrived
        ):
            self._settle()

    @property
    def known(self) -> list[tuple[int, float]]:
        """Train losses by step, of the steps that are done."""
        return list(self._known)

    @property
    def owed(self) -> bool:
        """Whether there are steps that a GPU is not known to have done."""
        return bool(self._underway)

    def wait(self) -> None:
        """Wait for what is owed.

        Raises:
            DivergedError: a loss is not finite, or a gradient's norm is not.
        """
        while self._underway:
            self._settle()

    def begin(self, known: Sequence[tuple[int, float]] = ()) -> None:
        """Forget all, but for what is known."""
        self._underway.clear()
        self._known = list(known)

    def _settle(self) -> None:
        oldest = self._underway.popleft()
        oldest.arrival.synchronize()
        self._take(oldest.step, oldest.pair)

    def _take(self, step: int, pair: torch.Tensor) -> None:
        loss, norm = pair.tolist()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise DivergedError(f"train loss is {loss} and the gradient's norm {norm} at step {step}")
        self._known.append((step, loss))
