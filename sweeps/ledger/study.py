"""One sweep's study, as its driver writes it and everybody reads it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeps.errors import Problem, SpecError, StaleAttemptError
from sweeps.ledger.lease import AskedTwiceError, Lease, hold, standing
from sweeps.ledger.sampling import SeenStudy, propose
from sweeps.ledger.stopping import AMOUNTS, REFERENCE, StoppingRule
from sweeps.ledger.store import (
    FINISHED,
    IDENTITY,
    MATERIAL,
    SPEC,
    engine_of,
    material_conflicts,
    open_storage,
    refuse_foreign,
    spec_conflicts,
    storage_names,
    stored_spec,
    unused_study,
)
from sweeps.ledger.trials import (
    ATTEMPT,
    HIDDEN,
    MICRO_BATCH,
    REASON,
    REPLICATE_OF,
    REQUEST,
    RETRIES,
    ROLE,
    SEED,
    SETTINGS,
    STEPS,
    STOPPED,
    TOTALS,
    assignment_of,
    record_of,
)
from sweeps.records import Assignment, Point, Role, State, TrialRecord
from sweeps.space import Space
from sweeps.spec import Spec


class Ledger:
    """One sweep's study, opened for its driver."""

    def __init__(self, storage: BaseStorage, spec: Spec) -> None:
        """Use `Ledger.open` for a sweep that may not exist yet, `Ledger.read` for one that must."""
        self.spec = spec
        self._storage = storage
        self._study = optuna.load_study(study_name=spec.name, storage=storage)
        self._study_id = storage.get_study_id_from_name(spec.name)
        self.space = Space.of(spec)
        self._seen = SeenStudy(self._study, storage, HIDDEN)
        stopping = spec.stopping
        self._rule = StoppingRule(
            stopping.rule, on=stopping.on, steps=spec.steps, grace=stopping.grace, keep=stopping.keep
        )
        self._reference: float | None = self._study.user_attrs.get(REFERENCE)
        self._ids: dict[int, int] = {}
        self._lease: Lease | None = None

    @classmethod
    def open(cls, url: str, spec: Spec, material: Mapping[str, str] | None = None) -> Ledger:
        """The study of this spec, made now if it does not exist.

        Args:
            url: of the store.
            spec: what the study is for.
            material: digests of what the spec only names: the base, the text.

        Raises:
            SpecError: the study belongs to another spec, or to other material; every difference is shown.
        """
        storage = open_storage(url)
        stored = stored_spec(storage, spec.name)
        if stored is None:
            refuse_foreign(storage, spec.name)
            study_id = unused_study(storage, spec.name)
            storage.set_study_user_attr(study_id, IDENTITY, uuid.uuid4().hex)
        else:
            study_id = storage.get_study_id_from_name(spec.name)
        known = storage.get_study_user_attrs(study_id).get(MATERIAL, {})
        problems = [
            *(spec_conflicts(stored, spec) if stored else ()),
            *material_conflicts(spec.name, known, material or {}),
        ]
        if problems:
            raise SpecError(*problems)
        if material is not None and known != material:
            storage.set_study_user_attr(study_id, MATERIAL, dict(material))
        if stored is None or stored.to_json() != spec.to_json():
            # Last: a study without its spec is one that was killed while it was made, and is made again.
            storage.set_study_user_attr(study_id, SPEC, json.dumps(spec.to_json()))
        return cls(storage, spec)

    @classmethod
    @contextmanager
    def driven(cls, url: str, spec: Spec, material: Mapping[str, str] | None = None) -> Iterator[Ledger]:
        """As `open`, for the one process that drives the sweep: its writes are fenced by a lease.

        Raises:
            SpecError: as for `open`.
            LedgerHeldError: another process drives the sweep; or, from any write, has taken it over.
        """
        storage = open_storage(url)
        refuse_foreign(storage, spec.name)
        with hold(engine_of(storage), unused_study(storage, spec.name), spec.name) as lease:
            ledger = cls.open(url, spec, material)
            ledger._lease = lease
            yield ledger

    @classmethod
    def read(cls, url: str, name: str) -> Ledger:
        """The study of this name, under the spec that it was last run with.

        Raises:
            SpecError: there is none, or it was not made by this program.
        """
        storage = open_storage(url)
        stored = stored_spec(storage, name)
        if stored is None:
            refuse_foreign(storage, name)
            names = ", ".join(sorted(storage_names(storage))) or "none"
            raise SpecError(Problem(f"study {name!r}", "no such study", f"one of: {names}", "sweeps list"))
        return cls(storage, stored)

    @property
    def identity(self) -> str:
        """What tells this study from another that takes its name later."""
        return str(self._study.user_attrs.get(IDENTITY, self.spec.name))

    @property
    def material(self) -> dict[str, str]:
        """Digests of the base and the text of all its trials, as far as they are known."""
        return dict(self._study.user_attrs.get(MATERIAL, {}))

    @property
    def finished(self) -> bool:
        """Whether running the sweep again would find nothing to do."""
        at = self._study.user_attrs.get(FINISHED)
        return at == self.spec.budget.trials and all(record.state.finished for record in self.trials())

    @property
    def driver(self) -> str | None:
        """The process that drives the sweep now, in words; None when nobody does."""
        found = standing(engine_of(self._storage), self._study_id)
        return found.holder if found is not None and found.alive else None

    def mark_finished(self) -> None:
        """The agenda of this budget is carried out."""
        self._storage.set_study_user_attr(self._study_id, FINISHED, self.spec.budget.trials)

    # -- what was asked ----------------------------------------------------------------------------

    def trials(self) -> list[TrialRecord]:
        """Every trial, in the order of their numbers."""
        trials = self._storage.get_all_trials(self._study_id, deepcopy=False)
        self._ids.update({trial.number: trial._trial_id for trial in trials})
        return [record_of(trial, self.spec) for trial in trials]

    def record(self, number: int) -> TrialRecord:
        """One trial."""
        return record_of(self._trial(number), self.spec)

    def start(
        self,
        role: Role,
        settings: Mapping[str, Any],
        *,
        params: Mapping[str, Any] | None = None,
        replicate_of: int | None = None,
    ) -> Assignment:
        """Write down a trial that the agenda asks for by itself (not the sampler), and hand it out."""
        attributes: dict[str, Any] = {ROLE: role.value}
        if role in (Role.CONTROL, Role.REPLICATE):
            attributes[HIDDEN] = True
        if replicate_of is not None:
            attributes[REPLICATE_OF] = replicate_of
        return self._create(settings, params or {}, attributes)

    def ask(self) -> Assignment | None:
        """A trial of the sampler's choice, written down; None when a finite space is exhausted."""
        number = len(self._storage.get_all_trials(self._study_id, deepcopy=False))
        params = self._propose(number, {})
        if params is None:
            return None
        settings = self.spec.settings_for(params).model_dump()
        return self._create(settings, params, {ROLE: Role.SEARCH.value})

    def take_waiting(self) -> Assignment | None:
        """The first trial that somebody enqueued from outside, if any.

        Values that cannot be run end the trial as FAIL with the reason; missing ones are sampled.
        """
        for trial in self._storage.get_all_trials(
            self._study_id, deepcopy=False, states=(TrialState.WAITING,)
        ):
            if self._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                assignment = self._settle(self._storage.get_trial(trial._trial_id))
                if assignment is not None:
                    return assignment
        return None

    def retake(self, number: int) -> Assignment | None:
        """Hand out a trial again whose worker or driver is gone, as its next attempt.

        None for one that ends here: the stopping rule had decided so before its driver was killed; or it was
        being taken from the queue then, and cannot be run.
        """
        trial = self._trial(number)
        if STOPPED in trial.user_attrs:
            stopped = dict(trial.user_attrs[STOPPED])
            reason = self.stopped_reason(stopped.pop("step"))
            self.tell(number, trial.user_attrs[ATTEMPT], State.PRUNED, reason=reason, totals=stopped)
            return None
        if SETTINGS not in trial.user_attrs:
            return self._settle(trial)
        self._set(number, ATTEMPT, trial.user_attrs[ATTEMPT] + 1)
        return self._assignment(self._trial(number))

    # -- what it reported, how it ended ------------------------------------------------------------

    def report(self, number: int, attempt: int, points: Sequence[Point]) -> bool:
        """Write held-out losses down and ask the stopping rule; returns whether the trial is to stop.

        A step that was reported before keeps its first value.

        Raises:
            StaleAttemptError: a later attempt runs this trial, or it has ended.
        """
        trial = self._current(number, attempt)
        for point in points:
            if point.step not in trial.intermediate_values:
                self._storage.set_trial_intermediate_value(trial._trial_id, point.step, point.eval_loss)
        role = Role(trial.user_attrs[ROLE])
        if self._rule.spent is not None and points:
            self._note_spent(trial, role, {point.step: self._rule.spent(point) for point in points})
        if HIDDEN in trial.user_attrs or not points or points[-1].step >= trial.user_attrs[STEPS]:
            return False
        # The baseline is asked about as well, so that its losses stand on the rungs, but it is never stopped.
        trial = self._storage.get_trial(trial._trial_id)
        stop = self._rule.stops(self._seen, trial, self._reference) and role is Role.SEARCH
        if stop:
            self._set(number, STOPPED, {"step": points[-1].step, **points[-1].totals})
        return stop

    def stopped_reason(self, step: int) -> str:
        """Why the stopping rule ended a trial, in words."""
        return f"stopped by {self.spec.stopping.rule} at step {step}"

    def note_retry(
        self, number: int, attempt: int, counts: Mapping[str, int], micro_batch_tokens: int | None
    ) -> None:
        """Write down that a trial is to run again, before it is.

        Args:
            number: of the trial.
            attempt: that ended without a result.
            counts: of such ends by cause.
            micro_batch_tokens: in place of the recipe's from now on; None changes nothing.

        Raises:
            StaleAttemptError: a later attempt runs this trial, or it has ended.
        """
        self._current(number, attempt)
        if micro_batch_tokens is not None:
            self._set(number, MICRO_BATCH, micro_batch_tokens)
        self._set(number, RETRIES, dict(counts))

    def tell(
        self,
        number: int,
        attempt: int,
        state: State,
        *,
        reason: str | None = None,
        totals: Mapping[str, float] | None = None,
    ) -> None:
        """End a trial. COMPLETE takes the last reported loss as its value. Telling it again is harmless.

        Raises:
            StaleAttemptError: a later attempt runs this trial, or it has ended in another way.
        """
        trial = self._trial(number)
        if trial.state.is_finished() and trial.state.name == state.value:
            return
        trial = self._current(number, attempt)
        if reason is not None:
            self._set(number, REASON, reason)
        if totals is not None:
            self._set(number, TOTALS, dict(totals))
        values = None
        if state is not State.FAIL and trial.last_step is not None:
            values = [trial.intermediate_values[trial.last_step]]
        try:
            self._storage.set_trial_state_values(trial._trial_id, TrialState[state.value], values)
        except UpdateFinishedTrialError:
            # The store did it, was restarted before it could say so, and was asked again.
            if self._trial(number).state.name != state.value:
                raise

    # -- inside ------------------------------------------------------------------------------------

    def _note_spent(self, trial: FrozenTrial, role: Role, spent: Mapping[int, float]) -> None:
        """Write down what a trial has spent at each step; the baseline's tells what all are measured by."""
        known = {str(step): amount for step, amount in spent.items()} | trial.user_attrs.get(AMOUNTS, {})
        self._set(trial.number, AMOUNTS, known)
        step, amount = max(spent.items())
        if role is Role.BASELINE and self._reference is None and amount > 0:
            self._reference = amount / step * trial.user_attrs[STEPS]
            self._storage.set_study_user_attr(self._study_id, REFERENCE, self._reference)

    def _propose(self, number: int, fixed: Mapping[str, Any]) -> dict[str, Any] | None:
        sampler = self.spec.sampler
        return propose(self._seen, self.space, number, sampler=sampler.name, seed=sampler.seed, fixed=fixed)

    def _settle(self, trial: FrozenTrial) -> Assignment | None:
        """Complete the parameters of an enqueued trial and write its settings; or end it, with the reason.

        Each write can be the last before a kill: until the settings are there, this is done again.
        """
        self._ids[trial.number] = trial._trial_id
        given = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        try:
            params = self._propose(trial.number, self.space.completed(given))
            if params is None:
                raise ValueError("nothing is left to try with these values")  # noqa: TRY301
            self.space.refuse_idle(given, params)
            settings = self.spec.settings_for(params).model_dump()
        except ValueError as error:  # SpecError is one
            self._set(trial.number, ROLE, Role.SEARCH.value)
            self._set(trial.number, REASON, f"enqueued: {error}")
            self._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
            return None
        for name, distribution in self.space.distributions(params).items():
            if name not in trial.params:
                internal = distribution.to_internal_repr(params[name])
                self._storage.set_trial_param(trial._trial_id, name, internal, distribution)
        attributes = self._attributes(settings, {ROLE: Role.SEARCH.value})
        for attribute in (ROLE, SEED, STEPS, ATTEMPT, SETTINGS):
            self._set(trial.number, attribute, attributes[attribute])
        return self._assignment(self._trial(trial.number))

    def _create(
        self, settings: Mapping[str, Any], params: Mapping[str, Any], attributes: Mapping[str, Any]
    ) -> Assignment:
        # One write: a trial is either wholly in the ledger or not at all.
        template = create_trial(
            state=TrialState.RUNNING,
            params=dict(params),
            distributions=self.space.distributions(params),
            user_attrs=self._attributes(settings, attributes),
        )
        template.datetime_start = datetime.now()  # noqa: DTZ005 - Optuna keeps local time
        request = template.user_attrs[REQUEST]
        try:
            with self._lease.creating(request) if self._lease else nullcontext():
                trial_id = self._storage.create_new_trial(self._study_id, template_trial=template)
        except AskedTwiceError:  # it is there, and only the reply to that was lost
            trials = self._storage.get_all_trials(self._study_id, deepcopy=False)
            trial_id = next(t._trial_id for t in trials if t.user_attrs.get(REQUEST) == request)
        return self._assignment(self._storage.get_trial(trial_id))

    def _attributes(self, settings: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
        base = {
            SETTINGS: dict(settings),
            SEED: settings["seed"],
            STEPS: self.spec.steps,
            ATTEMPT: 1,
            REQUEST: uuid.uuid4().hex,
        }
        return {**base, **more}

    def _assignment(self, trial: FrozenTrial) -> Assignment:
        self._ids[trial.number] = trial._trial_id
        return assignment_of(trial, self.spec)

    def _trial(self, number: int) -> FrozenTrial:
        if number not in self._ids:
            self._ids[number] = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
        return self._storage.get_trial(self._ids[number])

    def _current(self, number: int, attempt: int) -> FrozenTrial:
        trial = self._trial(number)
        current = trial.user_attrs.get(ATTEMPT, 0)
        if trial.state is not TrialState.RUNNING or attempt < current:
            raise StaleAttemptError(
                f"trial {number}: attempt {attempt} is refused; "
                f"the trial is {trial.state.name}, attempt {current}"
            )
        return trial

    def _set(self, number: int, attribute: str, value: Any) -> None:
        self._storage.set_trial_user_attr(self._ids[number], attribute, value)
