"""The margin within which one loss is as good as another."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from sweeps.results.candidates import Candidate
from sweeps.results.noise import variance

_SHARE_OF_SEEDS = 0.5  # of the standard deviation of losses between seeds
_LOWEST, _HIGHEST = 0.0002, 0.0005  # of the loss itself


@dataclass(frozen=True)
class Margin:
    """Nats per token, and what they come from: the spec, losses under several seeds, the bound that these lie
    beyond, or the loss alone.
    """

    nats: float
    source: Literal["spec", "seeds", "bound", "loss"]


def margin_of(candidates: Iterable[Candidate], wanted: float | None) -> Margin:
    """The spec's margin, or one from the data.

    From the data it is half of what another seed moves the validation loss of one configuration by (standard
    deviation over its seeds): less than the luck of one seed is no reason to take a larger model. That is
    another noise than the one in a difference, out of which it drops by pairing; so noise in a difference
    hardly widens the margin, and "as good" is claimed less often with it, not more. The seed that chose a
    configuration counts too: its flattery is a tenth of what a seed does, and seeds are few. A standard
    deviation of four seeds is rough, so the margin is held between 0.02 and 0.05 % of the loss; it is the
    latter where no configuration has two seeds.

    Args:
        candidates: what is compared under fresh seeds; matched controls left out, since they come later and
            the margin decides of what they are made.
        wanted: the spec's, nats per token.
    """
    if wanted is not None:
        return Margin(wanted, "spec")
    known = list(candidates)
    if not known:
        return Margin(0.0, "loss")
    loss = abs(fmean(each.mean for each in known))
    spreads = [variance(losses) for each in known if len(losses := list(each.losses.values())) > 1]
    if not spreads:
        return Margin(_HIGHEST * loss, "loss")
    nats = _SHARE_OF_SEEDS * math.sqrt(fmean(spreads))
    bounded = min(max(nats, _LOWEST * loss), _HIGHEST * loss)
    return Margin(bounded, "seeds" if bounded == nats else "bound")
