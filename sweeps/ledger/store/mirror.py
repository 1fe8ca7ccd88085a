"""An in-memory mirror of a study's trials: the one place that reads and writes them.

A finished trial never changes, so it is read once. What an unfinished one holds is asked for again every
time, unless this process holds the study's lease: then no other writes to the trials that run, and what
was written here is what they hold. Trials that are enqueued are new numbers, and those are looked for
before every question to the sampler; one that was ended from outside is found by `refresh`, or by the
first write to it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Iterator, Sequence
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
from sweeps.ledger.store.marks import OURS_PREFIX, united
from sweeps.ledger.store.trials import CONSTRAINT, END, OURS, REQUEST, mark_of, record_of
from sweeps.ledger.store.visible import Fits, VisibleTrials
from sweeps.ledger.store.writing import Changes
from sweeps.records import TrialRecord
from sweeps.spec import Spec


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
        self.visible = VisibleTrials(fits)  # to the search; what is new is not in it before `freshen`
        # Beneath Optuna's own cache, which reads all that runs every time.
        self._store: RDBStorage = storage._backend  # type: ignore[attr-defined]
        self._spec = spec
        self._trials: list[FrozenTrial] = []  # by number
        self._records: list[TrialRecord] = []
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
            self._take(_united(trial))
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

    def known(self) -> Sequence[TrialRecord]:
        """Every trial that was read, as it was read last."""
        return self._records

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
        return self.visible.on_rung(name)

    def running(self) -> list[FrozenTrial]:
        """Those of the visible ones that run, in no order."""
        self.freshen()
        open_ones = (self.visible.trials.get(number) for number in self._open)
        return [trial for trial in open_ones if trial is not None and trial.state is TrialState.RUNNING]

    def compared(self) -> list[FrozenTrial]:
        """What the stopping rule may see, in the order of numbers."""
        self.freshen()
        return [trial for trial in self.visible.trials.values() if self._records[trial.number].ours]

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

    def set_rung(self, number: int, name: str, loss: float) -> None:
        """The loss with which the event's trial, of this number, has reached a rung of a stopping rule."""
        assert number == self._changing, "an event is of one trial"
        self._pending.system_attrs[name] = loss  # where Optuna's own pruners keep their rungs
        self._change(system_attrs={**self._changed.system_attrs, name: loss})

    def set_param(self, name: str, value: Any, distribution: BaseDistribution) -> None:
        """A parameter that the event's trial, an enqueued one, did not have."""
        self._pending.params[name] = value, distribution
        trial = self._changed
        distributions = {**trial.distributions, name: distribution}
        self._change(params={**trial.params, name: value}, distributions=distributions)

    def constrain(self, numbers: Collection[int]) -> None:
        """Have Optuna's `best_trial` leave out these trials of ours, which have ended, and no others."""
        ours = (trial for trial in self._trials if self._records[trial.number].ours)
        changed = {trial.number for trial in ours if CONSTRAINT in trial.system_attrs} ^ set(numbers)
        if not changed:
            return
        violating = [self._id(number) for number in changed if number in numbers]
        writing.constrain(self._store, violating, [self._id(n) for n in changed if n not in numbers])
        for number in changed:
            self._renew(number)

    def end(self, state: TrialState, value: float | None = None) -> None:
        """The last state of the event's trial, and its value if it has one; remembered once it is written."""
        self.set_attribute(END, self.visible.next_end)
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
        self._take(_united(trial))

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
        self.visible.take(trial, record)
        if not trial.state.is_finished():
            self._open[number] = trial._trial_id
        elif self._open.pop(number, None) is not None or not known:
            self.visible.take_end(trial, ours=record.ours)


def _united(trial: FrozenTrial) -> FrozenTrial:
    """A trial as it was read, with the marks that are stored among the system's attributes."""
    if not any(name.startswith(OURS_PREFIX) for name in trial.system_attrs):
        return trial
    found = copy.copy(trial)
    found.user_attrs, found.system_attrs = united(trial.user_attrs, trial.system_attrs)
    return found
