"""Runs that score a model again that has no scores: after a change of the spec's evaluation, and the base."""

from __future__ import annotations

from collections.abc import Sequence

from sweeps.driver.schedule.control import control_settings
from sweeps.ledger import Ledger
from sweeps.records import Assignment, Role, TrialRecord
from sweeps.results.evaluated import base_due, runs_due


def evaluation_run(ledger: Ledger, records: Sequence[TrialRecord]) -> Assignment | None:
    """Write down and hand out the next of them, if there is one.

    A run is trained again, as it was, for no model of it was kept.
    """
    spec = ledger.spec
    asked = spec.evaluation.asked
    if base_due(spec, records):
        settings = control_settings(spec.trial.model_dump())
        return ledger.start(Role.EVALUATION, settings, evaluation=asked, steps=0)
    for record in runs_due(spec, records, depth=ledger.depth):
        return ledger.start(
            Role.EVALUATION,
            record.settings,
            params=record.params,
            replicate_of=record.number,
            evaluation=asked,
        )
    return None
