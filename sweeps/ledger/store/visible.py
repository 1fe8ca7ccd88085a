"""What the sampler and the stopping rules may see of a study, kept in order as its trials change.

Controls and replicates are hidden from both. Trials of other programs are seen by the sampler where it could
have proposed them and their value may be a loss, and by no stopping rule.
"""

from __future__ import annotations

import bisect
import copy
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from sweeps.ledger.store.trials import CONSTRAINT, END, HIDDEN, RUNG
from sweeps.records import Role, TrialRecord

Fits = Callable[[Mapping[str, Any]], bool]


class VisibleTrials:
    """The visible trials of one study; who takes them in has read them."""

    def __init__(self, fits: Fits) -> None:
        """See nothing yet.

        Args:
            fits: whether the search space holds these parameters.
        """
        self.trials: dict[int, FrozenTrial] = {}  # by number
        self.ended: list[FrozenTrial] = []  # in the order in which that was learned
        self.ended_last: FrozenTrial | None = None  # of ours among them, by what the study says
        self.complete: list[FrozenTrial] = []  # of ours, by number
        self._fits = fits
        self._ends = 0  # of trials that a driver ended, hidden ones too
        self._rungs: defaultdict[str, list[float]] = defaultdict(list)  # losses of ours, in order

    @property
    def next_end(self) -> int:
        """The place among the ends of the study's trials that the next one has."""
        return self._ends + 1

    def on_rung(self, name: str) -> Sequence[float]:
        """The losses on a rung of a stopping rule, the lowest first."""
        return self._rungs[name]

    def take(self, trial: FrozenTrial, record: TrialRecord) -> None:
        """Take in a trial as it now is."""
        number, trial = trial.number, _unconstrained(trial) if record.ours else trial
        if not self._is_visible(trial, record):
            self.trials.pop(number, None)
            return
        if record.role is not Role.OTHER:
            self._take_rungs(self.trials.get(number), trial)
        self.trials[number] = trial

    def take_end(self, trial: FrozenTrial, *, ours: bool) -> None:
        """Take in, once, that a trial has ended; it was taken in as it ended."""
        end = trial.user_attrs.get(END, 0) if ours else 0  # 0: it was ended from outside
        self._ends = max(self._ends, end)
        if trial.number not in self.trials:
            return
        trial = self.trials[trial.number]
        self.ended.append(trial)
        if not ours:
            return
        if end > (self.ended_last.user_attrs[END] if self.ended_last else 0):
            self.ended_last = trial
        if trial.state is TrialState.COMPLETE:
            bisect.insort(self.complete, trial, key=lambda each: each.number)

    # -- inside ----------------------------------------------------------------------------------------

    def _is_visible(self, trial: FrozenTrial, record: TrialRecord) -> bool:
        """Whether the sampler may see a trial; of those not run here, one that it could have proposed."""
        if record.ours:
            return HIDDEN not in trial.user_attrs
        return self._fits(trial.params) and all(value >= 0 for value in trial.values or ())  # and no NaN

    def _take_rungs(self, before: FrozenTrial | None, trial: FrozenTrial) -> None:
        then, now = before.system_attrs if before else {}, trial.system_attrs
        for name in then.keys() ^ now.keys():
            if name.startswith(RUNG) and name in now:
                bisect.insort(self._rungs[name], now[name])
            elif name.startswith(RUNG):  # it could not be written
                self._rungs[name].remove(then[name])


def _unconstrained(trial: FrozenTrial) -> FrozenTrial:
    """A trial without what says that fresh seeds put it behind another: the search learns from its loss."""
    if CONSTRAINT not in trial.system_attrs:
        return trial
    seen = copy.copy(trial)
    seen.system_attrs = {name: value for name, value in trial.system_attrs.items() if name != CONSTRAINT}
    return seen
