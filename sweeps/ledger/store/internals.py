"""What Optuna keeps to itself and the search needs: a study without a store, Hyperband's brackets, ranges.

Another version of Optuna may change any of it without a word; `make compat` tries the oldest and the newest.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Sequence
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import HyperbandPruner
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

States = Container[TrialState] | None


class MemoryStudy(optuna.Study):
    """A study, to be minimised, whose trials come from memory each time that a sampler or pruner asks."""

    def __init__(self, name: str, study_id: int, trials: Callable[[States], Sequence[FrozenTrial]]) -> None:
        """Ask for nothing yet.

        Args:
            name: of the study.
            study_id: Optuna's.
            trials: those in any of these states, or all of them, in the order of their numbers.
        """
        super().__init__(study_name=name, storage=cast("BaseStorage", _Memory(study_id, trials)))

    def _get_trials(
        self,
        deepcopy: bool = True,  # noqa: FBT001, FBT002
        states: States = None,
        use_cache: bool = False,  # noqa: ARG002, FBT001, FBT002
    ) -> list[FrozenTrial]:
        # Samplers ask here. Never from the study's cache, which only `Study.ask` renews.
        return super()._get_trials(deepcopy=deepcopy, states=states, use_cache=False)

    def get_trials(self, deepcopy: bool = True, states: States = None) -> list[FrozenTrial]:  # noqa: FBT001, FBT002
        """Its trials, as `optuna.Study.get_trials` gives them."""
        return self._get_trials(deepcopy=deepcopy, states=states)


class _Memory:
    """What a study asks of its storage for Optuna's samplers and pruners, and nothing else."""

    def __init__(self, study_id: int, trials: Callable[[States], Sequence[FrozenTrial]]) -> None:
        self._study_id, self._trials = study_id, trials

    def get_study_id_from_name(self, _name: str) -> int:
        return self._study_id

    def get_study_directions(self, _study_id: int) -> list[StudyDirection]:
        return [StudyDirection.MINIMIZE]

    def get_all_trials(
        self,
        _study_id: int,
        deepcopy: bool = True,  # noqa: FBT001, FBT002
        states: States = None,
    ) -> list[FrozenTrial]:
        found = list(self._trials(states))
        return copy.deepcopy(found) if deepcopy else found


class Brackets:
    """Hyperband's brackets as Optuna lays them out, and its choice of the one that a trial is in."""

    def __init__(self, *, min_resource: int, max_resource: int, reduction_factor: int) -> None:
        """Lay them out.

        Args:
            min_resource: the first rung of the first bracket.
            max_resource: of a whole trial.
            reduction_factor: each bracket's first rung is so many times as far as the one's before.
        """
        self._pruner = HyperbandPruner(min_resource, max_resource, reduction_factor)
        self._pruner._try_initialization(cast("optuna.Study", None))  # needed where max_resource is unknown

    def __len__(self) -> int:
        """How many there are."""
        return len(self._pruner._pruners)

    def of(self, study: optuna.Study, trial: FrozenTrial) -> int:
        """The number of a trial's bracket, from 0; it hangs on the study's name and the trial's number."""
        return self._pruner._get_bracket_id(study, trial)


def in_range(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a distribution could have given a value of its own type."""
    return bool(distribution._contains(distribution.to_internal_repr(value)))
