"""The best model that costs at most so many times what the original does."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.commands import command
from sweeps.errors import Problem, SpecError
from sweeps.records import TrialRecord
from sweeps.results.candidates import Candidate
from sweeps.results.front import in_words
from sweeps.results.layers import COSTS, cost_of
from sweeps.results.sentence import handed_over
from sweeps.results.verdict import Verdict, none_complete
from sweeps.results.winner import shared_seeds
from sweeps.spec import Spec

_SAME = 1e-6  # of a cost: below that, two are the same


@dataclass(frozen=True)
class AtMost:
    """What is taken, and what it costs as a multiple of the original."""

    number: int
    times: float
    limit: float
    cost: str
    grown_within: bool  # whether a grown model within the limit ran under fresh seeds

    @property
    def words(self) -> str:
        """`1.22x the original's FLOPs per token, of at most 1.3x`."""
        text = f"{self.times:.2f}x the original's {COSTS[self.cost]}, of at most {self.limit:g}x"
        lacking = ", and no grown model within that ran under fresh seeds"
        return text if self.grown_within else text + lacking


def refuse_several(*, trial: int | None, grown: bool, at_most: float | None) -> None:
    """A trial by its number is no answer that could be narrowed down.

    Raises:
        SpecError: there is one beside something else.
    """
    other = "grown" if grown else "at_most" if at_most is not None else None
    if other and trial is not None:
        raise SpecError(Problem(other, f"{other} beside trial={trial}", "one of them", f"trial={trial}"))


def chosen_by(
    spec: Spec,
    verdict: Verdict,
    records: Sequence[TrialRecord],
    *,
    trial: int | None,
    grown: bool,
    at_most: float | None,
    runs: Path,
) -> tuple[int, AtMost | None]:
    """The trial that is handed over, and what it costs where that was limited.

    Raises:
        SpecError: it is not there, or nothing costs so little.
    """
    if at_most is not None:
        within = within_cost(verdict, records, at_most, cost=spec.cost, grown=grown)
        return within.number, within
    handed = verdict.answer.grown if grown else verdict.answer.trial
    chosen = handed if trial is None else trial
    if chosen is None or all(record.number != chosen for record in records):
        got = none_complete(verdict) if chosen is None else f"trial {chosen}, which is not there"
        status = command("status", spec.name, runs=runs)
        remedy = f"{status}{', which has the reasons' * (chosen is None)}"
        raise SpecError(Problem(f"sweep {spec.name}", got, "a complete trial", remedy))
    return chosen, None


def described(
    verdict: Verdict, records: Sequence[TrialRecord], number: int, within: AtMost | None = None
) -> str:
    """One line on a trial that is handed over: what it is, what it is not better than, what it costs."""
    parts = [handed_over(verdict, records, number)]
    if within is not None:
        parts.append(within.words)
    if verdict.front is not None:
        members = (each for each in verdict.front.members if each.number == number)
        parts += [in_words(each) for each in members if each.than is not None]
    return "; ".join(parts)


def lineage_facts(record: TrialRecord, verdict: Verdict, said: str) -> dict[str, Any]:
    """What the lineage of a handed-over model has of its trial; `said` is what it is, in one line."""
    return {
        "heldout_loss": record.value,
        "initial_loss": record.initial_loss,
        "test_loss": record.test_loss,
        "best": record.number == verdict.answer.trial,
        "what": said,
        "verdict": verdict.to_json(),
    }


def within_cost(
    verdict: Verdict, records: Sequence[TrialRecord], limit: float, *, cost: str, grown: bool
) -> AtMost:
    """The answer, where it costs no more; else the best of what ran under fresh seeds within the limit.

    The best has the lowest mean validation loss over the fresh seeds that all of these share, as the winner
    has. So a grown model that is not shown to be better than the original may be taken; what is said of it
    says so.

    Args:
        verdict: of the sweep.
        records: every trial of it.
        limit: a multiple of the original's cost.
        cost: one of `COSTS`.
        grown: whether the original is left out.

    Raises:
        SpecError: nothing is within the limit, or what the original costs is not known.
    """
    if not 0 < limit < math.inf:
        got, expected = f"{limit!r}", "a multiple of the original's cost, above 0"
        raise SpecError(Problem("at_most", got, expected, "1.3"))
    by_number = {record.number: record for record in records}
    times = dict(_times(verdict, by_number, cost))
    if not times:
        got = f"{limit:g}x, of a control that has not ended"
        raise SpecError(Problem("at_most", got, "a sweep whose control has ended", "sweeps status, first"))
    within = [number for number in times if times[number] <= limit * (1 + _SAME)]
    models = [number for number in within if not by_number[number].original]
    wanted = models if grown else within
    if not wanted:
        least = min((times[n] for n in times if not grown or not by_number[n].original), default=None)
        what = "grown model" if grown else "model"
        expected = f"a {what} that ran under fresh seeds, of which there is none"
        if least is not None:
            expected = f"at least {_up(least)}x, what the cheapest {what} costs"
        remedy = f"--at-most {_up(least)}x" if least is not None else ""
        raise SpecError(Problem("at_most", f"{limit:g}x", expected, remedy))
    answer = verdict.answer.grown if grown else verdict.answer.trial
    chosen = answer if answer in wanted else _best([each for each in _all(verdict) if each.number in wanted])
    assert chosen is not None, "there is one within the limit"
    return AtMost(chosen, times[chosen], limit, cost, bool(models))


def _up(value: float) -> str:
    """Two digits behind the point, upwards, so that it is enough."""
    return f"{math.ceil(value * 100 - 1e-6) / 100:g}"


def _all(verdict: Verdict) -> list[Candidate]:
    """What ran for as many tokens: the finalists, the baseline, the control."""
    found = [*verdict.finalists, verdict.baseline, verdict.control]
    return list({each.number: each for each in found if each is not None}.values())


def _times(verdict: Verdict, records: Mapping[int, TrialRecord], cost: str) -> Iterator[tuple[int, float]]:
    """Multiples of the control's cost by number; of the matched control, too, which is the original."""
    if verdict.control is None or not (own := cost_of(records[verdict.control.number], cost)):
        return
    for each in (*_all(verdict), verdict.matched):
        if each is not None and (spent := cost_of(records[each.number], cost)):
            yield each.number, spent / own


def _best(candidates: Sequence[Candidate]) -> int:
    """By mean over the fresh seeds that all share; those that failed under one after those that did not."""
    steady = [each for each in candidates if not each.failed_seeds] or list(candidates)
    seeds = shared_seeds(steady)

    def key(each: Candidate) -> tuple[float, float, int]:
        known = [each.losses[seed] for seed in seeds if seed in each.losses]
        loss = math.fsum(known) / len(known) if known else each.mean
        return loss, each.flops_per_token or math.inf, each.number

    return min(steady, key=key).number
