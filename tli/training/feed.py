"""Batches on the device that trains, the next one brought there while this one is trained on."""

from __future__ import annotations

import torch

from tli.data.batches import Batches
from tli.data.packing import predicted_tokens
from tli.training.ranks import ALONE, Ranks


class Feed:
    """Token ids by step, shape [rows, sequence_length + 1], on one device; of several ranks the own rows."""

    def __init__(self, batches: Batches, device: torch.device, ranks: Ranks = ALONE) -> None:
        """Nothing is read before the first `take`.

        Args:
            batches: by step.
            device: where they are wanted.
            ranks: this process among those that divide the rows of each.
        """
        self._batches = batches
        self._device = device
        self._ranks = ranks
        self._ahead: tuple[int, tuple[torch.Tensor, float]] | None = None

    def take(self, step: int) -> tuple[torch.Tensor, float]:
        """The batch of a step, and its weight: of what all ranks predict in their batches, this one's part
        times the ranks. It is 1 but for packed windows, whose rows do not predict as many tokens each.
        """
        ahead, self._ahead = self._ahead, None
        return ahead[1] if ahead is not None and ahead[0] == step else self._moved(step)

    def prepare(self, step: int) -> None:
        """Bring the batch of a step to a GPU, without waiting for what the GPU is doing."""
        if self._device.type == "cuda":
            self._ahead = (step, self._moved(step))

    def _moved(self, step: int) -> tuple[torch.Tensor, float]:
        batch = torch.from_numpy(self._batches[step])
        rows, weight = self._ranks.share(batch), 1.0
        if self._batches.packed and self._ranks.size > 1:
            weight = predicted_tokens(rows) * self._ranks.size / max(1, predicted_tokens(batch))
        if self._device.type != "cuda":
            return rows.to(self._device), weight
        # From pinned memory, which the device reads by itself.
        return rows.pin_memory().to(self._device, non_blocking=True), weight
