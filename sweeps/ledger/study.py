"""One sweep's study, written by its driver alone, read by any process."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, Unpack

from optuna.storages import BaseStorage

from sweeps.ledger.attempts import Attempts
from sweeps.ledger.attributes import StudyAttributes, nothing_left
from sweeps.ledger.enqueued import complete_enqueued
from sweeps.ledger.search.conclusion import search_answers
from sweeps.ledger.search.estimates import good_rate
from sweeps.ledger.search.front_proposals import TrialCosts
from sweeps.ledger.search.proposing import Known, proposals_of
from sweeps.ledger.search.sampling import Turn
from sweeps.ledger.search.space import Space
from sweeps.ledger.store.created import attributes_of, cost_attributes, role_attributes, template
from sweeps.ledger.store.lease import AskedTwiceError, Lease, hold, standing
from sweeps.ledger.store.looking import look
from sweeps.ledger.store.mirror import Mirror
from sweeps.ledger.store.score_marks import evaluation_attributes
from sweeps.ledger.store.storage import (
    engine_of,
    make,
    no_such_study,
    open_storage,
    refuse_foreign,
    stored_spec,
    unused_study,
)
from sweeps.ledger.store.trials import (
    ATTEMPT,
    REQUEST,
    ROLE,
    SETTINGS,
    STOPPED,
    assignment_of,
    record_owner,
)
from sweeps.promotion import Promotion
from sweeps.records import Assignment, Role, State, TrialRecord
from sweeps.search_answers import SweepCompletion
from sweeps.spec import Spec
from sweeps.spec.values import steps_of
from sweeps.warm_start import Taken


class Ledger(Attempts):
    """One sweep's study, opened for its driver: what runs next, beside what is written of what runs."""

    def __init__(
        self, storage: BaseStorage, spec: Spec, depth: int | None = None, costs: TrialCosts | None = None
    ) -> None:
        """Use `Ledger.open` for a sweep that may not exist yet, `Ledger.read` for one that must."""
        self._storage = storage
        self._study_id = storage.get_study_id_from_name(spec.name)
        study = StudyAttributes(storage, self._study_id, spec.name)
        super().__init__(
            spec,
            study,
            Mirror(storage, self._study_id, spec, study.study_uuid, Space.of(spec).fits),
            costs,
        )
        self.depth = study.layers if depth is None else depth  # of the base; None where it is not known
        self.space = Space.of(spec)
        self._costs = partial(cost_attributes, costs)
        self._proposals = proposals_of(
            spec, self._seen, depth=self.depth, rate=self._good_rate, costs=costs, warm_start=study.warm_start
        )
        self._lease: Lease | None = None

    @classmethod
    def open(
        cls,
        url: str,
        spec: Spec,
        input_digests: Mapping[str, str] | None = None,
        *,
        depth: int | None = None,
        costs: TrialCosts | None = None,
        warm_start: Sequence[Taken] = (),
    ) -> Ledger:
        """The study of this spec, made now if it does not exist.

        Args:
            url: of the store.
            spec: what the study is for.
            input_digests: digests of what the spec only names: the base, the text.
            depth, costs, warm_start: as `Known` has them.

        Raises:
            SpecError: the study belongs to another spec, or to other inputs; every difference is shown.
        """
        storage = open_storage(url)
        make(storage, spec, input_digests or {}, [each.to_json() for each in warm_start])
        ledger = cls(storage, spec, depth, costs)
        if depth is not None:
            ledger.study.note_layers(depth)
        return ledger

    @classmethod
    @contextmanager
    def driven(
        cls, url: str, spec: Spec, input_digests: Mapping[str, str] | None = None, **known: Unpack[Known]
    ) -> Iterator[Ledger]:
        """As `open`, for the one process that drives the sweep: its writes are fenced by a lease.

        Raises:
            SpecError: as for `open`.
            LedgerHeldError: another process drives the sweep; or, from any write, has taken it over.
        """
        storage = open_storage(url)
        refuse_foreign(storage, spec.name)
        with hold(engine_of(storage), unused_study(storage, spec.name), spec.name) as lease:
            ledger = cls.open(url, spec, input_digests, **known)
            ledger._lease = lease
            ledger._mirror.exclusive = True
            try:
                yield ledger
            finally:
                ledger._mirror.exclusive = False

    @classmethod
    def read(cls, url: str, name: str) -> Ledger:
        """The study of this name, under the spec that it was last run with; its store is not written to.

        Raises:
            SpecError: there is none, or it was not made by this program.
        """
        storage = look(url)
        stored = stored_spec(storage, name) if storage is not None else None
        if storage is None or stored is None:
            raise no_such_study(storage, name)
        return cls(storage, stored)

    @property
    def finished(self) -> bool:
        """Whether running the sweep again would find nothing to do."""
        return nothing_left(self.spec, self.study, self.unfinished())

    @property
    def driver(self) -> str | None:
        """The process that drives the sweep now, in words; None when none does."""
        found = standing(engine_of(self._storage), self._study_id)
        return found.holder if found and found.alive else None

    def record_completion(self, ended_by: str, margin: float) -> None:
        """The agenda of this budget is carried out; saying it again is harmless.

        Args:
            ended_by: what ended the search.
            margin: how near to the best loss counts as good, in nats per token.
        """
        self.study.note_search_answers(search_answers(self.spec, self.trials(), margin))
        done, budget, later = len(self.trials()), self.spec.budget.to_json(), self.spec.changeable
        self.study.record_completion(SweepCompletion(done, budget, time.time(), ended_by, later))

    # -- what was asked ----------------------------------------------------------------------------

    def trials(self) -> list[TrialRecord]:
        """Every trial, in the order of their numbers."""
        return self._mirror.records()

    def unfinished(self) -> list[TrialRecord]:
        """The trials that have not ended, without those that another program runs."""
        return self._mirror.open_records()

    @property
    def asked(self) -> int:
        """Trials that count against the budget: not what runs after the search or cannot be run."""
        return self._mirror.asked

    def refresh(self) -> None:
        """See what was changed from outside: a driver sees at once only what is new."""
        self._mirror.refresh()

    def record(self, number: int) -> TrialRecord:
        """One trial."""
        return self._mirror.record(number)

    def owner(self, record: TrialRecord) -> str:
        """What the states, the curve and the models of a trial bear."""
        return record_owner(self._mirror.study_uuid, record)

    def start(
        self,
        role: Role,
        settings: Mapping[str, Any],
        *,
        params: Mapping[str, Any] | None = None,
        replicate_of: int | None = None,
        promotion: Promotion | None = None,
        evaluation: Mapping[str, Any] | None = None,
        steps: int | None = None,
    ) -> Assignment:
        """Write down a trial that the agenda asks for by itself (not the sampler), and hand it out.

        `evaluation`: the tasks, shots and limit of such a run; `steps`: in place of those of the settings.
        """
        scored = evaluation_attributes(evaluation, steps)
        return self._create(settings, params or {}, role_attributes(role, replicate_of, promotion) | scored)

    def ask(self) -> Assignment | None:
        """A trial of the sampler's choice, written down; None when a finite space is exhausted.

        The driver asks `take_waiting` first, which sees what is new.
        """
        self._mirror.freshen()
        params = self._proposals.propose(self._turn)
        if params is None:
            return None
        settings = self.spec.settings_for(params).model_dump()
        return self._create(settings, params, {ROLE: Role.SEARCH.value})

    def prepare(self) -> None:
        """Work out what to `ask` for next while there is time for it: until a trial that runs ends."""
        self._proposals.prepare(self._turn)

    def take_waiting(self) -> Assignment | None:
        """The first trial that was enqueued from outside, if any.

        Values that cannot be run end the trial as FAIL with the reason; missing ones are sampled.
        """
        self._mirror.look()
        for waiting in self.unfinished():
            if waiting.state is State.WAITING and self._mirror.claim(waiting.number):
                assignment = self._settled(waiting.number)
                if assignment is not None:
                    return assignment
        return None

    def requeue(self, number: int) -> Assignment | None:
        """Hand out a trial again whose worker or driver is gone, as its next attempt.

        None for one that was ended from outside meanwhile, or is not run here, or that ends here: the
        stopping rule had decided so before its driver was killed; or it was being taken from the queue then,
        and cannot be run.
        """
        trial = self._mirror.renewed(number)
        if trial.state.is_finished() or not self._mirror.is_ours(number):
            return None
        if STOPPED in trial.user_attrs:
            stopped = trial.user_attrs[STOPPED]
            totals = {name: stopped[name] for name in stopped if name not in ("step", "by")}
            self.tell(number, trial.user_attrs[ATTEMPT], State.PRUNED, totals=totals)
            return None
        if SETTINGS not in trial.user_attrs:
            return self._settled(number)
        with self._mirror.event(number):
            self._mirror.set_attribute(ATTEMPT, trial.user_attrs[ATTEMPT] + 1)
        return self._assignment(number)

    # -- inside ------------------------------------------------------------------------------------

    @property
    def _turn(self) -> Turn:
        return Turn(self._mirror.count, self._mirror.asked)

    def _good_rate(self) -> float:
        return good_rate(self.spec, self._mirror.known())

    def _settled(self, number: int) -> Assignment | None:
        """An enqueued trial that was taken, if it can be run."""
        done = complete_enqueued(number, self._mirror, self._proposals, self.spec, self._costs)
        return self._assignment(number) if done else None

    def _create(
        self, settings: Mapping[str, Any], params: Mapping[str, Any], attributes: Mapping[str, Any]
    ) -> Assignment:
        attributes = attributes_of(settings, steps_of(settings), {**attributes, **self._costs(settings)})
        request = attributes[REQUEST]
        try:
            with self._lease.creating(request) if self._lease else nullcontext():
                number = self._mirror.create(template(params, self.space.distributions(params), attributes))
        except AskedTwiceError:  # it is there, and only the reply to that was lost
            self._mirror.look()
            number = self._mirror.requested(request)
        return self._assignment(number)

    def _assignment(self, number: int) -> Assignment:
        trial, study_uuid = self._mirror.trial(number), self._mirror.study_uuid
        return assignment_of(trial, self.spec, study_uuid, self._mirror.record)
