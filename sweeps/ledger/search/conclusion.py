"""What is kept of a search that is over: estimates, the best of each range, what stopping may have missed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sweeps.ledger.search.estimates import SearchModel, drawn, exists, search_model, surface
from sweeps.ledger.search.evidence import stopping_evidence
from sweeps.ledger.search.features import Features
from sweeps.ledger.search.model import Model
from sweeps.ledger.search.threads import one_thread
from sweeps.ledger.search.valleys import valleys
from sweeps.records import TrialRecord
from sweeps.search_answers import Best, SearchAnswers, ended_trials
from sweeps.spec import Spec
from sweeps.spec.equivalence import value_at

_LOOKED_AT = 1024  # settings over the whole space, of which the best ones are taken
_CELLS = 8  # different combinations of choices among these
_ALONG = 49  # points of a range
_OPEN = 0.05  # chance of being within the margin of the best, above which a value may be as good


def search_answers(spec: Spec, records: Sequence[TrialRecord], margin: float) -> SearchAnswers:
    """By the model of the search.

    Args:
        spec: of the sweep.
        records: all its trials.
        margin: how near to the best counts as good, in nats per token.
    """
    known = search_model(spec, records)
    found = surface(spec, records, margin=margin, known=known)
    values = {
        path: {value: replace(each, chance=found.chances[path][value]) for value, each in by_value.items()}
        for path, by_value in found.values.items()
    }
    best = best_of_ranges(spec, records, margin=margin, known=known)
    stopping = stopping_evidence(records)
    return SearchAnswers(
        ended_trials(records), values, found.pairs, best, stopping, valleys(spec, records, known)
    )


@one_thread
def best_of_ranges(
    spec: Spec,
    records: Sequence[TrialRecord],
    *,
    margin: float = 0.002,
    seed: int = 0,
    known: SearchModel | None = None,
) -> dict[str, Best]:
    """Where the lowest loss lies on each range, the other settings being among the best ones of the model.

    Functions are drawn from the model's posterior along the range at several combinations of choices, since
    which of them is the best is not known either. Outside the interval the chance is 5 % at most that the
    lowest loss of a value is within the margin of the lowest of all.

    Args:
        spec: of the sweep.
        records: its trials.
        margin: how near to the best counts as good, in nats per token.
        seed: of the draws.
        known: the model of these trials, where it was fitted before.
    """
    known = known or search_model(spec, records)
    features, searched, model = known.features, known.searched, known.model
    if model is None:
        return {}
    chosen = _best(features, model)
    found = {}
    for column in features.columns:
        inside = [params for params in chosen if exists(features, column.path, params)]
        if column.choice or not inside:
            continue
        along = np.linspace(0.0, 1.0, _ALONG)
        values = [column.value(float(place)) for place in along]
        rows = features.rows([{**params, column.path: value} for params in inside for value in values])
        lowest = drawn(model, rows, seed).reshape(-1, len(inside), _ALONG).min(axis=1)
        chances = (lowest <= lowest.min(axis=1, keepdims=True) + margin).mean(axis=0)
        opened = along[chances > _OPEN]
        low, high = float(opened.min()), float(opened.max())
        middle = values[int(lowest.mean(axis=0).argmin())]
        tried = len({repr(value_at(r.settings, column.path)) for r in searched if column.path in r.params})
        found[column.path] = Best(middle, column.value(low), column.value(high), high - low, tried)
    return found


def _best(features: Features, model: Model) -> list[Mapping[str, Any]]:
    """The settings with the lowest mean in the best combinations of choices, among many that are drawn."""
    chance = np.random.default_rng(0)
    params: list[dict[str, Any]] = []
    for _ in range(_LOOKED_AT):
        one: dict[str, Any] = {}
        for column in features.columns:
            if exists(features, column.path, one):
                ends, place = column.ends, float(chance.random())
                one[column.path] = ends[int(place * len(ends))] if column.choice else column.value(place)
        params.append(one)
    best: dict[str, Mapping[str, Any]] = {}
    for place in model.posterior(features.rows(params))[0].argsort(kind="stable"):
        one = params[int(place)]
        best.setdefault(repr([one.get(column.path) for column in features.columns if column.choice]), one)
        if len(best) == _CELLS:
            break
    return list(best.values())
