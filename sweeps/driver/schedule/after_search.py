"""What runs once a search is over, in this order: replicates, matched controls, ladder rungs, evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweeps.driver.schedule.controls import control_settings
from sweeps.ledger import Ledger, LedgerView
from sweeps.records import Assignment, Role, TrialRecord
from sweeps.results.evaluated import base_due, runs_due
from sweeps.results.finalists import replicates_due
from sweeps.results.ladder import rungs_due
from sweeps.results.looks import look_of
from sweeps.results.matched import matched_due
from sweeps.spec import Spec


@dataclass(frozen=True)
class Due:
    """A run of another trial's settings, or of the control's, that has to be asked for."""

    phase: str
    role: Role
    settings: Mapping[str, Any]
    of: int | None  # number of the trial; None for the base
    params: Mapping[str, Any] | None = field(default=None)
    evaluation: Mapping[str, Any] | None = field(default=None)
    steps: int | None = field(default=None)

    def start(self, ledger: Ledger) -> Assignment:
        """Ask for it."""
        return ledger.start(
            self.role,
            self.settings,
            params=self.params,
            replicate_of=self.of,
            evaluation=self.evaluation,
            steps=self.steps,
        )


def after_search(ledger: Ledger, spec: Spec, unfinished: Sequence[TrialRecord]) -> Due | None:
    """The next of these runs; None where there is none yet, or no more.

    Args:
        ledger: of the sweep.
        spec: of the sweep.
        unfinished: trials that have not ended, all of them after the search.
    """
    # There is no winner before all replicates have ended.
    due = _replicate(ledger, spec)
    if due is None and all(record.role is Role.MATCHED for record in unfinished):
        due = _matched(ledger, spec)
    if due is None and all(record.role is Role.RUNG for record in unfinished):
        due = _rung(ledger, spec)
    if due is None and all(record.role is Role.EVALUATION for record in unfinished):
        due = _evaluation(ledger, spec)
    return due


def matched_controls(ledger: LedgerView, spec: Spec) -> list[tuple[int, dict[str, Any]]]:
    """Controls with the FLOPs of a winner that are still to be run: its number, and their settings.

    Args:
        ledger: of the sweep.
        spec: of it, as it is wanted now: by another margin another trial may be the winner.
    """
    if not spec.control.matched:
        return []
    wanted, records = spec.finalists, ledger.trials()
    return matched_due(
        records,
        wanted.top,
        wanted.seeds,
        spec.spread,
        depth=ledger.depth,
        margin=wanted.margin,
        look=look_of(records, ledger.study.completions),
    )


def _replicate(ledger: Ledger, spec: Spec) -> Due | None:
    wanted, records = spec.finalists, ledger.trials()
    due = replicates_due(records, wanted.top, wanted.seeds, spec.spread, depth=ledger.depth)
    for number, seed in due:
        original = records[number]
        settings = {**original.settings, "seed": seed}
        return Due("finalists", Role.REPLICATE, settings, number, original.params)
    return None


def _matched(ledger: Ledger, spec: Spec) -> Due | None:
    for number, settings in matched_controls(ledger, spec):
        return Due("finalists", Role.MATCHED, settings, number)
    return None


def _rung(ledger: Ledger, spec: Spec) -> Due | None:
    records = ledger.trials()
    due = rungs_due(records, spec.budget.ladder, spec.finalists.top, spec.spread, depth=ledger.depth)
    for number, settings in due:
        return Due("ladder", Role.RUNG, settings, number, records[number].params)
    return None


def _evaluation(ledger: Ledger, spec: Spec) -> Due | None:
    """The base, or a run without scores that compare; it is trained again, also where its model is kept."""
    records, asked = ledger.trials(), spec.evaluation.asked
    if base_due(spec, records):
        settings = control_settings(spec.trial.model_dump())
        return Due("evaluation", Role.EVALUATION, settings, None, None, asked, steps=0)
    for run in runs_due(spec, records, ledger.depth):
        return Due("evaluation", Role.EVALUATION, run.settings, run.number, run.params, asked)
    return None
