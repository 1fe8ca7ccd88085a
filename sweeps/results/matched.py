"""Compute-matched controls: the original trained with the FLOPs of the winner; which are still to be run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sweeps.records import Role, TrialRecord
from sweeps.results.candidates import matched_runs, matched_steps
from sweeps.results.finalists import control_of, finalists, replicates_due
from sweeps.results.winner import compared
from sweeps.spec.equivalence import replaced


def matched_due(
    records: Sequence[TrialRecord],
    top: int,
    seeds: int,
    per: str | None = None,
    *,
    depth: int | None = None,
    margin: float | str | None = None,
    look: int = 1,
) -> list[tuple[int, dict[str, Any]]]:
    """Compute-matched controls still to be created, as (number of a grown trial, settings with the seed).

    The best control's settings with as many tokens, in whole batches, as the winner's FLOPs pay for; one run
    under each fresh seed. None where the winner costs no more than the control, or a cost is not known. One
    that exists in any state is not due again, also where it was made for an earlier winner of the same cost:
    then the others join it. Ask once all replicates have ended.
    """
    best = compared(records, top=top, seeds=seeds, per=per, depth=depth, margin=margin, look=look).winner
    number = best.number if best is not None and best.fresh else None
    winner = next((record for record in records if record.number == number), None)
    control = control_of(records)
    if winner is None or control is None or (steps := matched_steps(winner, control)) <= control.steps:
        return []
    tokens = steps * control.settings["recipe"]["batch_tokens"]
    runs = matched_runs(winner, records, control)
    of = next((run.replicate_of for run in runs if run.replicate_of is not None), winner.number)
    existing = [run.settings for run in runs]
    fresh = range(control.seed + 1, control.seed + seeds + 1)
    wanted = [replaced(control.settings, {"recipe.tokens": tokens, "seed": seed}) for seed in fresh]
    return [(of, settings) for settings in wanted if settings not in existing]


def runs_due(
    records: Sequence[TrialRecord],
    top: int,
    seeds: int,
    per: str | None = None,
    *,
    matched: bool,
    depth: int | None = None,
) -> int:
    """The most runs under fresh seeds still to be created, once the search is over.

    Args:
        records: of the sweep.
        top: how many finalists there are.
        seeds: fresh ones of each.
        per: the setting of which each value has its own finalists, or None.
        matched: whether there are compute-matched controls.
        depth: layers of the base, where they are known.
    """
    due = len(replicates_due(records, top, seeds, per, depth=depth))
    control = control_of(records)
    if not matched or control is None:
        return due
    chosen = finalists(records, top, per, depth=depth)
    dearer = any(matched_steps(record, control) > control.steps for record in chosen)
    return due + max(0, seeds * dearer - sum(record.role is Role.MATCHED for record in records))


def spends_more(winner: TrialRecord, control: TrialRecord) -> bool:
    """Whether it spends more FLOPs than the control, to a batch; also where a cost is not known."""
    steps = matched_steps(winner, control)
    return steps == 0 or steps > control.steps
