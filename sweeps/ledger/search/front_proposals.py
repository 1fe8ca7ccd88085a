"""Proposals along the front of losses against a cost that is known before a trial runs.

What a configuration may gain is expected improvement at each cost level from its own on: on the lowest loss
that was found at that level or below it. The mean over the levels is the expected improvement of the
hypervolume (Emmerich, Deutz and Klinkenberg, CEC 2011), with levels equally far apart and one cost that is
exact, so that it has a closed form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sweeps.ledger.search.model import Model
from sweeps.ledger.search.normal import Array
from sweeps.records import TrialRecord
from sweeps.spec import Spec
from sweeps.spec.equivalence import replaced

TrialCosts = Callable[[Mapping[str, Any]], Mapping[str, float]]  # of a whole `trial:` section, by name
SAME = 1e-6  # of a cost: below that, two are the same
_MOST_LEVELS = 16  # of many costs, quantiles


@dataclass(frozen=True)
class CostAim:
    """The cost that losses are minimised against."""

    name: str
    baseline: Mapping[str, Any]  # the spec's `trial:` section
    costs: TrialCosts

    def of_settings(self, settings: Mapping[str, Any]) -> float:
        """Of a whole `trial:` section; infinite where no trial can run with it."""
        return float(self.costs(settings).get(self.name, np.inf)) if settings else np.inf

    def of_params(self, params: Mapping[str, Any]) -> float:
        """Of the baseline with searched values in place."""
        return self.of_settings(replaced(self.baseline, params))


def cost_aim(spec: Spec, costs: TrialCosts | None) -> CostAim | None:
    """The cost that a spec aims at; None where it has no such aim, or costs are not known."""
    if spec.objective.cost is None or costs is None:
        return None
    return CostAim(spec.objective.cost, spec.trial.model_dump(), costs)


def front_improvement(
    model: Model,
    improvement: Callable[[float], Array],
    costs: Array,
    records: Sequence[TrialRecord],
    aim: CostAim,
) -> Array:
    """What each candidate is expected to gain, over all cost levels from its own on.

    Args:
        model: of the trials that have ended.
        improvement: of every candidate on a loss, on the model's scale.
        costs: of the candidates.
        records: the trials that the model is of, and others.
        aim: the cost.
    """
    by_number = {record.number: record for record in records}
    tried = np.array([aim.of_settings(by_number[number].settings) for number in model.said.numbers])
    means, _ = model.posterior(model.said.x)
    found = np.zeros(len(costs))
    levels = cost_levels(costs)
    for level in levels:
        below = means[tried <= level * (1 + SAME)]
        # Where nothing was tried yet, whatever is no worse than the worst is a gain.
        lowest = float(below.min() if len(below) else means.max())
        found += np.where(costs <= level * (1 + SAME), improvement(lowest), 0.0)
    return found / max(1, len(levels))


def cost_levels(costs: Array) -> list[float]:
    """The different costs that there are, from the lowest on; of many some, evenly by rank."""
    finite = np.sort(costs[np.isfinite(costs)])
    levels = [float(cost) for n, cost in enumerate(finite) if n == 0 or cost > finite[n - 1] * (1 + SAME)]
    if len(levels) > _MOST_LEVELS:
        places = np.linspace(0, len(levels) - 1, _MOST_LEVELS).round().astype(int)
        levels = [levels[place] for place in places]
    return levels
