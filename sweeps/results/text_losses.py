"""What models lose on each of several texts, beside the base: the values; `by_source` finds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any, Literal

from sweeps.by_text import Sources
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

    def of_run(self, model: Model, number: int, sources: Sources) -> dict[str, OnText]:
        """What one run loses on each text beside the base, by name: of one seed, so without an interval.

        Args:
            model: what it is.
            number: of its trial.
            sources: its losses; those of the side of the text that the others are measured on count.
        """
        found = {}
        for text in self.texts:
            base, own = text.models[0], sources.get(text.name)
            if own is None or base.loss is None or not own.finite:
                continue
            tested = text.measure == "test"
            if tested and not own.test_losses:
                continue
            loss = fmean(own.test_losses) if tested else own.eval_loss
            bits = own.test_bits_per_byte if tested else own.bits_per_byte
            found[text.name] = OnText(model, number, loss, bits, loss - base.loss)
        return found

    def plain_of_run(self, sources: Sources) -> dict[str, dict[str, float | None]]:
        """`of_run` as plain JSON values: loss, bits per byte and difference by the name of a text."""
        names = ("loss", "bits_per_byte", "difference")
        found = self.of_run("grown", 0, sources).items()
        return {text: {name: getattr(each, name) for name in names} for text, each in found}

    def of_runs(self, runs: Mapping[Model, tuple[int, Sources]]) -> BySource:
        """The base beside these runs alone, one of each model, in place of the answer's.

        Args:
            runs: by what they are, the number of the trial and its losses.
        """
        each = [self.of_run(model, *run) for model, run in runs.items()]
        texts = [
            replace(text, models=(text.models[0], *(run[text.name] for run in each if text.name in run)))
            for text in self.texts
        ]
        return replace(self, texts=tuple(texts), compared=0)

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
