"""What a sweep takes over from an earlier one: final losses by searched values, a prior of its search.

It is copied into the study when that is made, so that a resumed sweep needs the earlier one no more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Observed:
    """A final loss of a trial of the earlier sweep.

    Attributes
    ----------
    values : mapping
        By dotted path, of what this sweep searches.
    loss : float
        Nats per token.
    variance : float
        0 where it was measured, above where it was forecast.
    """

    values: Mapping[str, Any]
    loss: float
    variance: float


@dataclass(frozen=True)
class Taken:
    """What is taken over from one sweep.

    Attributes
    ----------
    sweep : str
        Its name.
    base, text : str
        What its trials grew, and what they were trained on.
    rate : float or None
        The learning rate under which its control did best.
    trials : tuple of Observed
        What its trials say.
    """

    sweep: str
    base: str
    text: str
    rate: float | None
    trials: tuple[Observed, ...]

    @property
    def words(self) -> str:
        """`24 trials of first (base builtin:tiny-llama, text builtin:stdlib)`."""
        count = len(self.trials)
        return f"{count} trial{'s' * (count != 1)} of {self.sweep} (base {self.base}, text {self.text})"

    def summary(self) -> dict[str, Any]:
        """As commands answer in JSON: how many trials of what."""
        return {"sweep": self.sweep, "base": self.base, "text": self.text, "trial_count": len(self.trials)}

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        rows = [[dict(each.values), each.loss, each.variance] for each in self.trials]
        return {
            "sweep": self.sweep,
            "base": self.base,
            "text": self.text,
            "rate": self.rate,
            "trials": rows,
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Taken:
        """The inverse of `to_json`.

        Raises:
            TypeError, ValueError, KeyError: it is not that.
        """
        sweep, base, text = (plain[name] for name in ("sweep", "base", "text"))
        if not all(isinstance(each, str) for each in (sweep, base, text)):
            raise TypeError("names are texts")
        rate = None if plain["rate"] is None else _number(plain["rate"])
        trials = tuple(
            Observed(dict(values), _number(loss), _number(variance))
            for values, loss, variance in plain["trials"]
        )
        return cls(sweep, base, text, rate, trials)


def all_taken(value: Any) -> tuple[Taken, ...]:
    """Of each earlier sweep, from what a study bears.

    Raises:
        TypeError, ValueError, KeyError: it is not that.
    """
    if not isinstance(value, list):
        raise TypeError("a list of sweeps")
    return tuple(map(Taken.from_json, value))


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError("a finite number")
    return float(value)
