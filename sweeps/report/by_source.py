"""Losses by text as a table, and in a line where something was forgotten."""

from __future__ import annotations

from sweeps.report.finalists import digits_of
from sweeps.results.paired import Difference
from sweeps.results.text_losses import BySource, OnText, TextLosses
from sweeps.results.verdict import Verdict
from sweeps.text import digits_apart, indented, table

_MODELS = {
    "base": "the base, untrained",
    "control": "the original",
    "matched": "at equal compute",
    "grown": "the best grown",
}


def by_source_text(verdict: Verdict) -> list[str]:
    """Every text with the base, the original trained on and the best grown model on it."""
    found = verdict.sources
    if found is None:
        return []
    digits = _digits(found)
    rows = [
        _row(text, each, digits, first=each is text.models[0]) for text in found.texts for each in text.models
    ]
    lines = table(("text", "model", "loss", "bits/byte", "less the base"), rows, left={0, 1})
    return ["By source", *(f"  {line}" for line in lines), *indented(_legend(found))]


def forgotten_line(found: BySource | None) -> str | None:
    """`general: trial 7 +0.0512 (95 %: +0.0402 to +0.0622), the original +0.0301`; None where nothing is."""
    if found is None or not found.worse("grown"):
        return None
    digits = _digits(found)
    parts = []
    for name, each in found.worse("grown"):
        assert each.difference is not None, "it is shown to be worse"
        ends = f"{each.low:+.{digits}f} to {each.high:+.{digits}f}"
        original = found.on(name, "control")
        shown = "" if original is None or original.says == "worse" else ", not shown"
        beside = "" if original is None else f"; the original {original.difference or 0.0:+.{digits}f}{shown}"
        parts.append(f"{name} {each.difference:+.{digits}f} (95 %: {ends}){beside}")
    trial = found.worse("grown")[0][1].trial
    return f"trial {trial} loses more than the base, nats a token: {', '.join(parts)}"


# -- inside ----------------------------------------------------------------------------------------


def _digits(found: BySource) -> int:
    every = [each for text in found.texts for each in text.models if each.difference is not None]
    return digits_of([Difference(each.difference or 0.0, each.half_width, each.n) for each in every])


def _row(text: TextLosses, each: OnText, digits: int, *, first: bool) -> tuple[str, ...]:
    losses = digits_apart([other.loss for other in text.models if other.loss is not None])
    number = "" if each.trial is None else f", trial {each.trial}"
    return (
        text.name if first else "",
        f"{_MODELS[each.model]}{number}",
        "-" if each.loss is None else f"{each.loss:.{losses}f}",
        "-" if each.bits_per_byte is None else f"{each.bits_per_byte:.4f}",
        _less_the_base(each, digits),
    )


def _less_the_base(each: OnText, digits: int) -> str:
    if each.difference is None:
        return ""
    spread = f" ± {each.half_width:.{digits}f}" if each.half_width is not None else ""
    return f"{each.difference:+.{digits}f}{spread}{_MARKS[each.says or 'not shown']}"


_MARKS = {"worse": "  worse", "better": "  better", "not shown": ""}


def _legend(found: BySource) -> str:
    weights = " + ".join(f"{weight:.3g} x {name}" for name, weight in found.objective.items())
    only = [text.name for text in found.texts if text.weight is None]
    alone = f" {', '.join(only)}: only measured, never trained on." if only else ""
    measures = sorted({text.measure for text in found.texts})
    intervals = (
        f"Differences are over fresh seeds and blocks of test text, with 95 % intervals for all "
        f"{found.compared} together (Bonferroni); worse or better where 0 is outside."
        if "test" in measures
        else "No run under a fresh seed has ended: validation loss, without intervals."
    )
    return (
        f"Losses in nats per token of {' and '.join(measures)} text; bits per byte leave special tokens out. "
        f"Minimised: {weights}.{alone} {intervals}"
    )
