"""Proposals along the front of losses against the score on a task, which is known after a trial alone.

It has a Gaussian process of its own. What a configuration may gain is, at each level of the score, the chance
that it reaches the level times the expected improvement on the lowest loss that was found there. The mean
over the levels is the expected improvement of the hypervolume (Emmerich, Deutz and Klinkenberg, CEC 2011)
where loss and score are independent given the settings; a cost that is known is the case of chances 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sweeps.ledger.search.model import Model
from sweeps.ledger.search.normal import Array, normal_below

_LEVELS = 16
_BEYOND = 2.0  # deviations beyond the ends of the front, up to which a configuration gains


def score_front_improvement(
    model: Model, scores: Model, improvement: Callable[[float], Array], points: Array
) -> Array:
    """What each candidate is expected to gain, over all levels of the score.

    Args:
        model: of losses.
        scores: of what is minimised of the scores.
        improvement: of every candidate on a loss, on the model's scale.
        points: coordinates of the candidates.
    """
    losses, _ = model.posterior(model.said.x)
    tried, _ = scores.posterior(model.said.x)
    means, deviations = scores.posterior(points)
    loss_end, score_end = _ends(losses, tried)
    best = min(float(tried.min()), float((means - deviations).min()))
    found = np.zeros(len(points))
    for level in np.linspace(best, score_end, _LEVELS):
        reached = losses[tried <= level]
        lowest = min(float(reached.min()), loss_end) if len(reached) else loss_end
        found += normal_below((level - means) / deviations) * improvement(lowest)
    return found / _LEVELS


def _ends(losses: Array, scores: Array) -> tuple[float, float]:
    """The highest loss and score that count: somewhat beyond those of the front's ends."""
    highest_loss = float(losses[np.lexsort((losses, scores))[0]])
    highest_score = float(scores[np.lexsort((scores, losses))[0]])
    return highest_loss + _BEYOND, highest_score + _BEYOND
