"""The answer: grow, do not grow, or not shown, and what would decide it.

With W the winner, C the control at equal tokens and M the control at equal compute (W's FLOPs):

1. grow: W is better than C and better than M, and neither is shown to be as good within the margin.
2. do not grow: C or M is shown to be as good as W within the margin, or better.
3. not shown: else.

Without M the rule goes by C alone, and without C nothing is grown; what is missing is said in `limits`. M is
not missed where W spends no more than C; where it is still to come, "grow" waits for it. Nor is grown what
failed under a fresh seed, or what beat a control whose learning rate was not found: grown models had rates
beyond the best one of the control, on a side where it had none. Where the original is the answer, the trial
handed over is that of the claim which decided: M where it is shown to be as good as W, else C. Where nothing
is shown, it is the one with the lower mean of W and the original: that something is not shown is no reason to
take the cheaper. A difference that is shown and is smaller than the margin at both ends is no reason to grow.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from sweeps.results.candidates import Candidate
from sweeps.results.claims import Claim
from sweeps.results.looks import tail_of

Grow = Literal["grow", "do not grow", "not shown"]
Missing = Literal["trials", "control", "control rates", "matched control", "fresh seeds", "test text"]
Limit = Literal[
    "no compute-matched control",
    "no control",
    "validation loss",
    "not finished",
    "too few seeds",
    "margin of 0",
    "control's rate not found",
    "failed under a fresh seed",
    "too little test text",
    "earlier version",
]

_MOST_SEEDS = 100  # fresh ones; beyond that seeds are no answer
_MANY_SEEDS = 20  # beyond that a larger budget of tokens tells more, for the same cost


@dataclass(frozen=True)
class Needs:
    """What would decide an open question, if means and variances stay what they are."""

    missing: tuple[Missing, ...]  # what has to be run first
    seeds: int | None  # fresh ones in all; None where that is not known, or no number of them would do
    text: float | None  # times the test text, where its own error stands in the way of any number of seeds
    tokens: bool  # whether the difference is so small that only a larger budget is likely to tell


@dataclass(frozen=True)
class Answer:
    """Whether to grow, what to take, and how sure that is.

    Attributes
    ----------
    grow : str
        ``grow``, ``do not grow`` or ``not shown``.
    trial : int or None
        Number of the trial that is handed over: the grown winner, or the original trained on.
    grown : int or None
        Number of the winner among the grown models.
    claim : Claim or None
        What decided, or came closest to it: by how much, with its interval.
    equal_tokens, equal_compute : Claim or None
        The winner against the control after as many tokens, and after as many FLOPs.
    cost : float or None
        FLOPs per token of the winner, relative to the control.
    confidence : float or None
        One minus the adjusted p value of what decided; None where nothing did.
    limits : tuple of str
        What the answer does not rest on, or rests on too little.
    needs : Needs or None
        What would decide it; None where it is decided.
    """

    grow: Grow
    trial: int | None
    grown: int | None
    claim: Claim | None
    equal_tokens: Claim | None
    equal_compute: Claim | None
    cost: float | None
    confidence: float | None
    limits: tuple[Limit, ...]
    needs: Needs | None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        claims = ("claim", "equal_tokens", "equal_compute")
        plain = {name: getattr(self, name) for name in ("grow", "trial", "grown", "cost", "confidence")}
        found = {name: each.to_json() if (each := getattr(self, name)) else None for name in claims}
        needs = asdict(self.needs) if self.needs else None
        return {**plain, **found, "limits": list(self.limits), "needs": needs}


@dataclass(frozen=True)
class Course:
    """How far a sweep is, and what it can compare.

    Attributes:
        dearer: whether the winner spends more than the control, so that equal tokens are not equal compute.
        finished: whether all that the claims rest on has been run.
        waiting: whether a matched control is still to be run.
        rate_open: whether the control's best learning rate is not known.
        earlier: whether an earlier version ran it, which this one does not run on.
    """

    dearer: bool
    finished: bool
    waiting: bool
    rate_open: bool
    earlier: bool = False


def answer_of(
    winner: Candidate | None,
    control: Candidate | None,
    matched: Candidate | None,
    tokens: Claim | None,
    compute: Claim | None,
    course: Course,
) -> Answer:
    """By the rules above.

    Args:
        winner: of the grown models.
        control: the original at its best rate.
        matched: the original with the winner's FLOPs.
        tokens: the winner against `control`.
        compute: the winner against `matched`.
        course: how far the sweep is, and what it can compare.
    """
    known = [claim for claim in (compute, tokens) if claim is not None]
    failed = winner is not None and bool(winner.failed_seeds)
    whole = (compute is not None or course.finished or not course.dearer) and not course.waiting
    grow = _rule(known, whole=whole and tokens is not None and not (course.rate_open or failed))
    doubts: dict[Limit, bool] = {
        "control's rate not found": course.rate_open,
        "failed under a fresh seed": failed,
        "earlier version": course.earlier,
    }
    claim = _deciding(grow, known)
    trial = _handed_over(grow, winner, control, matched, tokens, compute)
    ours, theirs = (each.flops_per_token if each else None for each in (winner, control))
    return Answer(
        grow=grow,
        trial=trial,
        grown=winner.number if winner else None,
        claim=claim,
        equal_tokens=tokens,
        equal_compute=compute,
        cost=ours / theirs if ours and theirs else None,
        confidence=_confidence(grow, known),
        limits=(
            *_limits(winner, tokens, compute, course),
            *(limit for limit, holds in doubts.items() if holds),
        ),
        needs=_needs(winner, control, tokens, compute, course) if grow == "not shown" else None,
    )


def _rule(known: list[Claim], *, whole: bool) -> Grow:
    """`whole`: all that "grow" takes is there, and nothing speaks against it."""
    if any(claim.other_as_good for claim in known):
        return "do not grow"
    better = known and all(claim.says == "better" for claim in known)
    return "grow" if better and whole else "not shown"


def _deciding(grow: Grow, known: list[Claim]) -> Claim | None:
    """Equal compute before equal tokens, of those that decided."""
    decided = [claim for claim in known if claim.other_as_good] if grow == "do not grow" else known
    return next(iter(decided), None)


def _confidence(grow: Grow, known: list[Claim]) -> float | None:
    if grow == "grow":
        return 1 - max(claim.p_better or 0.0 for claim in known)
    if grow == "do not grow":
        found = [claim.p_other_as_good for claim in known if claim.other_as_good]
        return 1 - min(p for p in found if p is not None)
    return None


def _handed_over(
    grow: Grow,
    winner: Candidate | None,
    control: Candidate | None,
    matched: Candidate | None,
    tokens: Claim | None,
    compute: Claim | None,
) -> int | None:
    grown = winner.number if winner else None
    if grow == "grow":
        return grown
    if grow == "do not grow":
        original = matched if compute is not None and compute.other_as_good else control
        return original.number if original else grown
    for claim, original in ((compute, matched), (tokens, control)):
        if claim is not None and original is not None:
            return original.number if claim.mean > 0 else grown
    return grown


def _limits(
    winner: Candidate | None,
    tokens: Claim | None,
    compute: Claim | None,
    course: Course,
) -> list[Limit]:
    known = [claim for claim in (tokens, compute) if claim is not None]
    said: dict[Limit, bool] = {
        "no control": tokens is None,
        "no compute-matched control": course.dearer and winner is not None and compute is None,
        "too few seeds": any(claim.half_width is None and claim.n < 2 for claim in known),
        "too little test text": any(claim.half_width is None and claim.n > 1 for claim in known),
        "validation loss": any(claim.loss == "validation" for claim in known),
        "margin of 0": any(claim.margin == 0 for claim in known),
        "not finished": not course.finished,
    }
    return [limit for limit, holds in said.items() if holds]


# -- what would decide it ---------------------------------------------------------------------------


def _needs(
    winner: Candidate | None,
    control: Candidate | None,
    tokens: Claim | None,
    compute: Claim | None,
    course: Course,
) -> Needs:
    known = [claim for claim in (compute, tokens) if claim is not None]
    said: dict[Missing, bool] = {
        "trials": winner is None,
        "control": control is None,
        "control rates": course.rate_open,
        "fresh seeds": any(claim.half_width is None and claim.n < 2 for claim in known) or not known,
        "test text": any(claim.half_width is None and claim.n > 1 for claim in known),
        "matched control": course.dearer and winner is not None and compute is None,
    }
    missing = tuple(each for each, holds in said.items() if holds)
    aims = [_seeds(claim) for claim in known if claim.noise is not None]
    if not aims:
        return Needs(missing, None, None, tokens=False)
    against = [aim for aim in aims if not aim.grow]
    # One comparison is enough to leave it; to grow takes both.
    decisive = min(against, key=_Aim.order) if against else max(aims, key=_Aim.order)
    return Needs(missing, decisive.seeds, decisive.text, tokens=(decisive.seeds or _MOST_SEEDS) > _MANY_SEEDS)


@dataclass(frozen=True)
class _Aim:
    """What one claim needs, and which way it goes: to "grow", or to "do not grow"."""

    grow: bool
    seeds: int | None
    text: float | None

    def order(self) -> float:
        return self.seeds if self.seeds is not None else _MOST_SEEDS + 1


def _seeds(claim: Claim) -> _Aim:
    """Fresh seeds after which the interval would decide, or times the text where no number of seeds would."""
    noise = claim.noise
    assert noise is not None
    grow = claim.mean < -claim.margin  # more data lead to "better"; else to "as good as it is"
    room = -claim.mean if grow else claim.mean + claim.margin
    if grow and claim.says == "better":
        return _Aim(grow, noise.n, None)
    if room <= 0:  # the difference is the margin itself: no amount of data decides
        return _Aim(grow, None, None)
    again = tail_of(claim.look + 1, claim.compared)
    for n in range(noise.n + 1, _MOST_SEEDS + 1):
        if noise.half_width(again, n) < room:
            return _Aim(grow, n, None)
    first = tail_of(1, claim.compared)  # other text takes another sweep
    for text in (2.0, 4.0, 8.0, 16.0, 32.0, 64.0):
        if noise.half_width(first, _MANY_SEEDS, text) < room:
            return _Aim(grow, _MANY_SEEDS, text)
    return _Aim(grow, None, None)
