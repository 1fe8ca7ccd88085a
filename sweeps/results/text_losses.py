"""What models lose on each of several texts, beside the base: the values; `by_source` finds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sweeps.results.claims import Measure

Model = Literal["base", "control", "matched", "grown"]


@dataclass(frozen=True)
class OnText:
    """One model on one text. Losses in nats per token; `difference` is less that of the base, so above 0 is
    worse.
    """

    model: Model
    trial: int | None  # None of the base
    loss: float | None
    bits_per_byte: float | None
    difference: float | None = None
    half_width: float | None = None  # of the interval, 95 % for all models and texts together
    n: int = 0  # fresh seeds

    @property
    def low(self) -> float | None:
        """The lower end of the interval."""
        known = self.difference is not None and self.half_width is not None
        return self.difference - self.half_width if known else None  # type: ignore[operator]

    @property
    def high(self) -> float | None:
        """The upper end of the interval."""
        known = self.difference is not None and self.half_width is not None
        return self.difference + self.half_width if known else None  # type: ignore[operator]

    @property
    def says(self) -> Literal["better", "worse", "not shown"] | None:
        """What is shown of it against the base; None of the base itself."""
        if self.model == "base":
            return None
        if self.low is None or self.high is None:
            return "not shown"
        return "worse" if self.low > 0 else "better" if self.high < 0 else "not shown"


@dataclass(frozen=True)
class TextLosses:
    """One text with every model on it, the base first."""

    name: str
    weight: float | None  # of the text in the loss that is minimised; None where it is only measured
    measure: Measure
    models: tuple[OnText, ...]


@dataclass(frozen=True)
class BySource:
    """All texts.

    Attributes
    ----------
    texts : tuple of TextLosses
        Those that are trained on, then those that are only measured.
    objective : mapping of str to float
        Weights of the texts in the loss that is minimised.
    compared : int
        Differences to the base, whose intervals hold together.
    """

    texts: tuple[TextLosses, ...]
    objective: Mapping[str, float]
    compared: int

    def worse(self, model: Model) -> list[tuple[str, OnText]]:
        """Texts on which a model is shown to be worse than the base, each with what it loses there."""
        found = ((text.name, each) for text in self.texts for each in text.models)
        return [(name, each) for name, each in found if each.model == model and each.says == "worse"]

    def on(self, text: str, model: Model) -> OnText | None:
        """A model on a text; None where it has no loss there."""
        found = (each for known in self.texts if known.name == text for each in known.models)
        return next((each for each in found if each.model == model and each.difference is not None), None)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values, with the ends of each interval and what they say."""
        texts = [
            {
                "name": text.name,
                "weight": text.weight,
                "measure": text.measure,
                "models": [
                    {**asdict(each), "low": each.low, "high": each.high, "says": each.says}
                    for each in text.models
                ],
            }
            for text in self.texts
        ]
        return {"objective": dict(self.objective), "compared": self.compared, "texts": texts}
