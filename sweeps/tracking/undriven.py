"""A sweep that no process drives, held so while MLflow is told of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sweeps.errors import LedgerHeldError
from sweeps.ownership import claimed, refuse_others
from sweeps.results.sweep import Sweep


@contextmanager
def undriven(sweep: Sweep) -> Iterator[None]:
    """Keep drivers away from a sweep.

    Raises:
        LedgerHeldError: a process drives it, here or on another machine.
        SpecError: the folder is another study's.
    """
    ledger, folders = sweep.ledger, sweep.folders
    with folders.driver_lock():
        if ledger.driver is not None:  # from another machine or folder
            raise LedgerHeldError(f"{ledger.spec.name} is being driven by {ledger.driver}; wait for it")
        refuse_others(folders, ledger.study.study_uuid)
        with claimed(folders, ledger.study.study_uuid):
            yield
