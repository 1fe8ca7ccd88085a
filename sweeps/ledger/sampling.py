"""What to try next: Optuna's samplers, asked by trial so that a restart asks the same again.

A sampler lives for one question. Its randomness comes from the study's seed and the trial's number alone, so
a resumed sweep proposes what the uninterrupted one would have proposed from the same results.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeps.space import Space

_DRAWS = 20  # of a sampler, before a finite space is searched for what is left

SAMPLERS: Mapping[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: TPESampler(seed=seed, n_startup_trials=8, constant_liar=True),
    "random": lambda seed: RandomSampler(seed=seed),
}


class SeenStudy(optuna.Study):
    """A study as the sampler and the stopping rule may see it: without controls and replicates."""

    def __init__(self, study: optuna.Study, storage: optuna.storages.BaseStorage, hidden: str) -> None:
        """Look at `study`, leaving out trials that carry the user attribute `hidden`."""
        super().__init__(study_name=study.study_name, storage=storage)
        self.hidden = hidden

    def _get_trials(
        self,
        deepcopy: bool = True,  # noqa: FBT001, FBT002
        states: Any = None,
        use_cache: bool = False,  # noqa: ARG002, FBT001, FBT002
    ) -> list[FrozenTrial]:
        # Never from the study's cache, which only `Study.ask` renews; the storage has one of its own.
        trials = super()._get_trials(deepcopy=deepcopy, states=states, use_cache=False)
        return [trial for trial in trials if self.hidden not in trial.user_attrs]

    def get_trials(self, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:  # noqa: FBT001, FBT002
        """Trials that count for search, as `optuna.Study.get_trials` gives them."""
        return self._get_trials(deepcopy=deepcopy, states=states)


def propose(
    study: SeenStudy,
    space: Space,
    number: int,
    *,
    sampler: str,
    seed: int,
    fixed: Mapping[str, Any] | None = None,
) -> dict[str, Any] | None:
    """Parameters for trial `number`, or None when a finite space has nothing left that was not tried.

    Args:
        study: what was seen so far.
        space: the dimensions, parents before those that depend on them.
        number: the trial's number; with `seed`, all the randomness there is.
        sampler: a name in SAMPLERS.
        seed: of the study.
        fixed: values that somebody else has chosen; a wholly fixed proposal may repeat a tried one.
    """
    fixed = fixed or {}
    tried = _tried(study, space) if space.finite else frozenset()
    for draw in range(_DRAWS):
        params = _sample(study, space, number, SAMPLERS[sampler](_seed(seed, number, draw)), fixed)
        if space.key(params) not in tried or set(params) <= set(fixed):
            return params
    left = [
        params
        for params in space.grid()
        if space.key(params) not in tried and all(params.get(name) == fixed[name] for name in fixed)
    ]
    return random.Random(_seed(seed, number, _DRAWS)).choice(left) if left else None  # noqa: S311 - no secret


def _sample(
    study: SeenStudy, space: Space, number: int, sampler: BaseSampler, fixed: Mapping[str, Any]
) -> dict[str, Any]:
    trial = _stand_in(number)
    params: dict[str, Any] = {}
    for name, distribution in space.walk(params):
        params[name] = fixed[name] if name in fixed else _one(study, sampler, trial, name, distribution)
    return params


def _one(
    study: SeenStudy, sampler: BaseSampler, trial: FrozenTrial, name: str, distribution: BaseDistribution
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


def _tried(study: SeenStudy, space: Space) -> frozenset[tuple[Any, ...]]:
    trials: Iterable[FrozenTrial] = study.get_trials(deepcopy=False)
    return frozenset(space.key(trial.params) for trial in trials if trial.state != TrialState.WAITING)


def _seed(*parts: int) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")
