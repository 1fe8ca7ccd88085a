"""Candidates: the configurations that are compared, each with its losses by seed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from sweeps.records import Role, TrialRecord
from sweeps.results.finalists import flops_per_token, is_done
from sweeps.results.paired import Difference
from sweeps.task_scores import Aimed


@dataclass(frozen=True)
class Candidate:
    """One configuration and its losses (nats per token) by seed.

    `seed` chose it, so it is in no claim about it; a compute-matched control was chosen by none. All other
    seeds are fresh.
    """

    number: int  # of the trial whose settings these are; of a matched control, its run with the lowest loss
    role: Role
    params: Mapping[str, Any]
    settings: Mapping[str, Any]
    seed: int | None
    losses: Mapping[int, float]  # validation loss after the last step
    test_blocks: Mapping[int, tuple[float, ...]]  # test loss of each block of the text, under fresh seeds
    initial_loss: float | None
    flops_per_token: float | None
    tokens: int | None  # of one run
    failed_seeds: Mapping[int, str]  # reason by seed, of replicates that failed
    open_seeds: tuple[int, ...]  # seeds wanted, neither finished nor failed
    against_control: Difference | None = None  # of test losses under fresh seeds, with its claim's interval
    against_baseline: Difference | None = None  # likewise; None for the baseline itself
    chance_best: float | None = (
        None  # of all that are compared; None with fewer than three shared fresh seeds
    )
    lowest_under: tuple[int, int] | None = (
        None  # of so many shared fresh seeds, those under which it is lowest
    )
    # By seed, on the task that the search goes by; none where it goes by the loss.
    scores: Mapping[int, Aimed] = field(default_factory=dict)

    @property
    def fresh(self) -> dict[int, float]:
        """Validation loss under each seed that did not choose it."""
        return {seed: loss for seed, loss in self.losses.items() if seed != self.seed}

    @property
    def test_losses(self) -> dict[int, float]:
        """Mean test loss by fresh seed."""
        return {seed: fmean(blocks) for seed, blocks in self.test_blocks.items()}

    @property
    def score(self) -> float | None:
        """Mean score over its fresh seeds; under its own seed while there are none; None without a task."""
        fresh = [each.score for seed, each in self.scores.items() if seed != self.seed]
        known = fresh or [each.score for each in self.scores.values()]
        return fmean(known) if known else None

    @property
    def mean(self) -> float:
        """Mean validation loss over its fresh seeds; under its own seed while there are none."""
        return fmean((self.fresh or self.losses).values())

    @property
    def test_loss(self) -> float | None:
        """Mean test loss over its fresh seeds; None where it was not measured."""
        return fmean(self.test_losses.values()) if self.test_blocks else None


def candidate(record: TrialRecord, records: Sequence[TrialRecord], seeds: int) -> Candidate:
    """A complete trial with its replicates.

    Args:
        record: the trial.
        records: all of the sweep.
        seeds: how many fresh ones are wanted: its own seed + 1, + 2 and so on.
    """
    replicates = [r for r in records if r.role is Role.REPLICATE and r.replicate_of == record.number]
    return _candidate(record, [record], replicates, seeds, record.seed)


def matched_steps(grown: TrialRecord, control: TrialRecord) -> int:
    """Steps that the control makes with the FLOPs that a grown trial spends; 0 where a cost is not known."""
    theirs, own = flops_per_token(grown), flops_per_token(control)
    return round(control.steps * theirs / own) if theirs and own else 0


def matched_runs(
    grown: TrialRecord, records: Sequence[TrialRecord], control: TrialRecord
) -> list[TrialRecord]:
    """Runs of the original with the FLOPs of a grown trial, in any state.

    Those that were made for another grown trial of the same cost count. Runs of a control that was the best
    one before do not.

    Args:
        grown: a trial.
        records: all of the sweep.
        control: whose settings they have.
    """
    wanted, settings = matched_steps(grown, control), _trained_as(control)
    matched = (r for r in records if r.role is Role.MATCHED and _trained_as(r) == settings)
    runs = [run for run in matched if run.replicate_of == grown.number or run.steps == wanted]
    most = max((run.steps for run in runs), default=0)
    return [run for run in runs if run.steps == most]


def matched_control(
    grown: TrialRecord, records: Sequence[TrialRecord], control: TrialRecord
) -> Candidate | None:
    """The original trained with the FLOPs of a grown trial; None where no run of it has a loss.

    Args:
        grown: that trial.
        records: all of the sweep.
        control: whose settings it has.
    """
    runs = matched_runs(grown, records, control)
    done = [record for record in runs if is_done(record)]
    if not done:
        return None
    lowest = min(done, key=lambda record: (record.value, record.number))
    return _candidate(lowest, [], runs, 0, None)


def _trained_as(record: TrialRecord) -> str:
    """Its settings but for the seed and the budget."""
    recipe = {**record.settings.get("recipe", {}), "tokens": None}
    return json.dumps({**record.settings, "recipe": recipe, "seed": None}, sort_keys=True, default=str)


def _candidate(
    record: TrialRecord, own: list[TrialRecord], others: list[TrialRecord], seeds: int, seed: int | None
) -> Candidate:
    runs = [*own, *sorted(others, key=lambda other: (other.seed, other.number))]
    losses = {run.seed: run.value for run in runs if is_done(run) and run.value is not None}
    # A run that ended any other way than with a finite loss has failed, whatever its state is called.
    failed = {
        run.seed: run.reason or f"no finite loss at step {run.step}"
        for run in others
        if run.state.finished and run.seed not in losses
    }
    wanted = [record.seed + offset for offset in range(1, seeds + 1)]
    pending = [run.seed for run in others if not run.state.finished]
    return Candidate(
        number=record.number,
        role=record.role,
        params=dict(record.params),
        settings=dict(record.settings),
        seed=seed,
        losses=losses,
        test_blocks={run.seed: run.test_losses for run in runs if run.seed != seed and _has_test(run)},
        initial_loss=_finite(record.initial_loss),
        flops_per_token=flops_per_token(record),
        tokens=record.tokens,
        failed_seeds=failed,
        open_seeds=tuple(
            each for each in sorted({*wanted, *pending}) if each not in losses and each not in failed
        ),
        scores={run.seed: run.aim for run in runs if is_done(run) and run.aim is not None},
    )


def _has_test(record: TrialRecord) -> bool:
    return is_done(record) and bool(record.test_losses) and all(map(math.isfinite, record.test_losses))


def _finite(loss: float | None) -> float | None:
    return loss if loss is not None and math.isfinite(loss) else None
