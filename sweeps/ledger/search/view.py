"""A study as samplers and stopping rules see it: without controls and replicates, in memory.

They are Optuna's, and ask an `optuna.Study` for its trials, or the storage under it. Both are answered from
what the ledger remembers; rungs, the only thing that they write, go to the store.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, cast

import optuna
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweeps.ledger.store.mirror import Mirror


class SearchView(optuna.Study):
    """The trials that count for search."""

    def __init__(self, name: str, mirror: Mirror, only: Iterable[FrozenTrial] | None = None) -> None:
        """Look at a study.

        Args:
            name: of the study.
            mirror: its trials.
            only: all that is to be seen of them; None for what there is, as it changes.
        """
        self.mirror = mirror
        storage = cast("BaseStorage", _Memory(mirror, None if only is None else list(only)))
        super().__init__(study_name=name, storage=storage)

    def _get_trials(
        self,
        deepcopy: bool = True,  # noqa: FBT001, FBT002
        states: Any = None,
        use_cache: bool = False,  # noqa: ARG002, FBT001, FBT002
    ) -> list[FrozenTrial]:
        # Never from the study's cache, which only `Study.ask` renews.
        return super()._get_trials(deepcopy=deepcopy, states=states, use_cache=False)

    def get_trials(self, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:  # noqa: FBT001, FBT002
        """Trials that count for search, as `optuna.Study.get_trials` gives them."""
        return self._get_trials(deepcopy=deepcopy, states=states)


class _Memory:
    """What Optuna's samplers and pruners ask of a storage, and nothing else."""

    def __init__(self, mirror: Mirror, only: list[FrozenTrial] | None) -> None:
        self._mirror, self._only = mirror, only

    def get_study_id_from_name(self, _name: str) -> int:
        return self._mirror.study_id

    def get_study_directions(self, _study_id: int) -> list[StudyDirection]:
        return [StudyDirection.MINIMIZE]

    def get_all_trials(
        self,
        _study_id: int,
        deepcopy: bool = True,  # noqa: FBT001, FBT002
        states: Any = None,
    ) -> list[FrozenTrial]:
        trials = self._mirror.compared() if self._only is None else self._only
        if states == (TrialState.COMPLETE,) and self._only is None:  # what the median is of, at every report
            trials = self._mirror.complete
        wanted = list(trials) if states is None else [trial for trial in trials if trial.state in states]
        return copy.deepcopy(wanted) if deepcopy else wanted

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._mirror.set_system_attribute(trial_id, key, value)
