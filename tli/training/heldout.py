"""Held-out windows of one text or of several, and the loss that a model has on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import fsum
from typing import TYPE_CHECKING

from tli.argument_types import require_types
from tli.errors import InputError, Problem
from tli.training.evaluate import TOKENS_AT_ONCE, WINDOWS, Evaluation, evaluate

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel

    from tli.data.token_bytes import TokenBytes


@dataclass(frozen=True)
class HeldOut:
    """Held-out windows of several texts.

    Attributes
    ----------
    windows : mapping of str to array
        Token ids by the text's name, each of shape [windows, sequence_length + 1], or packed.
    weights : mapping of str to float
        Of each text in the mean, together 1. A text without a weight is measured, and in no mean.
    sizes : TokenBytes or None
        Bytes of each token; with them there are bits per byte.
    """

    windows: Mapping[str, np.ndarray]
    weights: Mapping[str, float]
    sizes: TokenBytes | None = None

    def __post_init__(self) -> None:
        """Raises InputError for windows that are none, and weights of other texts."""
        require_types(**{f"heldout.{name}": (each, WINDOWS) for name, each in self.windows.items()})
        if not self.weights or not self.weights.keys() <= self.windows.keys():
            got, expected = f"weights of {', '.join(self.weights) or 'nothing'}", ", ".join(self.windows)
            raise InputError(Problem("heldout.weights", got, f"one of {expected} at least"))


HELDOUT = replace(WINDOWS, types=(HeldOut,))


@dataclass(frozen=True)
class Measured:
    """What one measurement found: the mean loss in nats per token, and what it is of each text by name."""

    loss: float
    texts: Mapping[str, Evaluation] = field(default_factory=dict)


def measure(
    model: PreTrainedModel, heldout: np.ndarray | HeldOut, *, at_once: int = TOKENS_AT_ONCE
) -> Measured:
    """The loss of a model on held-out windows, as `evaluate` measures it; of several texts their mean.

    Args:
        model: any causal language model; of one that is sharded all ranks call this.
        heldout: of one text, or of several.
        at_once: most tokens that go through the model together.

    Raises:
        InputError: what `evaluate` raises.
    """
    if not isinstance(heldout, HeldOut):
        return Measured(evaluate(model, heldout, at_once=at_once).loss)
    texts = {
        name: evaluate(model, windows, at_once=at_once, sizes=heldout.sizes)
        for name, windows in heldout.windows.items()
    }
    return Measured(fsum(weight * texts[name].loss for name, weight in heldout.weights.items()), texts)


def arrays_of(heldout: np.ndarray | HeldOut) -> list[np.ndarray]:
    """The windows of each text."""
    return list(heldout.windows.values()) if isinstance(heldout, HeldOut) else [heldout]
