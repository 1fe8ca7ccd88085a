"""A law of a curve that knows the rate's schedule, fitted, for the end of a longer trial.

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
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tli.training.recipe import Recipe

_POWERS = (0.03, 0.1, 0.2, 0.3, 0.5, 0.8)
_OFFSETS = (0.03, 0.1, 0.3, 1.0, 3.0)  # w, as a share of the trial's own S1
_FIRST_LAG = 6  # steps; doubled up to half of the trial
_NOISE = 0.03  # of a point, as a share of how far the curve reaches
# What the law is wrong by: shares of the curve's reach, and of the part of it that is annealing.
_OF_FALL, _OF_ANNEALING = 0.1, 0.7


def expected_loss(recipe: Recipe, losses: Mapping[int, float], times: float) -> tuple[float, float]:
    """The loss at the end of `times` the tokens, and its standard deviation; nats per token.

    Args:
        recipe: of the trial; the longer one has its schedule, stretched.
        losses: finite held-out losses by step, six or more, the last one after the last step.
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
