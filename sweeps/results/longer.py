"""What more tokens would give: a law of a finalist's curve that knows the rate's schedule.

The law is that of annealing (arXiv 2408.11029), L = L0 + A (S1 + w)^-a - C S2: S1 the sum of the rates so
far, S2 how far the rate has fallen, felt with a lag (the multi-power law, arXiv 2503.12811, has such a
term, too). A longer trial is another schedule, not more of this one, which is why no power law is laid
through the points. L0, A and C are linear and have normal priors; a, w and the lag lie on a grid, weighted
by how well they explain the curve. The interval is that of the posterior, widened by what the law itself
was seen to be wrong by (`_OF_FALL`, `_OF_ANNEALING`): both were set on recorded curves of the built-in
model, and checked on those of another one at 4 times the budget (`python -m tests.bench.bench_longer`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np

from sweeps.records import TrialRecord
from sweeps.results.candidates import Candidate
from sweeps.results.verdict import Verdict
from sweeps.text import counted
from tli.training.recipe import Recipe

TIMES = 4  # as many tokens: what the intervals were checked at
FEWEST = 6  # points of a curve
FEWEST_STEPS = 24  # of a trial, the shortest that the intervals were checked at: of 16 they were too narrow
_QUANTILE = 1.6449  # of the normal distribution: 90 % lie within
_POWERS = (0.03, 0.1, 0.2, 0.3, 0.5, 0.8)
_OFFSETS = (0.03, 0.1, 0.3, 1.0, 3.0)  # w, as a share of the trial's own S1
_FIRST_LAG = 6  # steps; doubled up to half of the trial
_NOISE = 0.03  # of a point, as a share of how far the curve reaches
_OF_FALL, _OF_ANNEALING = (
    0.1,
    0.7,
)  # what the law is wrong by: of the curve's reach, and of the part that is annealing
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


def expected_loss(recipe: Recipe, losses: Mapping[int, float], times: float) -> tuple[float, float]:
    """The loss at the end of `times` the tokens, and its standard deviation; nats per token.

    Args:
        recipe: of the trial; the longer one has its schedule, stretched.
        losses: finite held-out losses by step, `FEWEST` or more, the last one after the last step.
        times: as many tokens.
    """
    steps = sorted(losses)
    curve = np.array([losses[step] for step in steps])
    reach = float(curve.max() - curve.min()) or 1e-6
    stretched = replace(recipe, tokens=round(times * recipe.steps * recipe.batch_tokens))
    at = np.array(steps)
    weights, means, variances, annealed = [], [], [], []
    for lag in _lags(recipe.steps):
        (sums, heat), (long_sums, long_heat) = _schedule(recipe, lag), _schedule(stretched, lag)
        x, end = sums[at] / sums[-1], long_sums[-1] / sums[-1]
        for power, offset in itertools.product(_POWERS, _OFFSETS):
            scale = offset**-power - (1 + offset) ** -power

            def falling(
                share: Any, power: float = power, offset: float = offset, scale: float = scale
            ) -> Any:
                return (share + offset) ** -power / scale

            features = np.column_stack([np.ones(len(at)), falling(x), heat[at]])
            target = np.array([1.0, falling(end), long_heat[-1]])
            weight, mean, covariance = _posterior(features, curve, reach)
            weights.append(weight)
            means.append(float(target @ mean))
            variances.append(float(target @ covariance @ target))
            annealed.append(abs(float(mean[2])))
    share = np.exp(np.array(weights) - max(weights))
    share /= share.sum()
    loss = float(share @ np.array(means))
    variance = float(share @ (np.array(variances) + (np.array(means) - loss) ** 2))
    wrong = (_OF_FALL * reach) ** 2 + (_OF_ANNEALING * float(share @ np.array(annealed))) ** 2
    return loss, math.sqrt(variance + wrong)


# -- inside ---------------------------------------------------------------------------------------


def _lags(steps: int) -> Iterator[int]:
    """Steps within which a fallen rate is felt: not known, so all that a trial of so many steps can tell."""
    lag = _FIRST_LAG
    yield lag
    while 2 * lag <= steps / 2:
        lag *= 2
        yield lag


def _schedule(recipe: Recipe, lag: int) -> tuple[Any, Any]:
    """Before and after each step: the sum of rates, and the rate as it is felt; shares of the peak."""
    rates = np.array([recipe.rate(step) for step in range(recipe.steps)])
    keep = math.exp(-1 / lag)
    felt = [0.0]
    for rate in rates:
        felt.append(felt[-1] * keep + float(rate) * (1 - keep))
    return np.concatenate([[0.0], np.cumsum(rates)]), np.array(felt)


def _posterior(features: Any, curve: Any, reach: float) -> tuple[float, Any, Any]:
    """Of Bayesian linear regression: log marginal likelihood, mean and covariance of the three weights."""
    mean = np.array([curve.mean(), reach, 0.3 * reach])
    prior = np.diag([(10 * reach) ** 2, reach**2, reach**2])
    seen = features @ prior @ features.T + (_NOISE * reach) ** 2 * np.eye(len(curve))
    rest = curve - features @ mean
    root = np.linalg.cholesky(seen)
    white = np.linalg.solve(root, rest)
    gain = np.linalg.solve(seen, features @ prior).T
    likelihood = -0.5 * float(white @ white) - float(np.log(np.diag(root)).sum())
    return likelihood, mean + gain @ rest, prior - gain @ features @ prior


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
