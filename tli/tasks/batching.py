"""How many documents of a task go through a model together."""

from __future__ import annotations

MOST = 16  # documents; more of them brought nothing on a CPU
_LOGITS = 2**28  # numbers of a pass: 1 GiB in float32, and its log-softmax as much again


def batch_size(vocabulary: int, length: int) -> int:
    """Documents at once, so that their logits fit.

    Args:
        vocabulary: tokens that the model tells apart.
        length: tokens of the longest document that it takes.
    """
    return max(1, min(MOST, _LOGITS // max(1, vocabulary * length)))
