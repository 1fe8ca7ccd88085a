"""Compute-matched controls: the original trained with the FLOPs of the winner; which are still to be run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sweeps.records import Role, TrialRecord
from sweeps.results.finalists import control_of, finalists, flops_per_token, replicates_due
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
    """Compute-matched controls still to be created, as (number of the winner, settings with the seed).

    The best control's settings with as many tokens, in whole batches, as the winner's FLOPs pay for; one run
    under each fresh seed. None where the winner costs no more than the control, or a cost is not known. One
    that exists in any state is not due again. Ask once all replicates have ended.
    """
    best = compared(records, top=top, seeds=seeds, per=per, depth=depth, margin=margin, look=look).winner
    number = best.number if best is not None and best.fresh else None
    winner = next((record for record in records if record.number == number), None)
    control = control_of(records)
    if winner is None or control is None or (steps := matched_steps(winner, control)) <= control.steps:
        return []
    tokens = steps * control.settings["recipe"]["batch_tokens"]
    existing = [r.settings for r in records if r.role is Role.MATCHED and r.replicate_of == winner.number]
    fresh = range(control.seed + 1, control.seed + seeds + 1)
    wanted = [replaced(control.settings, {"recipe.tokens": tokens, "seed": seed}) for seed in fresh]
    return [(winner.number, settings) for settings in wanted if settings not in existing]


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


def matched_steps(winner: TrialRecord, control: TrialRecord) -> int:
    """The steps that the control makes with the FLOPs that the winner spends; 0 where a cost is not known."""
    theirs, own = flops_per_token(winner), flops_per_token(control)
    return round(control.steps * theirs / own) if theirs and own else 0
