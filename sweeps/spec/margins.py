"""The margin as it is written: nats per token, or a percentage of the control's loss."""

from __future__ import annotations

import math
import re
from typing import Any

from sweeps.spec.ranges import fractional
from sweeps.wording import Fault, formatted

MOST_NATS, MOST_PERCENT = 1.0, 10.0  # beyond these no two models differ
_EXPECTED = f"from 0 to {MOST_NATS:g} (nats per token), from 0% to {MOST_PERCENT:g}% of the loss, or null"
_PERCENT = re.compile(r"\s*(?P<number>[-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*%\s*")
_NUMBER = re.compile(r"[0-9]*\.?[0-9]+")


def percent_of(margin: Any) -> float | None:
    """Of the control's loss; None for a margin in nats, or none."""
    match = _PERCENT.fullmatch(margin) if isinstance(margin, str) else None
    return float(match["number"]) if match else None


def canonical(margin: Any) -> Any:
    """The same margin in one way of writing: `0.1%` of ` 0.10 %`, 1.0 of 1."""
    percent = percent_of(margin)
    return fractional(margin) if percent is None else f"{percent:g}%"


def as_written(margin: float | str | None) -> str:
    """A margin in words: `0.001 nats`, `0.1% of the control's loss`, `the data's own`."""
    if margin is None:
        return "the data's own"
    percent = percent_of(margin)
    return f"{margin:g} nats" if percent is None else f"{percent:g}% of the control's loss"


def margin_faults(margin: Any) -> list[Fault]:
    """Why it cannot be one: no number, below 0, or so large that no two models would differ."""
    path = "finalists.margin"
    if margin is None:
        return []
    if isinstance(margin, str):
        percent = percent_of(margin)
        if percent is not None:
            wrong = not 0 <= percent <= MOST_PERCENT
            return [Fault(path, formatted(margin), _EXPECTED, "0.1%")] if wrong else []
        return [Fault(path, f"the text {formatted(margin)}", _EXPECTED, _meant(margin))]
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not math.isfinite(margin):
        return [Fault(path, formatted(margin), _EXPECTED, "null")]
    if not 0 <= margin <= MOST_NATS:
        return [Fault(path, formatted(margin), _EXPECTED, "0.1%" if margin > 0 else "null")]
    return []


def _meant(text: str) -> str:
    """A number of nats with its unit, where it is one that may be a margin."""
    match = _NUMBER.search(text)
    alone = match is not None and "nat" in text and "-" not in text
    return match[0] if match and alone and float(match[0]) <= MOST_NATS else "0.1%"
