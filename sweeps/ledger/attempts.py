"""Writes of running trials: the reports of the current attempt, and how it ends."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from optuna.trial import FrozenTrial, TrialState

from sweeps.by_text import sources_to_json
from sweeps.errors import StaleAttemptError
from sweeps.ledger.attributes import StudyAttributes
from sweeps.ledger.search.front_proposals import TrialCosts, cost_aim
from sweeps.ledger.search.stopping import StoppingRule
from sweeps.ledger.search.view import SearchView
from sweeps.ledger.store.mirror import Mirror
from sweeps.ledger.store.score_marks import score_attributes
from sweeps.ledger.store.trials import (
    AMOUNTS,
    ATTEMPT,
    HIDDEN,
    MICRO_BATCH,
    REASON,
    RETRIES,
    ROLE,
    SOURCES,
    STEPS,
    STOPPED,
    TEST_LOSSES,
    TOTALS,
    VALUE,
    WAITS,
    id_of,
)
from sweeps.records import Point, Role, State, TrialRecord
from sweeps.spec import Spec
from sweeps.task_scores import aimed


class Attempts:
    """The trials of one study while they run. An event is one write, with the decision that comes of it."""

    def __init__(
        self, spec: Spec, study: StudyAttributes, mirror: Mirror, costs: TrialCosts | None = None
    ) -> None:
        """Write to the trials that `mirror` remembers; `costs` of settings, where they are known."""
        self.spec = spec
        self.study = study
        self._mirror = mirror
        self._seen = SearchView(spec.name, mirror)
        stopping = spec.stopping
        self._rule = StoppingRule(
            stopping.rule,
            on=stopping.on,
            steps=spec.steps,
            grace=stopping.grace,
            keep=stopping.keep,
            margin=spec.finalists.margin,
            cost=cost_aim(spec, costs),
        )
        self._reference = study.reference

    def report(self, number: int, attempt: int, points: Sequence[Point]) -> bool:
        """Write held-out losses down and ask the stopping rule; returns whether the trial is to stop.

        A step that was reported before keeps its first value. The answer stands in the study with the losses.

        Raises:
            StaleAttemptError: a later attempt runs this trial, or it has ended.
        """
        trial = self._current(number, attempt)
        with self._mirror.event(number):
            return self._reported(trial, points)

    def mark_stopped(self, number: int, attempt: int, point: Point, *, by: str) -> None:
        """Write down that a trial is stopped by something else than the stopping rule, before it is.

        Raises:
            StaleAttemptError: a later attempt runs this trial, or it has ended.
        """
        self._current(number, attempt)
        with self._mirror.event(number):
            self._mirror.set_attribute(STOPPED, {"step": point.step, "by": by, **point.totals})

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
        with self._mirror.event(number):
            if micro_batch_tokens is not None:
                self._mirror.set_attribute(MICRO_BATCH, micro_batch_tokens)
            self._mirror.set_attribute(RETRIES, dict(counts))

    def note_waiting(self, number: int, attempt: int, why: str | None) -> None:
        """Write down what a trial that was handed out waits for; None once it runs.

        Raises:
            StaleAttemptError: a later attempt runs this trial, or it has ended.
        """
        trial = self._current(number, attempt)
        if trial.user_attrs.get(WAITS, "") != (why or ""):
            with self._mirror.event(number):
                self._mirror.set_attribute(WAITS, why or "")

    def tell(
        self,
        number: int,
        attempt: int,
        state: State,
        *,
        reason: str | None = None,
        totals: Mapping[str, float] | None = None,
    ) -> None:
        """End a trial. COMPLETE and PRUNED take the last reported loss as its value; one that was stopped has
        its reason already. Telling it again is harmless.

        A hidden one that is COMPLETE bears its value as an attribute and is PRUNED to Optuna, whose best
        trial and importances then speak of the search alone. Where the search goes by a task, the value of a
        COMPLETE one is what is minimised of its score, with the loss as an attribute. Where it goes by a
        score, alone or beside the loss, one of the search without a score has failed.

        Raises:
            StaleAttemptError: a later attempt runs this trial, or it has ended in another way.
        """
        trial, wanted = self._mirror.trial(number), self.spec.objective
        if trial.state.is_finished() and self._mirror.record(number).state is state:
            return
        trial = self._current(number, attempt)
        if reason is None and state is State.PRUNED and STOPPED in trial.user_attrs:
            stopped = trial.user_attrs[STOPPED]
            reason = f"stopped by {stopped.get('by', self.spec.stopping.rule)} at step {stopped['step']}"
        value = None
        if state is not State.FAIL and trial.last_step is not None:
            value = trial.intermediate_values[trial.last_step]
        record = self._mirror.record(number)
        aim = aimed(record.tasks, wanted.task) if state is State.COMPLETE else None
        if state is State.COMPLETE and (lacking := self._lacks_score(record)):
            state, reason, value = State.FAIL, lacking, None
        try:
            with self._mirror.event(number):
                if reason is not None:
                    self._mirror.set_attribute(REASON, reason)
                if totals is not None:
                    self._note_totals(trial, totals)
                if HIDDEN in trial.user_attrs and state is State.COMPLETE and value is not None:
                    self._mirror.set_attribute(VALUE, value)
                    self._mirror.end(TrialState.PRUNED)
                elif wanted.task is not None:
                    if aim is not None:
                        self._mirror.set_attribute(VALUE, value)
                    self._mirror.end(TrialState[state.value], aim.minimised if aim is not None else None)
                else:
                    self._mirror.end(TrialState[state.value], value)
        except StaleAttemptError:
            # The store did it, was restarted before it could say so, and was asked again.
            if self._mirror.record(number).state is not state:
                raise

    def note_answer(
        self, answer: str, best: int | None, behind: Collection[int], notes: Mapping[int, str] | None = None
    ) -> None:
        """Write the answer down, and have Optuna's `best_trial` agree; the next answer takes its place.

        Args:
            answer: whether to grow.
            best: number of the trial that is handed over.
            behind: trials of the search that are not the best grown model, though their loss is lower.
            notes: what optuna-dashboard is to say of trials, by number, beside the answer on the study.
        """
        self.study.note_answer(answer, best)
        said = {id_of(self._mirror.trial(number)): text for number, text in (notes or {}).items()}
        self.study.write_notes(answer, said)
        self._mirror.constrain(behind)

    # -- inside ----------------------------------------------------------------------------------------

    def _lacks_score(self, record: TrialRecord) -> str | None:
        """Why a trial of the search that ran to its end is no result; None where it is one."""
        wanted = self.spec.objective.scored
        if wanted is None or record.role.after or aimed(record.tasks, wanted) is not None:
            return None
        return f"its model has no score of {'/'.join(wanted)}"

    def _reported(self, trial: FrozenTrial, points: Sequence[Point]) -> bool:
        number = trial.number
        for point in points:
            if point.step not in self._mirror.trial(number).intermediate_values:
                self._mirror.set_loss(point.step, point.eval_loss)
        role = Role(trial.user_attrs[ROLE])
        if points and points[-1].test_losses:
            self._mirror.set_attribute(TEST_LOSSES, list(points[-1].test_losses))
        if points and points[-1].tasks:
            for name, value in score_attributes(points[-1].tasks).items():
                self._mirror.set_attribute(name, value)
        if points and points[-1].sources:
            self._mirror.set_attribute(SOURCES, sources_to_json(points[-1].sources))
            self._note_base(role, points[0])
        if points and self.spec.budget.limits and not role.after:
            self._note_totals(trial, points[-1].totals)
        if self._rule.spent is not None and points:
            self._note_spent(trial, role, {point.step: self._rule.spent(point) for point in points})
        if HIDDEN in trial.user_attrs or not points or points[-1].step >= trial.user_attrs[STEPS]:
            return False
        # The baseline is asked about as well, so that its losses stand on the rungs, but it is never stopped.
        trial = self._mirror.trial(number)
        stop = self._rule.stops(self._seen, trial, self._reference) and role is Role.SEARCH
        if stop:
            self._mirror.set_attribute(STOPPED, {"step": points[-1].step, **points[-1].totals})
        return stop

    def _note_base(self, role: Role, first: Point) -> None:
        """Write down what the base loses on each text: before its first step, a control is the base."""
        tested = all(each.test_losses for each in first.sources.values())
        if role is Role.CONTROL and first.step == 0 and first.sources and tested:
            self.study.note_base_sources(first.sources)

    def _note_totals(self, trial: FrozenTrial, totals: Mapping[str, float]) -> None:
        """Write down what a trial has spent, unless a later attempt does again what was lost."""
        if totals.get("tokens", 0) >= trial.user_attrs.get(TOTALS, {}).get("tokens", 0):
            self._mirror.set_attribute(TOTALS, dict(totals))

    def _note_spent(self, trial: FrozenTrial, role: Role, spent: Mapping[int, float]) -> None:
        """Write down what a trial has spent at each step; the baseline's tells what all are measured by."""
        known = {str(step): amount for step, amount in spent.items()} | trial.user_attrs.get(AMOUNTS, {})
        self._mirror.set_attribute(AMOUNTS, known)
        step, amount = max(spent.items())
        if role is Role.BASELINE and self._reference is None and amount > 0:
            self._reference = amount / step * trial.user_attrs[STEPS]
            self.study.note_reference(self._reference)

    def _current(self, number: int, attempt: int) -> FrozenTrial:
        trial = self._mirror.trial(number)
        current = trial.user_attrs.get(ATTEMPT, 0)
        if trial.state is not TrialState.RUNNING or attempt < current:
            raise StaleAttemptError(
                f"trial {number}: attempt {attempt} is refused; "
                f"the trial is {trial.state.name}, attempt {current}"
            )
        return trial
