"""Checks of the section `data` that a schema cannot make: which texts there are, and how far they go."""

from __future__ import annotations

from collections.abc import Iterator

from sweeps.spec.data_settings import OF_ONE, SINGLE, DataSettings
from sweeps.spec.settings import TrialSettings
from sweeps.wording import Fault, formatted


def data_faults(data: DataSettings, trial: TrialSettings) -> Iterator[Fault]:
    """No text or two meanings of it, and too little text to fill one held-out sequence or one batch."""
    yield from _which(data)
    yield from _names(data)
    yield from _untrained(data, trial.recipe.tokens)
    least = trial.recipe.batch_tokens + 1
    if data.max_tokens is not None and data.max_tokens < least and not data.sources:
        expected = f"at least {least:,}, one batch and the token behind it"
        involves = ("trial.recipe.batch_tokens",)
        yield Fault("data.max_tokens", f"{data.max_tokens:,}", expected, "null", involves)
    least = data.sequence_length + 1
    for name, each in data.sources.items():
        if each.max_tokens is not None and each.max_tokens < least:
            expected = f"at least {least:,}, one sequence and the token behind it"
            place = f"data.sources.{name}.max_tokens"
            yield Fault(place, f"{each.max_tokens:,}", expected, "null", ("data.sequence_length",))
    for setting, sequences in (("eval_tokens", 64), ("test_tokens", 512)):
        tokens, needed = getattr(data, setting), data.texts * data.sequence_length
        if tokens < needed:
            each_text = f" for each of {data.texts} texts" if data.texts > 1 else ""
            expected = f"at least one sequence of {data.sequence_length} tokens{each_text}"
            among = ("data.sequence_length", "data.sources", "data.measured_only")
            yield Fault(f"data.{setting}", str(tokens), expected, str(sequences * needed), among)


def _untrained(data: DataSettings, tokens: int) -> Iterator[Fault]:
    """Texts of which no trial takes a whole sequence: those are measured, and not trained on."""
    most = max((each.weight for each in data.sources.values()), default=1.0)
    whole = sum(each.weight / most for each in data.sources.values())
    for name, each in data.sources.items():
        found = each.weight / most / whole * tokens
        if found < data.sequence_length:
            got = f"{each.weight:g}, by which a trial of {tokens:,} tokens takes {found:.2g} of it"
            expected = (
                f"at least one sequence of {data.sequence_length} tokens, or the text under measured_only"
            )
            involves = ("trial.recipe.tokens", "data.sequence_length")
            yield Fault(f"data.sources.{name}.weight", got, expected, f"{most:g}", involves)


def _which(data: DataSettings) -> Iterator[Fault]:
    """One text, or several: not none, and not both."""
    if not data.sources:
        if data.source is None:
            expected = "a text: builtin:stdlib, files by name or glob, or a dataset"
            remedy = "source: builtin:stdlib, or data.sources"
            yield Fault("data.source", "nothing", expected, remedy, ("data.sources",))
        return
    first = next(iter(data.sources))
    for name in OF_ONE:
        value, default = getattr(data, name), DataSettings.model_fields[name].default
        if value != default:
            expected = "nothing here, as each of data.sources has its own"
            remedy = f"data.sources.NAME.{name}" if name != "source" else f"data.sources.{first}.source"
            yield Fault(f"data.{name}", formatted(value), expected, remedy, ("data.sources",))


def _names(data: DataSettings) -> Iterator[Fault]:
    """Losses are reported by name: each is that of one text."""
    trained = list(data.sources) or [SINGLE]
    for name in data.measured_only:
        if name in trained:
            got = f"the name {name!r}, which a text that is trained on has"
            yield Fault(f"data.measured_only.{name}", got, "a name of its own", f"{name}_2")
