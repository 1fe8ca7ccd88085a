"""Retries: what follows an execution without a result, by its cause and by how often it happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sweeps.records import Cause, TrialRecord
from sweeps.spec import Spec


@dataclass(frozen=True)
class Again:
    """The trial runs again, from its last checkpoint; as it is, or in smaller pieces of the same batch."""

    micro_batch_tokens: int | None = None


def counted(record: TrialRecord, cause: Cause) -> dict[str, int]:
    """How often a trial has ended by each cause, this time included; `at` is the step it had reached.

    A worker's death is not the trial's fault, unless it dies again and again at one place: each measurement
    between two deaths begins the count again.
    """
    counts = dict(record.retries)
    if cause is Cause.LOST and record.step > counts.get("at", 0):
        counts.pop(cause, None)
    return {**counts, cause.value: counts.get(cause, 0) + 1, "at": record.step}


def retry(spec: Spec, record: TrialRecord, cause: Cause, counts: Mapping[str, int]) -> Again | None:
    """Whether and how a trial is run again after this cause; None ends it.

    Args:
        spec: has the limits.
        record: the trial as it stands.
        cause: of its last execution's end.
        counts: as `counted` gives them.
    """
    match cause:
        case Cause.PREEMPTED:
            return Again()
        case Cause.LOST:
            return Again() if counts[cause] <= spec.retries.lost else None
        case Cause.HUNG:
            return Again() if counts[cause] <= spec.retries.hung else None
        case Cause.ERROR:
            return Again() if counts[cause] <= spec.retries.error else None
        case Cause.OUT_OF_MEMORY:
            smaller = _halved(spec, record)
            return Again(smaller) if spec.retries.halve_micro_batch and smaller else None
        case _:  # refused, or diverged: it would again, for the same seed gives the same batches
            return None


def _halved(spec: Spec, record: TrialRecord) -> int | None:
    """Half of the sequences that went through the model at once, in tokens; None when it was one."""
    recipe = record.settings["recipe"]
    length = spec.data.sequence_length
    own = recipe["batch_tokens"] // spec.resources.workers  # of one rank
    tokens = min(own, record.micro_batch_tokens or recipe["micro_batch_tokens"] or own)
    sequences = tokens // length
    return sequences // 2 * length if sequences > 1 else None


def reason_with_counts(outcome_reason: str | None, cause: Cause, counts: Mapping[str, int]) -> str:
    """Why a trial has failed, with how often it was tried."""
    reason = outcome_reason or cause.value
    times = counts.get(cause, 1)
    return reason if times == 1 else f"{reason} ({times} times)"
