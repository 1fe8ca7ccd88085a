"""What a model loses on one of several held-out texts, as it is measured, kept and read back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tli.json_values import number


@dataclass(frozen=True)
class TextLoss:
    """Losses on one text. Nats per token; bits per byte are those of the tokens that stand for text.

    Attributes
    ----------
    eval_loss : float
        On the held-out side.
    bits_per_byte : float or None
        On the held-out side; None where no token of it stands for text.
    test_losses : tuple of float
        On equal blocks of the test side; of runs under fresh seeds after their last step, and of the base.
    test_bits_per_byte : float or None
        On the whole test side.
    """

    eval_loss: float
    bits_per_byte: float | None = None
    test_losses: tuple[float, ...] = ()
    test_bits_per_byte: float | None = None

    @property
    def finite(self) -> bool:
        """Whether every loss in it is a number."""
        return all(map(math.isfinite, (self.eval_loss, *self.test_losses)))


Sources = Mapping[str, TextLoss]  # by the name of the text


def sources_to_json(sources: Sources) -> dict[str, Any]:
    """As plain JSON values."""
    return {name: {**asdict(each), "test_losses": list(each.test_losses)} for name, each in sources.items()}


def sources_from_json(value: Any) -> dict[str, TextLoss]:
    """The inverse of `sources_to_json`.

    Raises:
        ValueError, TypeError, KeyError: it is not that.
    """
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise TypeError("losses by the name of a text are wanted")
    return {name: _from_json(each) for name, each in value.items()}


def _from_json(value: Any) -> TextLoss:
    if value.keys() != TextLoss.__dataclass_fields__.keys():
        raise ValueError("other values than those of a text")
    losses = value["test_losses"]
    if not isinstance(losses, list | tuple):
        raise TypeError("a list of losses is wanted")
    return TextLoss(
        number(value["eval_loss"]),
        _optional(value["bits_per_byte"]),
        tuple(number(loss) for loss in losses),
        _optional(value["test_bits_per_byte"]),
    )


def _optional(value: Any) -> float | None:
    return None if value is None else number(value)
