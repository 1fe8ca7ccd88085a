"""Held-out loss, and the two readings of it that compare across tokenizers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedModel

TOKENS_AT_ONCE = 4096  # bounds the memory that logits take


@dataclass(frozen=True)
class Evaluation:
    """Held-out loss in nats per token, over so many predicted tokens."""

    loss: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return math.exp(self.loss)

    def bits_per_byte(self, bytes_per_token: float) -> float:
        """Loss in bits per UTF-8 byte of text."""
        return self.loss / math.log(2) / bytes_per_token


def token_losses(model: PreTrainedModel, windows: torch.Tensor, precision: str = "fp32") -> torch.Tensor:
    """Cross-entropy of each next token, fp32.

    Args:
        model: any causal language model.
        windows: token ids, shape [rows, sequence_length + 1].
        precision: fp32, or bf16 autocast.

    Returns:
        Losses in nats, shape [rows * sequence_length].
    """
    import torch

    with torch.autocast(windows.device.type, torch.bfloat16, enabled=precision == "bf16"):
        logits = model(input_ids=windows[:, :-1], use_cache=False).logits
    return torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), windows[:, 1:].flatten(), reduction="none"
    )


def evaluate(model: PreTrainedModel, windows: np.ndarray, *, at_once: int = TOKENS_AT_ONCE) -> Evaluation:
    """Mean held-out loss of a model, at the precision of its weights however it was trained: losses of
    different recipes compare, and a written model has the loss that was measured.

    Args:
        model: any causal language model; its mode (train or eval) is kept.
        windows: token ids, shape [windows, sequence_length + 1].
        at_once: most tokens that go through the model together, but for one window at least; changes the
            memory that is needed, and the loss by no more than rounding.
    """
    import torch

    rows = max(1, at_once // (windows.shape[1] - 1))
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(windows), rows):
            part = torch.from_numpy(windows[start : start + rows]).to(device)
            total += float(token_losses(model, part).double().sum())
    model.train(was_training)
    count = windows.shape[0] * (windows.shape[1] - 1)
    return Evaluation(total / count, count)
