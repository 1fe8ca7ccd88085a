"""What more tokens would give: losses of the finalists and the control that a fit of their curves expects.

The fit and what its interval rests on are in `sweeps.results.annealing`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from sweeps.records import TrialRecord
from sweeps.results.candidates import Candidate
from sweeps.results.verdict import Verdict
from sweeps.text import counted
from tli.training.recipe import Recipe

TIMES = 4  # as many tokens: what the intervals were checked at
FEWEST = 6  # points of a curve
FEWEST_STEPS = 24  # of a trial, the shortest that the intervals were checked at: of 16 they were too narrow
_QUANTILE = 1.6449  # of the normal distribution: 90 % lie within
_SURE = 1.3  # times an interval by which two must be apart, so that their order is said


@dataclass(frozen=True)
class Expected:
    """Held-out loss (nats per token) that a trial's settings are expected to end at with more tokens."""

    trial: int
    tokens: int
    loss: float
    low: float
    high: float  # of the 90 % interval
    points: int  # of the curve, a mean over seeds
    seeds: int


@dataclass(frozen=True)
class Longer:
    """What the finalists and the control would give at `times` the tokens.

    Attributes
    ----------
    times : int
        As many tokens as a trial had.
    expected : tuple of Expected
        In the order of the finalists, the control last.
    not_said : mapping of int to str
        Trials of which nothing is said, with the reason.
    stays_ahead : tuple of pairs
        Finalists (first, second) of which the first has the lower loss now and is expected to have it then.
    open_pairs : tuple of pairs
        Those of which it cannot be said whether their curves cross.
    """

    times: int
    expected: tuple[Expected, ...]
    not_said: Mapping[int, str]
    stays_ahead: tuple[tuple[int, int], ...]
    open_pairs: tuple[tuple[int, int], ...]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            **asdict(self),
            "not_said": [{"trial": number, "reason": why} for number, why in self.not_said.items()],
        }


def longer(verdict: Verdict, records: Sequence[TrialRecord], times: int = TIMES) -> Longer:
    """What more tokens would give, for each finalist and the control.

    Curves are means over the fresh seeds, where there are some; else the one of the search.
    """
    found: list[Expected] = []
    silent: dict[int, str] = {}
    listed = [*verdict.finalists, *([verdict.control] if verdict.control else [])]
    for each in listed:
        said = _expected(each, records, times)
        if isinstance(said, str):
            silent[each.number] = said
        else:
            found.append(said)
    now = {each.number: each.mean for each in verdict.finalists}
    then = {each.trial: each for each in found if each.trial in now}
    ordered = sorted(then, key=now.__getitem__)
    pairs = list(itertools.combinations(ordered, 2))
    ahead = tuple(pair for pair in pairs if stays_ahead(then[pair[0]], then[pair[1]]))
    return Longer(times, tuple(found), silent, ahead, tuple(pair for pair in pairs if pair not in ahead))


# -- inside ---------------------------------------------------------------------------------------


def _expected(candidate: Candidate, records: Sequence[TrialRecord], times: int) -> Expected | str:
    """What is expected of one candidate, or why nothing is."""
    runs = [
        record
        for record in records
        if record.value is not None
        and candidate.number in (record.number, record.replicate_of)
        and record.seed in (candidate.fresh or candidate.losses)
        and {**record.settings, "seed": None} == {**candidate.settings, "seed": None}
    ]
    if not runs:
        return "no run of it has ended"
    shared = set.intersection(*(set(run.losses) for run in runs))
    losses = {step: fmean(run.losses[step] for run in runs) for step in sorted(shared)}
    if not all(map(math.isfinite, losses.values())):
        return "a loss of its curve is no number"
    if len(losses) < FEWEST:
        return f"its curve has {counted(len(losses), 'point')}, and a fit takes {FEWEST}"
    recipe = Recipe(**candidate.settings["recipe"])
    if recipe.steps < FEWEST_STEPS:
        return f"it has {counted(recipe.steps, 'step')}, and a fit takes {FEWEST_STEPS}"
    from sweeps.results.annealing import expected_loss  # numpy, which nothing else here needs

    loss, deviation = expected_loss(recipe, losses, times)
    half = _QUANTILE * deviation
    if half > max(losses.values()) - min(losses.values()):
        return "its interval would be wider than all that its loss has moved by"
    tokens = times * recipe.steps * recipe.batch_tokens
    return Expected(candidate.number, tokens, loss, loss - half, loss + half, len(losses), len(runs))


def stays_ahead(first: Expected, second: Expected) -> bool:
    """Whether the first, which is ahead now, is expected to be so then. Errors are taken as independent."""
    halves = math.hypot((first.high - first.low) / 2, (second.high - second.low) / 2)
    return second.loss - first.loss > _SURE * halves
