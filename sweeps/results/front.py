"""The front of test losses against a cost or a task's score, under fresh seeds, and what of it is shown.

Against a cost every model is compared with all that cost less, or as much at a lower mean. Intervals hold at
95 % for all of these pairs together (Bonferroni). A model belongs to the front once it is shown to be better
than each of them; it is dominated where one of them is shown to be better than it. Against a score, which is
not exact, see `sweeps.results.score_front`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sweeps.records import TrialRecord
from sweeps.results.candidates import Candidate
from sweeps.results.claims import Claim, Claims
from sweeps.results.layers import cost_of

Stands = Literal[
    "cheapest",
    "better than all cheaper",
    "not shown to be better",
    "dominated",
    "on the front",
    "not shown to be on the front",
]
_SAME = 1e-6  # of a cost: below that, two are the same


@dataclass(frozen=True)
class FrontMember:
    """One model that ran under fresh seeds, and how it stands to the others.

    Attributes
    ----------
    number : int
        Of its trial.
    original : bool
        Whether it is the original, trained on.
    cost, times : float or None
        What it costs, and how many times as much as the original; `times` is None without a control, both
        are against a score.
    loss : float or None
        Mean test loss under fresh seeds, nats per token.
    mean, half_width : float or None
        Of its loss less the original's, with the 95 % interval, nats per token.
    stands : str
        Against a cost ``cheapest``, ``better than all cheaper``, ``not shown to be better`` or ``dominated``;
        against a score ``on the front``, ``not shown to be on the front`` or ``dominated``.
    than : int or None
        The one that it is dominated by, or that comes closest to being better.
    score, score_error : float or None
        Mean score under fresh seeds, and its standard error over documents.
    score_mean, score_half_width : float or None
        Of its score less the original's, with the 95 % interval.
    by_means : bool or None
        Whether no other's mean loss and mean score are both as good or better; None against a cost.
    """

    number: int
    original: bool
    cost: float | None
    times: float | None
    loss: float | None
    mean: float | None
    half_width: float | None
    stands: Stands
    than: int | None
    score: float | None = None
    score_error: float | None = None
    score_mean: float | None = None
    score_half_width: float | None = None
    by_means: bool | None = None


@dataclass(frozen=True)
class Front:
    """Losses against a cost, or a task's score.

    Attributes
    ----------
    cost : str or None
        ``flops_per_token`` or ``parameters``; None against a score.
    members : tuple of FrontMember
        Of the front or not, the cheapest first; against a score the lowest loss first.
    compared : int
        Differences whose intervals hold together: pairs, against a score twice as many.
    score : str or None
        The task and metric, as ``kobest_copa/acc``; None against a cost.
    higher_is_better : bool or None
        Of the score.
    base, base_error : float or None
        Score of the base as it is, and its standard error.
    """

    cost: str | None
    members: tuple[FrontMember, ...] = ()
    compared: int = 0
    score: str | None = None
    higher_is_better: bool | None = None
    base: float | None = None
    base_error: float | None = None


def in_words(member: FrontMember) -> str:
    """How it stands to the others: `not shown to be better than trial 3, which costs less`."""
    other = f"trial {member.than}"
    if member.by_means is not None:
        return _against_scores(member, other)
    if member.stands == "dominated":
        return f"dominated by {other}, which costs no more and is better"
    if member.than is not None:
        return f"not shown to be better than {other}, which costs no more"
    return {"cheapest": "the cheapest"}.get(member.stands, "better than all that cost no more")


def _against_scores(member: FrontMember, other: str) -> str:
    if member.stands == "dominated":
        return f"dominated by {other}, which is better in both"
    if member.than is None:
        return "better than each other one in loss or score"
    if member.by_means:
        return f"on the front by its means; not shown to be better than {other} in loss or score"
    return f"behind {other} by its means; not shown to be worse in both"


def front_of(
    candidates: Sequence[Candidate],
    control: Candidate | None,
    records: Mapping[int, TrialRecord],
    *,
    cost: str,
    margin: float,
    look: int = 1,
) -> Front:
    """The front of what ran under fresh seeds for as many tokens.

    Args:
        candidates: finalists, baseline and control, with their difference to the control.
        control: the original, trained on.
        records: every trial, by number.
        cost: what losses are shown against.
        margin: below which a difference does not matter, nats per token.
        look: at the answer, from 1.
    """
    costs = {each.number: cost_of(records[each.number], cost) for each in candidates}
    known = [each for each in candidates if costs[each.number] is not None]
    ordered = sorted(known, key=lambda each: (costs[each.number] or 0.0, _mean(each), each.number))
    pairs = [(each, list(_cheaper(each, ordered, costs))) for each in ordered]
    compared = sum(len(others) for _, others in pairs)
    claims = Claims(list(candidates), margin, compared, look)
    own = costs.get(control.number) if control else None
    members = []
    for each, others in pairs:
        stands, than = _standing([claims.of(each, other, "equal tokens") for other in others], others)
        against = each.against_control
        spent = costs[each.number] or 0.0
        members.append(
            FrontMember(
                number=each.number,
                original=records[each.number].original,
                cost=spent,
                times=spent / own if own else None,
                loss=each.test_loss,
                mean=against.mean if against else None,
                half_width=against.half_width if against else None,
                stands=stands,
                than=than,
            )
        )
    return Front(cost, tuple(members), compared)


def _mean(each: Candidate) -> float:
    return each.test_loss if each.test_loss is not None else each.mean


def _cheaper(
    each: Candidate, ordered: Sequence[Candidate], costs: Mapping[int, float | None]
) -> Iterator[Candidate]:
    """Those that cost less, or as much at a lower mean."""
    own = costs[each.number] or math.inf
    for other in ordered:
        theirs = costs[other.number] or math.inf
        same = abs(theirs - own) <= _SAME * own
        before = (_mean(other), other.number) < (_mean(each), each.number)
        if other is not each and ((same and before) or (not same and theirs < own)):
            yield other


def _standing(claims: Sequence[Claim | None], others: Sequence[Candidate]) -> tuple[Stands, int | None]:
    """By the worst of the comparisons with those that are cheaper."""
    if not others:
        return "cheapest", None
    known = [claim for claim in claims if claim is not None]
    worse = [claim for claim in known if claim.says == "worse"]
    if worse:
        return "dominated", max(worse, key=lambda claim: claim.mean).against
    unshown = [claim for claim in known if claim.says != "better"]
    if unshown:
        return "not shown to be better", max(unshown, key=lambda claim: claim.mean).against
    lacking = next((other for claim, other in zip(claims, others, strict=True) if claim is None), None)
    if lacking is not None:
        return "not shown to be better", lacking.number
    return "better than all cheaper", None
