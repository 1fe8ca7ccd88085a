"""The margin within which one loss is as good as another."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from sweeps.results.candidates import Candidate
from sweeps.results.noise import variance
from sweeps.search_answers import SweepCompletion
from sweeps.spec.margins import as_written, percent_of

_SHARE_OF_SEEDS = 0.5  # of the standard deviation of losses between seeds
_LOWEST, _HIGHEST = 0.0002, 0.0005  # of the loss itself


@dataclass(frozen=True)
class Margin:
    """Nats per token, and what they come from: the spec, losses under several seeds, the bound that these lie
    beyond, or the loss alone.

    Attributes:
        nats: per token.
        source: what they come from.
        percent: of the control's test loss, where the spec has it so.
        was: the margin that the answer was first read with, in words, where it was another.
    """

    nats: float
    source: Literal["spec", "seeds", "bound", "loss"]
    percent: float | None = None
    was: str | None = None


def margin_before(completions: Sequence[SweepCompletion], wanted: float | str | None) -> str | None:
    """The spec's margin when its sweep was first carried out, in words; None where it is still the same."""
    path = "finalists.margin"
    known = [each.changeable[path] for each in completions if each.changeable and path in each.changeable]
    return as_written(known[0]) if known and known[0] != wanted else None


def margin_of(
    candidates: Iterable[Candidate], wanted: float | str | None, control: Candidate | None = None
) -> Margin:
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
        wanted: the spec's: nats per token, or a percentage of the control's test loss; of validation loss
            while there is none.
        control: the original at its best rate; without one a percentage is of the mean of all.
    """
    known, percent = list(candidates), percent_of(wanted)
    if percent is not None:
        of = [control] if control else known
        losses = [each.mean if each.test_loss is None else each.test_loss for each in of]
        return Margin(percent / 100 * abs(fmean(losses)) if losses else 0.0, "spec", percent)
    if wanted is not None:
        return Margin(float(wanted), "spec")
    if not known:
        return Margin(0.0, "loss")
    loss = abs(fmean(each.mean for each in known))
    spreads = [variance(found) for each in known if len(found := list(each.losses.values())) > 1]
    if not spreads:
        return Margin(_HIGHEST * loss, "loss")
    nats = _SHARE_OF_SEEDS * math.sqrt(fmean(spreads))
    bounded = min(max(nats, _LOWEST * loss), _HIGHEST * loss)
    return Margin(bounded, "seeds" if bounded == nats else "bound")
