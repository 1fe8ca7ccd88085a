"""The winner among the finalists: lowest validation loss under fresh seeds, or a cheaper one as good.

Where the search goes by a task it is the one with the best score under fresh seeds, whatever it costs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from sweeps.records import TrialRecord
from sweeps.results.candidates import Candidate, candidate
from sweeps.results.finalists import finalists, references
from sweeps.results.looks import tail_of
from sweeps.results.margin import Margin, margin_of
from sweeps.results.noise import paired, pool


@dataclass(frozen=True)
class Compared:
    """All that run again but the matched controls, which are made of the winner.

    Finalists come best first: the winner, then by mean validation loss over the fresh seeds that they share.
    """

    finalists: tuple[Candidate, ...]
    control: Candidate | None
    baseline: Candidate | None
    margin: Margin
    lowest: int | None  # number of the finalist with the lowest mean
    as_good: tuple[int, ...]  # numbers of those shown to be as good as it, the control's too

    @property
    def winner(self) -> Candidate | None:
        """The cheapest of the lowest and the finalists that are as good."""
        return self.finalists[0] if self.finalists else None

    @property
    def grown(self) -> int:
        """How many grown models are compared: the finalists, and the baseline where it is none of them."""
        return sum(self.control is None or each.number != self.control.number for each in self.everyone)

    @property
    def everyone(self) -> tuple[Candidate, ...]:
        """Each once."""
        found = [each for each in (*self.finalists, self.baseline, self.control) if each is not None]
        return tuple({each.number: each for each in found}.values())


def compared(
    records: Sequence[TrialRecord],
    *,
    top: int,
    seeds: int,
    per: str | None,
    depth: int | None,
    margin: float | str | None,
    look: int = 1,
) -> Compared:
    """Finalists, control and baseline with their runs under fresh seeds, and the winner.

    As good as the lowest mean is what a test of non-inferiority shows to be (one-sided 2.5 %, Bonferroni over
    all that are compared with it and over looks; its choice flatters it, which makes it harder to be as good
    as). So a difference that is not shown is no reason to take the cheaper one, only one shown to be below
    the margin. By a task's scores, for which there is no margin, none is shown to be as good.

    Args:
        records: of the sweep; matched controls do not count.
        top: how many finalists (of each value of `per`).
        seeds: fresh ones wanted.
        per: the dotted path of a setting, or None.
        depth: layers of the base, where they are known.
        margin: the spec's, nats per token or a percentage; None for the data's.
        look: at the answer, from 1.
    """
    chosen = [candidate(each, records, seeds) for each in finalists(records, top, per, depth=depth)]
    control, baseline = (candidate(each, records, seeds) if each else None for each in references(records))
    everyone = {each.number: each for each in (*chosen, control, baseline) if each is not None}
    bound = margin_of(everyone.values(), margin, control)
    ranked = _ranked(chosen)
    if not ranked:
        return Compared((), control, baseline, bound, None, ())
    by_score = any(each.scores for each in chosen)
    good = [] if by_score else _as_good(ranked, control, list(everyone.values()), bound.nats, look)
    numbers = {each.number for each in good}
    winner = _cheapest([ranked[0], *(each for each in ranked[1:] if each.number in numbers)])
    ordered = (winner, *(each for each in ranked if each is not winner))
    return Compared(ordered, control, baseline, bound, ranked[0].number, tuple(sorted(numbers)))


def _ranked(candidates: list[Candidate]) -> list[Candidate]:
    """By mean score where the search goes by a task, then by mean loss, over the seeds that all share; those
    that failed under some seed after those that did not.

    Means over different seeds would compare the seeds. Those with a failure are left out of the sharing too,
    or one failed replicate would cost every other finalist that seed.
    """
    steady = [each for each in candidates if not each.failed_seeds] or candidates
    seeds, scored = shared_seeds(steady), _scored_seeds(steady)

    def key(each: Candidate) -> tuple[bool, float, float, float, int]:
        aims = [each.scores[seed].minimised for seed in scored if seed in each.scores]
        known = [each.losses[seed] for seed in seeds if seed in each.losses]
        aim = fmean(aims) if aims else math.inf  # of all where the search goes by the loss
        loss = fmean(known) if known else each.mean
        return each not in steady, aim, loss, each.flops_per_token or math.inf, each.number

    return sorted(candidates, key=key)


def _scored_seeds(candidates: Sequence[Candidate]) -> set[int]:
    """Fresh seeds under which all have a score; while there is none, the seed that chose them."""
    scored = set.intersection(*(set(each.scores) for each in candidates)) if candidates else set()
    return scored - {each.seed for each in candidates} or scored


def shared_seeds(candidates: Sequence[Candidate]) -> set[int]:
    """Fresh seeds under which all have a loss; while there is none, the seed that chose them."""
    if not candidates:
        return set()
    fresh = set.intersection(*(set(each.fresh) for each in candidates))
    return fresh or set.intersection(*(set(each.losses) for each in candidates))


def _as_good(
    ranked: list[Candidate],
    control: Candidate | None,
    everyone: list[Candidate],
    margin: float,
    look: int,
) -> list[Candidate]:
    """Those shown to be less than the margin above the lowest mean; with failed seeds, if it has, too."""
    lowest, others = ranked[0], [*ranked[1:], *([control] if control else [])]
    table = {each.number: {seed: (loss,) for seed, loss in each.fresh.items()} for each in everyone}
    pooled = pool(table)
    found = []
    for each in others:
        pair = paired(table[each.number], table[lowest.number], pooled)
        if pair is None or pair[2] is None or (each.failed_seeds and not lowest.failed_seeds):
            continue
        if pair[0] + pair[2].half_width(tail_of(look, len(others))) < margin:
            found.append(each)
    return found


def _cheapest(candidates: list[Candidate]) -> Candidate:
    """The fewest FLOPs per token; the earlier of equals, and the first when some cost is not known."""
    if any(each.flops_per_token is None for each in candidates):
        return candidates[0]
    return min(candidates, key=lambda each: each.flops_per_token or 0.0)
