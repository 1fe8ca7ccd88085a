"""The answer of a sweep, as a value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from sweeps.records import Role, State
from sweeps.results.paired import Candidate


@dataclass(frozen=True)
class Ending:
    """How one trial ended that is not simply complete."""

    number: int
    role: Role
    step: int
    steps: int
    loss: float | None
    reason: str | None


@dataclass(frozen=True)
class Verdict:
    """The answer of a sweep so far.

    Losses are held-out ones at the budget, in nats per token.

    Attributes
    ----------
    finalists : tuple of Contender
        The winner first. Each has ``number``, ``params``, ``settings``, ``losses`` by seed, their ``mean``,
        and differences as ``against_control``, with 95 % paired-t intervals.
    control : Contender or None
        The original model, trained on.
    baseline : Contender or None
        The spec's ``trial:`` as written.
    best : int or None
        Number of the cheapest of the winner and those tied with it: what `export` hands over.
    winner : int or None
        Number of the one with the lowest mean loss over the seeds that the finalists share.
    tied : tuple of int
        Finalists whose difference from the winner is not significant.
    counts : mapping of str to int
        Trials that this sweep runs, by state; replicates left out.
    replicates : mapping of str to int
        Replicates, by state.
    others : mapping of str to int
        Trials that were not run here, by state.
    stopped : tuple of Ending
        Trials that the stopping rule ended.
    failed : tuple of Ending
        Trials that failed, with the reason; replicates too.
    warnings : tuple of str
        What to know before believing it, a sentence each.

    Examples
    --------
    >>> import sweeps
    >>> verdict = sweeps.find("mine").verdict
    >>> verdict.best == verdict.chosen.number
    True
    >>> verdict.best in (verdict.winner, *verdict.tied)
    True
    """

    finalists: tuple[Candidate, ...]
    control: Candidate | None
    baseline: Candidate | None
    best: int | None
    winner: int | None
    tied: tuple[int, ...]
    counts: Mapping[str, int]
    replicates: Mapping[str, int]
    others: Mapping[str, int]
    stopped: tuple[Ending, ...]
    failed: tuple[Ending, ...]
    warnings: tuple[str, ...]

    @property
    def chosen(self) -> Candidate | None:
        """The contender that `best` names."""
        return next((finalist for finalist in self.finalists if finalist.number == self.best), None)

    def to_json(self) -> dict[str, Any]:
        """The answer as plain JSON values.

        Returns
        -------
        dict
            Its attributes by name; a contender has its ``mean``, too. Never a NaN.
        """
        candidates = {
            "finalists": [_candidate_json(finalist) for finalist in self.finalists],
            "control": _candidate_json(self.control) if self.control else None,
            "baseline": _candidate_json(self.baseline) if self.baseline else None,
        }
        plain = asdict(replace(self, finalists=(), control=None, baseline=None))
        value: dict[str, Any] = json.loads(json.dumps(plain | candidates, allow_nan=False, default=str))
        return value


def _candidate_json(candidate: Candidate) -> dict[str, Any]:
    return {**asdict(candidate), "mean": candidate.mean}


def none_complete(verdict: Verdict) -> str:
    """Why a verdict names no best: no trial has ended yet, or how those ended that have."""
    counts = verdict.counts
    words = {State.FAIL: "failed", State.PRUNED: "stopped early"}
    ended = [f"{counts[state]} {word}" for state, word in words.items() if counts[state]]
    if counts[State.RUNNING] or counts[State.WAITING] or not ended:
        return "no complete trial yet"
    only = sum(counts.values()) == counts[State.FAIL]
    return f"no complete trial: all {ended[0]}" if only else f"no complete upscaled trial: {', '.join(ended)}"
