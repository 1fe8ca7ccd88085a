"""The answer of a sweep, as a value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from sweeps.records import Role, State
from sweeps.results.answer import Answer
from sweeps.results.candidates import Candidate
from sweeps.results.claims import Claim
from sweeps.results.coverage import Spent, Untried
from sweeps.results.front import Front
from sweeps.results.looks import ONE_SIDED, RULE, share_of
from sweeps.results.margin import Margin
from sweeps.results.setting_answers import SettingAnswer
from sweeps.results.text_losses import BySource
from sweeps.search_answers import StoppingEvidence


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

    Losses are in nats per token after the last step: validation losses chose, test losses under fresh seeds
    carry the claims.

    Attributes
    ----------
    answer : Answer
        Whether to grow, the trial that `export` hands over, by how much it is better and how sure that is,
        or what would decide it.
    finalists : tuple of Candidate
        The best grown model first, then by mean validation loss over the fresh seeds that they share.
    control : Candidate or None
        The original model, trained on, at its best learning rate.
    matched : Candidate or None
        The original trained on with the FLOPs of `best_grown`.
    baseline : Candidate or None
        The spec's ``trial:`` as written.
    best_grown : int or None
        Number of the best grown model: the lowest mean validation loss over the fresh seeds that the
        finalists share, or a cheaper one that is shown to be as good within the margin.
    lowest : int or None
        Number of the finalist with the lowest mean.
    as_good : tuple of int
        Finalists, and the control, shown to be as good as the lowest within the margin.
    claims : tuple of Claim
        On test loss: each finalist against the control, then the best against the matched control.
    margin : Margin
        Below which a difference does not matter.
    look : int
        How often the answer was read, this time included: once more for each time that runs under fresh
        seeds were added. Intervals of all looks hold together.
    settings : tuple of SettingAnswer
        For each searched setting the value that is answered, or why none is.
    untried : tuple of Untried
        Values and pairs of K and first weights of which no trial was run to its end.
    stopping : StoppingEvidence or None
        How many of the trials that were stopped are expected to have ended among the best.
    spent : Spent
        Tokens and seconds of training, and what stopping saved.
    counts : mapping of str to int
        Trials of the search, by state.
    replicates : mapping of str to int
        Runs under fresh seeds, by state; those of matched controls too.
    others : mapping of str to int
        Trials that were not run here, by state.
    stopped : tuple of Ending
        Trials that the stopping rule ended.
    failed : tuple of Ending
        Trials that failed, with the reason; replicates too.
    warnings : tuple of str
        What to know before believing it, a sentence each.
    front : Front or None
        Test losses against the cost or the score that the objective names; None where it names none.
    objective : str or None
        The task and metric whose scores chose finalists and winner; None where losses did.
    sources : BySource or None
        Losses on each of several texts, beside those of the base; None where there is one text alone.

    Examples
    --------
    >>> import sweeps
    >>> verdict = sweeps.find("mine").verdict
    >>> verdict.best == verdict.answer.trial
    True
    >>> verdict.best_grown == verdict.chosen.number == verdict.answer.grown
    True
    >>> verdict.answer.grow in ("grow", "do not grow", "not shown")
    True
    """

    answer: Answer
    finalists: tuple[Candidate, ...]
    control: Candidate | None
    matched: Candidate | None
    baseline: Candidate | None
    best_grown: int | None
    lowest: int | None
    as_good: tuple[int, ...]
    claims: tuple[Claim, ...]
    margin: Margin
    look: int
    settings: tuple[SettingAnswer, ...]
    untried: tuple[Untried, ...]
    stopping: StoppingEvidence | None
    spent: Spent
    counts: Mapping[str, int]
    replicates: Mapping[str, int]
    others: Mapping[str, int]
    stopped: tuple[Ending, ...]
    failed: tuple[Ending, ...]
    warnings: tuple[str, ...]
    front: Front | None = None
    sources: BySource | None = None
    objective: str | None = None

    @property
    def best(self) -> int | None:
        """The trial that the answer hands over: the best grown model, or the original, trained on."""
        return self.answer.trial

    @property
    def chosen(self) -> Candidate | None:
        """The candidate that `best_grown` names."""
        return next((each for each in self.finalists if each.number == self.best_grown), None)

    def to_json(self) -> dict[str, Any]:
        """The answer as plain JSON values.

        Returns
        -------
        dict
            Its attributes by name; a candidate has its ``mean`` and test losses by seed, too. Never a NaN.
        """
        candidates = {
            name: _candidate_json(found) if (found := getattr(self, name)) else None
            for name in ("control", "matched", "baseline")
        }
        values = {
            **asdict(
                replace(
                    self, finalists=(), control=None, matched=None, baseline=None, claims=(), sources=None
                )
            ),
            "sources": self.sources.to_json() if self.sources else None,
            "answer": self.answer.to_json(),
            "best": self.best,
            "look": {"number": self.look, "error": 2 * ONE_SIDED * share_of(self.look), "rule": RULE},
            "finalists": [_candidate_json(finalist) for finalist in self.finalists],
            **candidates,
            "claims": [claim.to_json() for claim in self.claims],
        }
        value: dict[str, Any] = json.loads(json.dumps(values, allow_nan=False, default=str))
        return value


def _candidate_json(candidate: Candidate) -> dict[str, Any]:
    plain = asdict(replace(candidate, test_blocks={}))
    del plain["test_blocks"]
    tested = {"test_losses": candidate.test_losses, "test_loss": candidate.test_loss}
    return {**plain, "mean": candidate.mean, **tested}


def none_complete(verdict: Verdict) -> str:
    """Why a verdict names no best: no trial has ended yet, or how those ended that have."""
    counts = verdict.counts
    words = {State.FAIL: "failed", State.PRUNED: "stopped early"}
    ended = [f"{counts[state]} {word}" for state, word in words.items() if counts[state]]
    if counts[State.RUNNING] or counts[State.WAITING] or not ended:
        return "no complete trial yet"
    only = sum(counts.values()) == counts[State.FAIL]
    return f"no complete trial: all {ended[0]}" if only else f"no complete upscaled trial: {', '.join(ended)}"
