"""What is known of a search beside its trials: its choices, its model's estimates, its limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sweeps.records import TrialRecord
from sweeps.results.looks import look_of
from sweeps.results.margin import margin_before
from sweeps.search_answers import (
    Best,
    Estimate,
    SearchAnswers,
    StoppingEvidence,
    SweepCompletion,
    ended_trials,
)

if TYPE_CHECKING:
    from sweeps.spec import Spec

Estimates = Mapping[str, Mapping[Any, Estimate]]  # by dotted path and value


@dataclass(frozen=True)
class Searched:
    """What is known of the search beside its trials.

    `choices` are all values that a path may have, of paths with finitely many; `estimates` are those of a
    model of the search. Without them the best losses are shown and no setting is answered. `stopping` is what
    early stopping may have missed. `rates` is whether learning rates are searched, so that the control needs
    its own; `matched` whether there are to be matched controls. `over` is
    whether a limit of the budget is used up; `look` how often the answer was read, this time included;
    `margin_was` the margin that it was first read with, where that was another; `earlier` whether an earlier
    version ran the sweep, which this one reads alone.
    """

    choices: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    estimates: Estimates = field(default_factory=dict)
    ranges: Mapping[str, Best] = field(default_factory=dict)
    stopping: StoppingEvidence | None = None
    rates: bool = False
    matched: bool = False
    over: bool = False
    look: int = 1
    margin_was: str | None = None
    earlier: bool = False
    ends: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)  # of the searched ranges


def searched_in(
    spec: Spec,
    records: Sequence[TrialRecord],
    found: SearchAnswers | None,
    completions: Sequence[SweepCompletion] = (),
    *,
    earlier: bool = False,
) -> Searched:
    """What is known of a sweep's choices; of its model's answers only those made of these trials.

    Args:
        spec: of the sweep.
        records: its trials.
        found: what the model of the search said last.
        completions: each time that all of it was carried out.
        earlier: whether an earlier version ran it.
    """
    choices = {path: each.choice for path, each in spec.search.items() if each.choice is not None}
    if found is None or found.trials != ended_trials(records):
        found = SearchAnswers(0, {}, {}, {}, None)
    rates, matched = "recipe.learning_rate" in spec.search, spec.control.matched
    last = completions[-1] if completions else None
    return Searched(
        choices,
        found.values,
        found.ranges,
        found.stopping,
        rates=rates,
        matched=matched,
        over=last is not None
        and last.ended_by in spec.budget.limits
        and last.budget == spec.budget.to_json(),
        look=look_of(records, completions),
        margin_was=margin_before(completions, spec.finalists.margin),
        earlier=earlier,
        ends={path: each.ends for path, each in spec.search.items() if each.choice is None},
    )
