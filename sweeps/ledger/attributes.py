"""User attributes of a study: its UUID, the digests of its inputs, its spending, its completions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, TypeVar

from sweeps.by_text import Sources, sources_from_json, sources_to_json
from sweeps.errors import Problem, SpecError
from sweeps.ledger.dashboard_notes import note_attributes
from sweeps.ledger.store.marks import (
    ANSWER,
    BASE_SOURCES,
    BEST,
    CHECKPOINTING,
    FINISHED,
    IDENTITY,
    INPUT_DIGESTS,
    LAYERS,
    REFERENCE,
    SEARCH_ANSWERS,
    WALL,
    WARM_START,
)
from sweeps.records import State, TrialRecord
from sweeps.search_answers import SearchAnswers, SweepCompletion
from sweeps.spec import LIMITS, Spec
from sweeps.warm_start import Taken, all_taken

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

Value = TypeVar("Value")


class StudyFacts:
    """What a study bears, read anew at every question."""

    def __init__(self, read: Callable[[], Mapping[str, Any]], name: str) -> None:
        """Read nothing yet.

        Args:
            read: the user attributes of the study as they are now.
            name: of the study.
        """
        self._attributes, self._name = read, name

    @property
    def study_uuid(self) -> str:
        """What tells this study from another that takes its name later."""
        return self._read(IDENTITY, _identity)

    @property
    def input_digests(self) -> dict[str, str]:
        """Digests of the base and the text of all its trials, as far as they are known."""
        return self._read(INPUT_DIGESTS, _texts, {})

    @property
    def layers(self) -> int | None:
        """Layers of the base of all its trials, as far as they are known."""
        return self._read(LAYERS, _count, None)

    @property
    def checkpointing(self) -> int | None:
        """Every how many layers one is calculated again in all its trials, where that was chosen for them."""
        return self._read(CHECKPOINTING, _layers, None)

    @property
    def completions(self) -> list[SweepCompletion]:
        """Each time that the agenda of a budget was carried out, the first one first."""
        return self._read(FINISHED, _completions, [])

    @property
    def wall(self) -> float:
        """Seconds in which drivers searched."""
        return self._read(WALL, _amount, 0.0)

    @property
    def reference(self) -> float | None:
        """What the whole baseline spends of what the stopping rule compares trials at; None until known."""
        return self._read(REFERENCE, _amount, None)

    @property
    def search_answers(self) -> SearchAnswers | None:
        """What the model of the search said when it was last over; None before that."""
        return self._read(SEARCH_ANSWERS, SearchAnswers.from_json, None)

    @property
    def base_sources(self) -> Sources:
        """What the base loses on each of several texts before any training; empty until that is known."""
        return self._read(BASE_SOURCES, sources_from_json, {})

    @property
    def warm_start(self) -> tuple[Taken, ...]:
        """What was taken over from each earlier sweep when the study was made."""
        return self._read(WARM_START, all_taken, ())

    def all(self) -> Mapping[str, Any]:
        """Every user attribute of the study, as it is written."""
        return self._attributes()

    def _read(self, name: str, read: Callable[[Any], Value], *without: Value) -> Value:
        """One attribute, or what stands for it where there is none.

        Raises:
            SpecError: it is not what this program writes.
        """
        attributes = self._attributes()
        if name not in attributes and without:
            return without[0]
        try:
            return read(attributes.get(name))
        except (TypeError, ValueError, KeyError):
            got = f"an attribute {name!r} that cannot be read"
            expected, remedy = "what sweeps writes", "the last copy of the store"
            raise SpecError(Problem(f"study {self._name!r}", got, expected, remedy)) from None


class StudyAttributes(StudyFacts):
    """User attributes of one study; its driver writes them, fenced like all that it writes."""

    def __init__(self, storage: BaseStorage, study_id: int, name: str) -> None:
        """Read nothing yet."""
        super().__init__(self._stored, name)
        self._storage, self._study_id = storage, study_id

    def note_layers(self, layers: int) -> None:
        """Write down how many layers the base has; saying it again is harmless."""
        if self.layers != layers:
            self._set(LAYERS, layers)

    def record_completion(self, now: SweepCompletion) -> None:
        """The agenda of a budget is carried out; saying it again is harmless."""
        before = self.completions
        if not before or replace(before[-1], time=now.time) != now:
            self._set(FINISHED, [asdict(each) for each in (*before, now)])

    def note_search_answers(self, found: SearchAnswers) -> None:
        """Write down what the model of the search says; saying it again is harmless."""
        if self.search_answers != found:
            self._set(SEARCH_ANSWERS, found.to_json())

    def note_answer(self, answer: str, best: int | None) -> None:
        """Write down what the sweep has found, for readers of the study; saying it again is harmless."""
        for name, value in {ANSWER: answer, BEST: best}.items():
            if self.all().get(name, ...) != value:
                self._set(name, value)

    def write_notes(self, answer: str, notes: Mapping[int, str]) -> None:
        """Write notes for optuna-dashboard: on the study, and by Optuna's id on trials; again is harmless.

        A note that its user wrote there is left alone.
        """
        stored = self._storage.get_study_system_attrs(self._study_id)
        for trial_id, text in [(None, answer), *notes.items()]:
            for name, value in note_attributes(stored, trial_id, text).items():
                self._storage.set_study_system_attr(self._study_id, name, value)

    def settled_checkpointing(self, chosen: int | None) -> int | None:
        """The choice that all trials of this study are trained with, written down the first time; None where
        there is none to make.
        """
        if chosen is None or self.checkpointing is not None:
            return self.checkpointing
        self._set(CHECKPOINTING, chosen)
        return chosen

    def note_base_sources(self, losses: Sources) -> None:
        """Write down what the base loses on each text; the first that is said stays."""
        if not self.base_sources:
            self._set(BASE_SOURCES, sources_to_json(losses))

    def note_wall(self, seconds: float) -> None:
        """Write down for how long drivers have searched."""
        self._set(WALL, seconds)

    def note_reference(self, amount: float) -> None:
        """Write down what the whole baseline spends."""
        self._set(REFERENCE, amount)

    def _stored(self) -> Mapping[str, Any]:
        from sweeps.ledger.store.loading import legible

        with legible(f"study {self._name!r}"):
            return self._storage.get_study_user_attrs(self._study_id)

    def _set(self, name: str, value: Any) -> None:
        self._storage.set_study_user_attr(self._study_id, name, value)


def nothing_left(spec: Spec, study: StudyFacts, unfinished: Sequence[TrialRecord]) -> bool:
    """Whether running a sweep again would find nothing to do.

    Args:
        spec: as the study was last run.
        study: what it bears.
        unfinished: its trials that have not ended; promotions are no part of it.
    """
    last = next(iter(study.completions[::-1]), None)
    # Studies that ended before there were ladders have none.
    if last is None or {"ladder": [], **last.budget} != spec.budget.to_json():
        return False
    if last.changeable not in (None, spec.changeable):
        return False
    # What is enqueued waits for more of what was used up.
    over = (State.WAITING,) if last.ended_by in LIMITS else ()
    return all(record.state in over for record in unfinished if not record.role.promoted)


def _identity(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError("an identity is a text")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise TypeError("a whole number from 1")
    return value


def _layers(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError("a whole number from 0")
    return value


def _texts(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise TypeError("texts by name")
    return dict(value)


def _amount(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise TypeError("an amount is a number")
    return value


def _completions(value: Any) -> list[SweepCompletion]:
    found = [SweepCompletion(**each) for each in value]
    for each in found:
        whole = isinstance(each.trials, int) and not isinstance(each.trials, bool) and each.trials >= 0
        known = isinstance(each.budget, dict) and isinstance(each.changeable, dict | None)
        if not (whole and known and isinstance(each.ended_by, str)):
            raise TypeError("not as it was written")
        _amount(each.time)
    return found
