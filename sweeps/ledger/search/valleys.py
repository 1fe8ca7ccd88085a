"""The valley of the learning rate for each K: the lowest loss along the rate, by the model of a search."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from sweeps.ledger.search.estimates import SearchModel, exists, search_model
from sweeps.ledger.search.model import RATE
from sweeps.ledger.search.threads import one_thread
from sweeps.records import TrialRecord
from sweeps.search_answers import Along, Value
from sweeps.spec import Spec

_K = "injection.k"
_ALONG = 41  # rates
_ACROSS = 9  # points of each other range
_CELLS = 64  # combinations of the other choices
_MOST = 8  # values of K
_TWO_SIDED = 1.96  # standard deviations of a 95 % interval


@one_thread
def valleys(
    spec: Spec, records: Sequence[TrialRecord], known: SearchModel | None = None
) -> dict[Value, Along]:
    """By K, over the range of rates that was searched.

    Args:
        spec: of the sweep.
        records: its trials.
        known: the model of these trials, where it was fitted before.
    """
    known = known or search_model(spec, records)
    features, model = known.features, known.model
    columns = {column.path: column for column in features.columns}
    if _K not in columns or RATE not in columns or not columns[_K].choice or columns[RATE].choice:
        return {}
    if model is None:
        return {}
    rates = [float(columns[RATE].value(float(place))) for place in np.linspace(0.0, 1.0, _ALONG)]
    others = [column for column in features.columns if column.path not in (_K, RATE)]
    across = [
        column.ends if column.choice else [column.value(float(u)) for u in np.linspace(0.0, 1.0, _ACROSS)]
        for column in others
    ]
    found: dict[Value, Along] = {}
    for k in columns[_K].ends[:_MOST]:
        cells: list[dict[str, Any]] = []
        for values in itertools.islice(itertools.product(*across), _CELLS * _ACROSS):
            whole = {_K: k, **dict(zip([column.path for column in others], values, strict=True))}
            cells.append({path: value for path, value in whole.items() if exists(features, path, whole)})
        cells = list({repr(cell): cell for cell in cells}.values())
        rows = features.rows([{**cell, RATE: rate} for cell in cells for rate in rates])
        means, deviations = (each.reshape(len(cells), _ALONG) for each in model.posterior(rows))
        best, place = means.argmin(axis=0), np.arange(_ALONG)
        mean, spread = means[best, place], deviations[best, place]
        losses = model.scale.losses(mean)
        above = model.scale.losses(mean + _TWO_SIDED * spread) - losses
        found[k] = Along(
            tuple(rates),
            tuple(round(float(each), 6) for each in losses),
            tuple(round(float(each), 6) for each in above),
        )
    return found
