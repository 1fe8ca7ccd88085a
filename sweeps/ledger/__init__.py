"""The ledger: an Optuna study that says what was asked, who runs it, what it reported, how it ended.

It is the one authority. Plain Optuna opens it, and shows every trial with its state, parameters and
intermediate values; a trial enqueued there is run at the next resume. Everything that Optuna has no place for
stands in user attributes whose names begin with `sweeps:`. What is asked next and what is stopped early are
Optuna's samplers and pruners, asked here over what the study holds. What is named here is imported when it
is used: importing Optuna takes longer than a command that reads a file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tli.lazy import lazy

if TYPE_CHECKING:
    from sweeps.ledger.reading import LedgerView, is_readable, read_file
    from sweeps.ledger.search.forecast import Curve, Forecaster
    from sweeps.ledger.search.observations import forecaster_of
    from sweeps.ledger.store.looking import look
    from sweeps.ledger.store.storage import (
        fresh_seeds,
        most_fresh_seeds,
        open_storage,
        refuse_foreign,
        spec_conflicts,
        stored_spec,
    )
    from sweeps.ledger.study import Ledger

__all__ = [
    "Curve",
    "Forecaster",
    "Ledger",
    "LedgerView",
    "forecaster_of",
    "fresh_seeds",
    "is_readable",
    "look",
    "most_fresh_seeds",
    "open_storage",
    "read_file",
    "refuse_foreign",
    "spec_conflicts",
    "stored_spec",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "Curve": "sweeps.ledger.search.forecast",
            "Forecaster": "sweeps.ledger.search.forecast",
            "Ledger": "sweeps.ledger.study",
            "LedgerView": "sweeps.ledger.reading",
            "forecaster_of": "sweeps.ledger.search.observations",
            "fresh_seeds": "sweeps.ledger.store.storage",
            "is_readable": "sweeps.ledger.reading",
            "look": "sweeps.ledger.store.looking",
            "most_fresh_seeds": "sweeps.ledger.store.storage",
            "open_storage": "sweeps.ledger.store.storage",
            "read_file": "sweeps.ledger.reading",
            "refuse_foreign": "sweeps.ledger.store.storage",
            "spec_conflicts": "sweeps.ledger.store.storage",
            "stored_spec": "sweeps.ledger.store.storage",
        },
    )
