"""Configurations by Optuna's samplers, for a trial that does not exist yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeps.ledger.search.space import Space
from sweeps.ledger.search.view import SearchView


def sample(
    study: SearchView, space: Space, number: int, sampler: BaseSampler, fixed: Mapping[str, Any]
) -> dict[str, Any]:
    """A configuration by one of Optuna's samplers, one setting after another.

    Args:
        study: what the sampler sees.
        space: the dimensions.
        number: of the trial that is asked for.
        sampler: of Optuna's.
        fixed: values that were chosen elsewhere.
    """
    trial = _stand_in(number)
    params: dict[str, Any] = {}
    for name, distribution in space.walk(params):
        params[name] = fixed[name] if name in fixed else _one(study, sampler, trial, name, distribution)
    return params


def _one(
    study: SearchView, sampler: BaseSampler, trial: FrozenTrial, name: str, distribution: BaseDistribution
) -> Any:
    if distribution.single():
        return distribution.to_external_repr(0.0) if _is_choice(distribution) else distribution.low  # type: ignore[attr-defined]
    return sampler.sample_independent(study, trial, name, distribution)


def _is_choice(distribution: BaseDistribution) -> bool:
    return isinstance(distribution, optuna.distributions.CategoricalDistribution)


def _stand_in(number: int) -> FrozenTrial:
    """The trial that is being asked for, before it exists: samplers read no more of it than its number."""
    trial = create_trial(state=TrialState.RUNNING)
    trial.number = number
    return trial
