"""A study as samplers and stopping rules see it: without controls and replicates, in memory.

They are Optuna's, and ask an `optuna.Study` for its trials: it answers from what the ledger remembers. Rungs,
the only thing that a stopping rule writes, go to the ledger as part of the event that it is asked in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from optuna.trial import FrozenTrial, TrialState

from sweeps.ledger.store.internals import MemoryStudy, States
from sweeps.ledger.store.mirror import Mirror


class SearchView(MemoryStudy):
    """The trials that count for search."""

    def __init__(self, name: str, mirror: Mirror, only: Iterable[FrozenTrial] | None = None) -> None:
        """Look at a study.

        Args:
            name: of the study.
            mirror: its trials.
            only: all that is to be seen of them; None for what there is, as it changes.
        """
        self.mirror = mirror
        window = None if only is None else list(only)

        def trials(states: States) -> Sequence[FrozenTrial]:
            if window is None and states == (TrialState.COMPLETE,):  # what the median is of, at every report
                return mirror.visible.complete
            found = mirror.compared() if window is None else window
            return found if states is None else [trial for trial in found if trial.state in states]

        super().__init__(name, mirror.study_id, trials)
