"""The answer of a sweep from its trials, with all that else is known of it: its text, its study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sweeps.checks.text_amounts import kept_text_notes
from sweeps.folders import Folders
from sweeps.records import TrialRecord
from sweeps.results.by_source import by_source
from sweeps.results.searched import searched_in
from sweeps.results.selection import verdict
from sweeps.results.verdict import Verdict
from sweeps.spec import Spec

if TYPE_CHECKING:
    from sweeps.ledger import LedgerView


def answered(spec: Spec, folders: Folders, ledger: LedgerView, records: Sequence[TrialRecord]) -> Verdict:
    """The answer if these were all trials of a sweep.

    Args:
        spec: of the sweep.
        folders: where everything of it lies.
        ledger: its study.
        records: its trials, as they are or were.
    """
    wanted, study = spec.finalists, ledger.study
    found = verdict(
        records,
        top=wanted.top,
        seeds=wanted.seeds,
        per=spec.spread,
        depth=ledger.depth,
        margin=wanted.margin,
        searched=searched_in(
            spec,
            records,
            study.search_answers,
            study.completions,
            earlier=ledger.spec.before_fresh_seeds,
        ),
    )
    notes = kept_text_notes(spec, folders.tokens, study.input_digests.get("text", ""))
    sources = by_source(spec.data, study.base_sources, records, found)
    front = found.front
    if spec.objective.front_task is not None:
        from sweeps.results.score_front import score_front  # what reads scores of documents loads slowly

        front = score_front(found, folders, ledger, records)
    return replace(found, warnings=(*found.warnings, *notes), sources=sources, front=front)
