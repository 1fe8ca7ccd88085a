"""An in-memory mirror of a study's trials: the one place that reads and writes them.

A finished trial never changes, so it is read once. What an unfinished one holds is asked for again every
time, unless this process holds the study's lease: then no other writes to the trials that run, and what
was written here is what they hold. Trials that are enqueued are new numbers, and those are looked for
before every question to the sampler; one that was ended from outside is found by `refresh`, or by the
first write to it.
"""

from __future__ import annotations

import bisect
import copy
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Reversible, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState

from sweeps.errors import StaleAttemptError
from sweeps.ledger.store import writing
from sweeps.ledger.store.loading import legible, load, unfinished
from sweeps.ledger.store.trials import END, HIDDEN, OURS, REQUEST, RUNG, mark_of, record_of
from sweeps.ledger.store.writing import Changes
from sweeps.records import Role, TrialRecord
from sweeps.spec import Spec

Fits = Callable[[Mapping[str, Any]], bool]


class Mirror:
    """One study's trials. A trial given out is never changed afterwards: a write makes another object."""

    def __init__(self, storage: BaseStorage, study_id: int, spec: Spec, study_uuid: str, fits: Fits) -> None:
        """Read nothing yet.

        Args:
            storage: one that `open_storage` gave.
            study_id: Optuna's.
            spec: of the sweep.
            identity: of the study.
            fits: whether the search space holds these parameters.
        """
        self.study_id = study_id
        self.study_uuid = study_uuid
        self.exclusive = False  # whether this process holds the lease
        self.asked = 0  # trials that count against the budget
        # Beneath Optuna's own cache, which reads all that runs every time.
        self._store: RDBStorage = storage._backend  # type: ignore[attr-defined]
        self._spec = spec
        self._fits = fits
        self._trials: list[FrozenTrial] = []  # by number
        self._records: list[TrialRecord] = []
        self._visible: dict[int, FrozenTrial] = {}  # to the sampler; by number
        self.ended: list[FrozenTrial] = []  # of the visible ones, in the order in which that was learned
        self.ended_last: FrozenTrial | None = None  # of ours among them, by what the study says
        self.complete: list[FrozenTrial] = []  # of ours among the visible ones, by number
        self._ends = 0  # of trials that a driver ended
        self._rungs: defaultdict[str, list[float]] = defaultdict(list)  # losses of visible ones, in order
        self._open: dict[int, int] = {}  # ids of unfinished trials by number
        self._stale: set[int] = set()  # ids of trials to be read again
        self._changes: Changes | None = None  # of the event that is on
        self._changing = -1  # number of its trial, or of the last one's

    # -- reading ---------------------------------------------------------------------------------------

    def look(self) -> None:
        """Read what is new, and what may have changed; within an event nothing, as it is not written yet."""
        if self._changes is not None:
            return
        with legible(f"study {self._spec.name!r}"):
            found = self._news()
        for trial in found:
            self._take(trial)
        self._stale.clear()

    def freshen(self) -> None:
        """As `look`, unless what is remembered is as good: to the holder of the lease, all but new trials."""
        if not self.exclusive or self._stale or not self._trials:
            self.look()

    def refresh(self) -> None:
        """As `look`, and find the trials that were ended, or taken, or are run, by another program."""
        standing = unfinished(self._store, self.study_id)
        for number, trial_id in self._open.items():
            theirs = not self._records[number].ours
            if theirs or standing.get(trial_id) != self._records[number].state.value:
                self._stale.add(trial_id)
        self.look()

    def records(self) -> list[TrialRecord]:
        """Every trial, in the order of their numbers; a list of the caller's own."""
        self.freshen()
        return list(self._records)

    def record(self, number: int) -> TrialRecord:
        """One trial in our words."""
        self.trial(number)
        return self._records[number]

    def open_records(self) -> list[TrialRecord]:
        """Those of ours that have not ended, and what waits to be taken."""
        self.freshen()
        return [record for number in self._open if (record := self._records[number]).ours]

    def trial(self, number: int) -> FrozenTrial:
        """One trial in Optuna's words."""
        if number >= len(self._trials) or self._stale:
            self.look()
        if number in self._open and not self.exclusive and self._changes is None:
            self._renew(number)
        return self._trials[number]

    def renewed(self, number: int) -> FrozenTrial:
        """One trial, as the store has it now."""
        if number >= len(self._trials):
            self.look()
        self._renew(number)
        return self._trials[number]

    def on_rung(self, name: str) -> Sequence[float]:
        """The losses on a rung of a stopping rule, the lowest first."""
        self.freshen()
        return self._rungs[name]

    def running(self) -> list[FrozenTrial]:
        """Those of the visible ones that run, in no order."""
        self.freshen()
        open_ones = (self._visible.get(number) for number in self._open)
        return [trial for trial in open_ones if trial is not None and trial.state is TrialState.RUNNING]

    def visible(self) -> Reversible[FrozenTrial]:
        """What the sampler may see, in the order of numbers; it learns from what was not run here, too."""
        self.freshen()
        return self._visible.values()

    def compared(self) -> list[FrozenTrial]:
        """What the stopping rule may see, in the order of numbers."""
        return [trial for trial in self.visible() if self._records[trial.number].ours]

    def is_ours(self, number: int) -> bool:
        """Whether this sweep runs a trial that was read, ran it, or will."""
        return self._records[number].ours

    @property
    def count(self) -> int:
        """How many trials there are, which is the next one's number."""
        return len(self._trials)

    # -- writing ---------------------------------------------------------------------------------------

    def create(self, template: FrozenTrial) -> int:
        """The number of a new trial, made in one write: it is either wholly in the study or not at all."""
        after = self._trials[-1] if self._trials else None
        created = writing.create(self._store, self.study_id, template, after, self._marks)
        if created.number == len(self._trials):
            self._take(created)
        else:  # others came in between
            self.look()
        return int(created.number)

    def requested(self, request: str) -> int:
        """The number of the trial that was created under this key."""
        return next(t.number for t in reversed(self._trials) if t.user_attrs.get(REQUEST) == request)

    def claim(self, number: int) -> bool:
        """Set a waiting trial running, marked as ours; whether it was still waiting."""
        try:
            return writing.claim(self._store, self._id(number), self._marks(number))
        finally:
            self._renew(number)

    @contextmanager
    def event(self, number: int) -> Iterator[None]:
        """What is written to a trial inside is one write at its end, all or none; it is remembered at once.

        Raises:
            StaleAttemptError: the trial has ended.
        """
        assert self._changes is None, "one event at a time"
        self._changes, self._changing = (changes := Changes()), number
        try:
            yield
            if changes:
                writing.write(self._store, self._id(number), changes)
        except UpdateFinishedTrialError:
            self._renew(number)  # ended from outside, or by a write whose answer was lost
            raise StaleAttemptError(f"trial {number} has ended: {self._trials[number].state.name}") from None
        except BaseException:
            self._stale.add(self._id(number))  # it is not known whether it was written
            raise
        finally:
            self._changes = None
        if changes.state is not None:
            values = None if changes.value is None else [changes.value]
            self._change(state=changes.state, values=values, datetime_complete=changes.ended)

    def set_loss(self, step: int, loss: float) -> None:
        """A held-out loss of the event's trial."""
        self._pending.losses[step] = loss
        self._change(intermediate_values={**self._changed.intermediate_values, step: loss})

    def set_attribute(self, name: str, value: Any) -> None:
        """A user attribute of the event's trial."""
        plain = json.loads(json.dumps(value))  # as it will be read
        self._pending.user_attrs[name] = plain
        self._change(user_attrs={**self._changed.user_attrs, name: plain})

    def set_system_attribute(self, trial_id: int, name: str, value: Any) -> None:
        """A system attribute of the event's trial, by Optuna's id: pruners keep their rungs there."""
        assert trial_id == self._changed._trial_id, "an event is of one trial"
        self._pending.system_attrs[name] = value
        self._change(system_attrs={**self._changed.system_attrs, name: value})

    def set_param(self, name: str, value: Any, distribution: BaseDistribution) -> None:
        """A parameter that the event's trial, an enqueued one, did not have."""
        self._pending.params[name] = value, distribution
        trial = self._changed
        distributions = {**trial.distributions, name: distribution}
        self._change(params={**trial.params, name: value}, distributions=distributions)

    def end(self, state: TrialState, value: float | None = None) -> None:
        """The last state of the event's trial, and its value if it has one; remembered once it is written."""
        self.set_attribute(END, self._ends + 1)
        self._pending.state, self._pending.value, self._pending.ended = state, value, datetime.now()  # noqa: DTZ005 - Optuna keeps local time

    # -- inside ----------------------------------------------------------------------------------------

    def _id(self, number: int) -> int:
        return int(self._trials[number]._trial_id)

    @property
    def _pending(self) -> Changes:
        assert self._changes is not None, "writes belong to an event"
        return self._changes

    def _marks(self, number: int) -> dict[str, Any]:
        return {OURS: mark_of(self.study_uuid, number)}

    def _news(self) -> list[FrozenTrial]:
        """All trials the first time; later those that are new, and those that may have changed."""
        if not self._trials:
            return load(self._store, self.study_id)
        if not self.exclusive:
            self._stale.update(self._open.values())
        last = self._trials[-1]._trial_id
        return self._store._get_trials(self.study_id, None, self._stale, last)

    def _renew(self, number: int) -> None:
        with legible(f"study {self._spec.name!r}"):
            trial = self._store.get_trial(self._id(number))
        self._take(trial)

    @property
    def _changed(self) -> FrozenTrial:
        return self._trials[self._changing]

    def _change(self, **fields: Any) -> None:
        changed = copy.copy(self._changed)
        for name, value in fields.items():
            setattr(changed, name, value)
        self._take(changed)

    def _take(self, trial: FrozenTrial) -> None:
        """Remember a trial as it now is."""
        number, known = trial.number, trial.number < len(self._trials)
        assert number <= len(self._trials), "numbers have no holes"
        before = self._records[number] if known else None
        record = record_of(trial, self._spec, self.study_uuid, before)
        if known:
            self.asked -= self._records[number].budgeted
            self._trials[number], self._records[number] = trial, record
        else:
            self._trials.append(trial)
            self._records.append(record)
        self.asked += record.budgeted
        if self._is_visible(trial, record):
            if record.role is not Role.OTHER:
                self._take_rungs(self._visible.get(number), trial)
            self._visible[number] = trial
        else:
            self._visible.pop(number, None)
        if not trial.state.is_finished():
            self._open[number] = trial._trial_id
        elif self._open.pop(number, None) is not None or not known:
            self._take_end(trial)

    def _is_visible(self, trial: FrozenTrial, record: TrialRecord) -> bool:
        """Whether the sampler may see a trial; of those not run here, one that it could have proposed."""
        if record.ours:
            return HIDDEN not in trial.user_attrs
        return self._fits(trial.params) and not (trial.values and any(map(math.isnan, trial.values)))

    def _take_rungs(self, before: FrozenTrial | None, trial: FrozenTrial) -> None:
        then, now = before.system_attrs if before else {}, trial.system_attrs
        for name in then.keys() ^ now.keys():
            if name.startswith(RUNG) and name in now:
                bisect.insort(self._rungs[name], now[name])
            elif name.startswith(RUNG):  # it could not be written
                self._rungs[name].remove(then[name])

    def _take_end(self, trial: FrozenTrial) -> None:
        ours = self.is_ours(trial.number)
        end = trial.user_attrs.get(END, 0) if ours else 0  # 0: it was ended from outside
        self._ends = max(self._ends, end)
        if trial.number not in self._visible:
            return
        self.ended.append(trial)
        if not ours:
            return
        if end > (self.ended_last.user_attrs[END] if self.ended_last else 0):
            self.ended_last = trial
        if trial.state is TrialState.COMPLETE:
            bisect.insort(self.complete, trial, key=lambda each: each.number)
