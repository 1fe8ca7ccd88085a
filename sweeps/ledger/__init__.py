"""The ledger: an Optuna study that says what was asked, who runs it, what it reported, how it ended.

It is the one authority. Plain Optuna opens it, and shows every trial with its state, parameters and
intermediate values; a trial enqueued there is run at the next resume. Everything that Optuna has no place for
stands in user attributes whose names begin with `sweeps:`. What is asked next and what is stopped early are
Optuna's samplers and pruners, asked here over what the study holds.
"""

from __future__ import annotations

from sweeps.ledger.store.looking import look
from sweeps.ledger.store.storage import open_storage, refuse_foreign, spec_conflicts, stored_spec
from sweeps.ledger.study import Ledger

__all__ = ["Ledger", "look", "open_storage", "refuse_foreign", "spec_conflicts", "stored_spec"]
