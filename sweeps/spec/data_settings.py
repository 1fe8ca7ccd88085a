"""The section `data` of a spec: one text, or several with weights, and text that is only measured."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from sweeps.spec.section import Settings, name_of, setting
from tli.data import settings
from tli.data.packing import PACKINGS, Packing
from tli.data.portions import MEASURED_SHARE, Portion

SINGLE = "source"  # the name of the text of `data.source`, where there are others beside it
# Settings of one text, which each of several has of its own.
OF_ONE = (
    "source",
    "heldout",
    "text_field",
    "split",
    "configuration",
    "revision",
    "heldout_split",
    "heldout_configuration",
    "heldout_revision",
    "max_tokens",
)
_SOURCE = "builtin:stdlib, files by name or glob, or a dataset"
_HELDOUT = "files by name or glob, a dataset, or null"
_SUBSET = "a configuration (subset) on the hub, or null"
_REVISION = "a commit, tag or branch on the hub, or null"
_MOST = "a whole number of at least 1 (training tokens that are read), or null for all"
_EXAMPLE = {
    "web": {"source": "text/*.jsonl", "weight": 0.7},
    "code": {"source": "code/*.jsonl", "weight": 0.3},
}


class MeasuredSettings(Settings):
    """One text that is only measured; a text in its place is its source."""

    source: str = setting(_SOURCE, example="builtin:stdlib", min_length=1)
    text_field: str = setting("the name of a column", "text", min_length=1)
    split: str = setting("the name of a split", "train", min_length=1)
    configuration: str | None = setting(_SUBSET, None, min_length=1)
    revision: str | None = setting(_REVISION, None, min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _in_short(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value


class SourceSettings(MeasuredSettings):
    """One of several texts that are trained on; a text in its place is its source, of weight 1."""

    weight: float = setting("a finite number above 0 (beside the other weights)", 1.0, gt=0)
    heldout: str | None = setting(_HELDOUT, None, min_length=1)
    heldout_split: str | None = setting("the name of a split, or null for split", None, min_length=1)
    heldout_configuration: str | None = setting(_SUBSET, None, min_length=1)
    heldout_revision: str | None = setting(_REVISION, None, min_length=1)
    max_tokens: int | None = setting(_MOST, None, ge=1)


class DataSettings(Settings):
    """The text; of a single one, the fields of `tli.data.settings.DataSettings`."""

    source: str | None = setting(
        f"{_SOURCE}; null beside sources", None, example="builtin:stdlib", min_length=1
    )
    heldout: str | None = setting(_HELDOUT, None, min_length=1)
    heldout_fraction: float = setting("a share between 0 and 1", 0.05, gt=0, lt=1)
    text_field: str = setting("the name of a column", "text", min_length=1)
    split: str = setting("the name of a split", "train", min_length=1)
    configuration: str | None = setting(_SUBSET, None, min_length=1)
    revision: str | None = setting(_REVISION, None, min_length=1)
    heldout_split: str | None = setting("the name of a split, or null for split", None, min_length=1)
    heldout_configuration: str | None = setting(_SUBSET, None, min_length=1)
    heldout_revision: str | None = setting(_REVISION, None, min_length=1)
    max_tokens: int | None = setting(_MOST, None, ge=1)
    packing: Packing = name_of(PACKINGS, "stream")
    sequence_length: int = setting("a whole number of at least 2", 128, ge=2)
    eval_tokens: int = setting("a whole number of at least one sequence a text", 16_384, ge=1)
    test_tokens: int = setting("a whole number of at least one sequence a text", 65_536, ge=1)
    sources: dict[str, SourceSettings] = setting(
        "a mapping of names to texts with weights", {}, example=_EXAMPLE
    )
    measured_only: dict[str, MeasuredSettings] = setting(
        "a mapping of names to texts", {}, example={"general": "builtin:stdlib"}
    )

    @property
    def named(self) -> bool:
        """Whether there are several texts, whose losses are reported each."""
        return bool(self.sources or self.measured_only)

    @property
    def texts(self) -> int:
        """How many texts the held-out tokens of a measurement are divided between."""
        return max(1, len(self.sources)) + len(self.measured_only)

    @property
    def shown(self) -> str:
        """The text that is trained on, in words."""
        each = (f"{name}: {source.source}" for name, source in self.sources.items())
        return self.source or ", ".join(each)

    def to_tli(self) -> settings.DataSettings:
        """A single text, as `tli` takes it."""
        return settings.DataSettings(**self.model_dump(exclude={"sources", "measured_only"}))

    def portions(self) -> tuple[Portion, ...]:
        """All texts as `tli` takes them: those that are trained on, then those that are only measured."""
        common = self.model_dump(exclude={*OF_ONE, "sources", "measured_only"})
        trained = [
            Portion(name, _text(each, common), each.weight, f"data.sources.{name}")
            for name, each in self.sources.items()
        ] or [Portion(SINGLE, self.to_tli())]
        whole = {**common, "heldout_fraction": MEASURED_SHARE}
        measured = (
            Portion(name, _text(each, whole), None, f"data.measured_only.{name}")
            for name, each in self.measured_only.items()
        )
        return (*trained, *measured)


def _text(given: MeasuredSettings, common: dict[str, Any]) -> settings.DataSettings:
    return settings.DataSettings(**given.model_dump(exclude={"weight"}), **common)
