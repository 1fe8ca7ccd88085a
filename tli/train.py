"""The training loop: a generator of progress. To stop training, stop asking."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tli.data import Batches
from tli.errors import DivergedError, InputError, Problem
from tli.evaluate import evaluate, token_losses
from tli.recipe import Recipe, optimizer

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Progress:
    """What a stretch of training did, and the held-out loss at its end.

    Losses are nats per token; `seconds` and `tokens` are totals since step 0, of training steps alone.
    """

    step: int
    tokens: int
    seconds: float
    eval_loss: float
    train_loss: tuple[tuple[int, float], ...]


class Training:
    """A model under a recipe: everything that a checkpoint has to hold, and the loop over it.

    Attributes:
        step: optimizer steps made so far.
        seconds: time spent in them.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        recipe: Recipe,
        batches: Batches,
        heldout: np.ndarray,
        *,
        injected: AbstractSet[str] = frozenset(),
        seed: int = 0,
    ) -> None:
        """Put a model under a recipe.

        Args:
            model: trained in place.
            recipe: a recipe without problems.
            batches: what is trained on; batch `step` is used at `step`.
            heldout: token ids that are evaluated on, shape [windows, sequence_length + 1].
            injected: names of the injected layers' parameters.
            seed: of whatever the model draws while it trains (dropout), from the process's generators: one
                training at a time in a process.
        """
        torch.manual_seed(seed)
        if recipe.train == "injected" and not injected:
            raise InputError(Problem("recipe.train", "'injected'", "a model with injected layers", "all"))
        self.model = model
        self.recipe = recipe
        self.batches = batches
        self.heldout = heldout
        self.optimizer = optimizer(model, recipe, injected)
        self.step = 0
        self.seconds = 0.0

    def run(self, report_steps: Sequence[int]) -> Iterator[Progress]:
        """Train to the last of the given steps, yielding progress at each; those behind are skipped.

        Raises:
            DivergedError: a loss or the gradient's norm is not finite.
        """
        losses: list[tuple[int, float]] = []
        self.model.train()
        for target in sorted(set(report_steps)):
            if target < self.step or (target == self.step and target > 0):
                continue
            while self.step < target:
                losses.append((self.step + 1, self._advance()))
            loss = evaluate(self.model, self.heldout).loss
            if not math.isfinite(loss):
                raise DivergedError(f"held-out loss is {loss} at step {self.step}")
            yield Progress(self.step, self.step * self.recipe.batch_tokens, self.seconds, loss, tuple(losses))
            losses = []

    def _advance(self) -> float:
        """One optimizer step; returns the mean train loss of its batch."""
        started = time.perf_counter()
        share = self.recipe.rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * share
        rows = torch.from_numpy(self.batches[self.step]).to(next(self.model.parameters()).device)
        micro = (self.recipe.micro_batch_tokens or self.recipe.batch_tokens) // self.batches.sequence_length
        total = 0.0
        for part in rows.split(micro):
            loss = token_losses(self.model, part, self.recipe.precision).mean() * (len(part) / len(rows))
            loss.backward()
            total += float(loss.detach())
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = float(torch.nn.utils.clip_grad_norm_(trained, self.recipe.clip or math.inf))
        if not (math.isfinite(total) and math.isfinite(norm)):
            raise DivergedError(
                f"train loss is {total} and the gradient's norm {norm} at step {self.step + 1}"
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.seconds += time.perf_counter() - started
        return total
