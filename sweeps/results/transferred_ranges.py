"""What becomes of each searched setting where a sweep is repeated over a larger sibling of its base.

The rule for learning rates is that of maximal update parametrisation for matrices between hidden states:
with Adam the best rate goes with 1 / width (arXiv 2203.03466), and with 1 / sqrt(depth) of a residual stack
(arXiv 2310.02244). Both were derived for training from scratch; a model that is trained on need not follow
them whole. So the low end of a range takes the whole factor, and the high end its square root.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sweeps.records import TrialRecord
from sweeps.results.setting_answers import SIDES, SettingAnswer, worse_where
from sweeps.results.setting_words import beside_the_best
from sweeps.results.verdict import Verdict
from sweeps.spec import Range, Spec
from sweeps.spec.equivalence import value_at
from sweeps.text import short_value, these
from tli.models.base import Facts

RATES = ("recipe.learning_rate", "recipe.injected_learning_rate")
_BY_DEPTH = "injection.m"  # layers that are dropped, which go with the depth
_NARROWEST = 1.05  # between the ends of a range of rates


@dataclass(frozen=True)
class Decision:
    """What becomes of one searched setting."""

    path: str
    range: Range | None  # None: it is no longer searched
    value: Any  # of the new baseline
    comments: tuple[str, ...]  # the rule, and its evidence


def decided_settings(
    spec: Spec, verdict: Verdict, records: Sequence[TrialRecord], small: Facts, large: Facts, factor: float
) -> Iterator[Decision]:
    """One for each searched setting, in their order.

    Args:
        spec: of the sweep.
        verdict: of it, with a best grown model.
        records: its trials.
        small: sizes of its base.
        large: of the larger one.
        factor: of learning rates, by the whole rule.
    """
    assert verdict.chosen is not None
    answers = {each.path: each for each in verdict.settings}
    depths = large.depth / small.depth
    for path, wanted in spec.search.items():
        own = value_at(verdict.chosen.settings, path)
        answer = answers.get(path)
        if path in RATES:
            yield _rate(path, wanted, own, answer, factor)
            continue
        values, narrowed = _kept_values(wanted, answer)
        evidence = [*_evidence(path, answer, records)]
        if path == _BY_DEPTH:
            values = [round(each * depths) for each in values]
            own = round(own * depths) if isinstance(own, int) else own
            evidence.append(f"Layers that are dropped go with the depth: times {depths:.3g}.")
        if path == "injection.k":
            values = [each for each in values if each is None or each <= large.depth]
        kept = _range(wanted, values, narrowed=narrowed or path == _BY_DEPTH)
        yield Decision(path, kept, own if kept or not values else values[0], tuple(evidence))


def _rate(path: str, wanted: Range, own: Any, answer: SettingAnswer | None, factor: float) -> Decision:
    """A rate's range: the found one, or the whole one that was searched, by the rule."""
    numbers = [each for each in wanted.ends if isinstance(each, int | float)]
    low, high = (min(numbers), max(numbers)) if numbers else (own, own)
    said = "It was not answered, so the whole range that was searched stays."
    if answer is not None and answer.reason is None:
        if answer.between is not None:
            low, high = _found_ends(answer, (low, high))
            said = f"{short_value(answer.value)} was found; {worse_where(answer)}."
        elif answer.value is not None:
            good = [answer.value, *answer.as_good, *(e.value for e in answer.values if e.says == "no better")]
            low, high = min(good), max(good)
            said = f"{short_value(answer.value)} was found{_others(answer)}."
    whole, half = sorted((factor, math.sqrt(factor)))
    ends = [rounded(low * whole), rounded(high * half)]
    rule = f"From {low:.4g} times {whole:.3g} to {high:.4g} times {half:.3g}, by the rule above."
    middle = rounded(float(own) * factor**0.75) if own is not None else None
    if ends[1] < ends[0] * _NARROWEST:
        return Decision(path, None, middle, (said, rule))
    made = Range(log=(ends[0], ends[1]), when=wanted.when)
    if wanted.choice is not None:  # a grid takes choices alone
        between = rounded(math.sqrt(ends[0] * ends[1]))
        made = Range(choice=(ends[0], between, ends[1]), when=wanted.when)
    return Decision(path, made, middle, (said, rule))


def _kept_values(wanted: Range, answer: SettingAnswer | None) -> tuple[list[Any], bool]:
    """The values, or the ends, that are searched again, and whether some were dropped."""
    if answer is None or answer.reason is not None:
        return list(wanted.ends), False
    if answer.between is not None:
        return list(_found_ends(answer, (wanted.ends[0], wanted.ends[-1]))), True
    worse = [each.value for each in answer.values if each.says == "worse"]
    kept = [value for value in wanted.ends if value not in worse]
    return (kept, True) if kept and worse and wanted.choice is not None else (list(wanted.ends), False)


def _found_ends(answer: SettingAnswer, searched: tuple[Any, Any]) -> tuple[Any, Any]:
    """Outside of which values are worse; on a side where none was tried, the end of what was searched."""
    assert answer.between is not None
    sides = zip(SIDES, answer.between, searched, strict=True)
    low, high = (wide if side in answer.open_ends else found for side, found, wide in sides)
    return low, high


def _range(wanted: Range, values: Sequence[Any], *, narrowed: bool) -> Range | None:
    """The range over these values; None where one is left."""
    if not narrowed and len(values) == len(wanted.ends):
        return wanted
    unique = list(dict.fromkeys(values))
    if len(unique) < 2:
        return None
    form: dict[str, Any] = {"int_" if wanted.kind == "int" else wanted.kind: tuple(unique)}
    return replace(wanted, **form)


def _evidence(path: str, answer: SettingAnswer | None, records: Sequence[TrialRecord]) -> Iterator[str]:
    """What was found, by which trials."""
    tried = [r.number for r in records if path in r.params and r.value is not None and not r.role.after]
    which = these("trial", tried) if 0 < len(tried) <= 12 else f"{len(tried)} trials"
    by = f" (by the model of {which}, run to their end, and of those that were stopped)"
    if answer is None or answer.reason is not None:
        why = answer.reason if answer is not None else "not tried"
        yield f"Not answered ({why}), so all that was searched stays{by}."
        return
    if answer.between is not None:
        yield f"{short_value(answer.value)} was found; {worse_where(answer)}{by}."
        return
    worse = [short_value(each.value) for each in answer.values if each.says == "worse"]
    dropped = f"; left out, as worse by more than the margin: {', '.join(worse)}" if worse else ""
    short = [short_value(each.value) for each in answer.values if not each.complete and each.tried]
    none = f" No trial with {', '.join(short)} ran to its end." if short else ""
    yield f"{short_value(answer.value)} was found{_others(answer)}{dropped}{by}.{none}"


def _others(answer: SettingAnswer) -> str:
    return f"; {others}" if (others := beside_the_best(answer)) else ""


def rounded(rate: float) -> float:
    """To three figures."""
    return float(f"{rate:.3g}")
