"""Optuna's frozen trials to our records and assignments.

A study is open to other programs: they add trials that are finished, ask for some, copy those of another
sweep with all their attributes. A trial is ours if it bears this study's identity and its own number and all
its marks can be read; there are no defaults for what is missing.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sweeps.by_text import sources_from_json
from sweeps.ledger.store.rows import TrialRows
from sweeps.ownership import owner_of
from sweeps.promotion import Promotion
from sweeps.records import Assignment, Role, State, TrialRecord
from sweeps.spec.renamed import first_settings, todays_paths, todays_settings
from sweeps.task_scores import aimed, all_scores, are_scores

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from sweeps.spec import Spec

# Attributes of a trial of ours.
OURS = "sweeps:trial"  # the study's identity and the trial's number: a copy elsewhere bears another's
ROLE, SETTINGS, SEED, STEPS = "sweeps:role", "sweeps:settings", "sweeps:seed", "sweeps:steps"
ATTEMPT, REASON, TOTALS = "sweeps:attempt", "sweeps:reason", "sweeps:totals"
REPLICATE_OF = "sweeps:replicate_of"
END = "sweeps:end"  # its place among the ends of the study's trials, for clocks may be moved
STOPPED = "sweeps:stopped"  # where the stopping rule gave it up, so that a restart does not ask again
RETRIES, MICRO_BATCH = "sweeps:retries", "sweeps:micro_batch_tokens"
WAITS = "sweeps:waits"  # what its attempt waits for before it begins; empty once it runs
REQUEST = "sweeps:request"  # key of the trial's creation, so that it is made once
RUNG = "completed_rung_"  # begins the names of system attributes in which stopping rules keep their rungs
CONSTRAINT = "constraints"  # Optuna's system attribute: a trial with a number above 0 in it is not the best
HIDDEN = "sweeps:hidden"  # on trials that the sampler and the stopping rule must not see
# The last loss of a hidden one, which Optuna has as PRUNED: its best is the search's; and of one whose value
# there is of the score that the search goes by.
VALUE = "sweeps:value"
TEST_LOSSES = "sweeps:test_losses"  # by blocks of the test text, of runs under fresh seeds
SOURCES = "sweeps:sources"  # the latest losses on each of several texts
COSTS = {
    "flops_per_token": "sweeps:flops_per_token",
    "parameters": "sweeps:parameters",
}  # of training; of all
TASKS = "sweeps:tasks"  # scores by downstream task; each number of them stands beside it under a plain name
EVALUATION = "sweeps:evaluation"  # what a run of that role is made for: tasks, shots, limit
METHOD, RATE = "sweeps:method", "sweeps:learning_rate"  # for readers, of hidden ones
PROMOTION = "sweeps:promotion"  # what a promotion makes longer, and from where
AMOUNTS = "sweeps:amounts"  # what it had spent at each step it reported, where that is compared


def id_of(trial: FrozenTrial) -> int:
    """Optuna's own id of a trial."""
    return int(trial._trial_id)


def mark_of(study_uuid: str, number: int) -> str:
    """The value of OURS on a trial of a study."""
    return f"{study_uuid}/{number}"


def enqueued_values(trial: FrozenTrial | TrialRows) -> Any:
    """What `Study.enqueue_trial` was given, parameters by name; other programs may write anything."""
    given = trial.system_attrs.get("fixed_params", {})
    return todays_paths(given) if isinstance(given, dict) else given


def is_ours(
    trial: FrozenTrial | TrialRows, spec: Spec, study_uuid: str, known: TrialRecord | None = None
) -> bool:
    """Whether this sweep made a trial, or took it from the queue, and its marks can be read.

    Args:
        trial: as the study has it.
        spec: of the sweep.
        identity: of the study.
        known: what was read of the same trial before; its settings are not read twice.
    """
    attributes = trial.user_attrs
    if attributes.get(OURS) != mark_of(study_uuid, trial.number):
        return False
    if not all(fits(attributes[name]) for name, fits in _SHAPES.items() if name in attributes):
        return False
    if SETTINGS in attributes:
        settings = todays_settings(attributes[SETTINGS])
        as_before = known is not None and known.ours and known.settings is settings
        return attributes.keys() >= _NEEDED and (as_before or _can_be_trained(settings, spec))
    # It is being taken from the queue, or has ended there because it cannot be run.
    return not State(trial.state.name).finished or ROLE in attributes


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _HUGE


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_loss(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)  # infinite, too


def _are_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_number, value.values()))


def _is_stop(value: Any) -> bool:
    """Where a trial was stopped, with what it had spent; and by what, where that was not the rule."""
    if not isinstance(value, dict) or not _is_whole(value.get("step")):
        return False
    return _is_text(value.get("by", "")) and all(_is_number(value[k]) for k in value if k != "by")


def _are_sources(value: Any) -> bool:
    """Losses on each of several texts, as `sources_to_json` gives them."""
    try:
        sources_from_json(value)
    except (ValueError, TypeError, KeyError, AttributeError):
        return False
    return True


def _is_promotion(value: Any) -> bool:
    try:
        Promotion.from_json(value)
    except TypeError:
        return False
    return True


_HUGE = 1e30  # above all FLOPs
_NEEDED = {ROLE, SEED, STEPS, ATTEMPT, REQUEST}
_SHAPES: Mapping[str, Callable[[Any], bool]] = {
    ROLE: lambda value: value in {role.value for role in Role} - {Role.OTHER.value},
    SETTINGS: lambda value: isinstance(value, dict) and bool(value),
    **dict.fromkeys((SEED, ATTEMPT, REPLICATE_OF, END, MICRO_BATCH), _is_whole),
    STEPS: _is_whole,  # none: the base as it is
    TASKS: are_scores,
    EVALUATION: lambda value: isinstance(value, dict),
    **dict.fromkeys((REASON, REQUEST, WAITS), _is_text),
    VALUE: _is_loss,
    SOURCES: _are_sources,
    TEST_LOSSES: lambda value: isinstance(value, list) and all(map(_is_number, value)),
    TOTALS: _are_numbers,
    AMOUNTS: lambda value: _are_numbers(value) and all(step.isdecimal() for step in value),
    RETRIES: lambda value: isinstance(value, dict) and all(map(_is_whole, value.values())),
    STOPPED: _is_stop,
    HIDDEN: lambda value: isinstance(value, bool),
    PROMOTION: _is_promotion,
    **dict.fromkeys(COSTS.values(), lambda value: _is_number(value) and value > 0),
}


def _can_be_trained(settings: Mapping[str, Any], spec: Spec) -> bool:
    """Whether settings are those of a whole trial, of the right types."""
    try:
        spec.trial.model_validate(settings)
    except (ValueError, TypeError, RecursionError):
        return False
    return True


def assignment_of(
    trial: FrozenTrial, spec: Spec, study_uuid: str, others: Callable[[int], TrialRecord]
) -> Assignment:
    """The current attempt at a trial, as it is handed out; `others` gives the trial that it goes on from."""
    attributes = trial.user_attrs
    number, settings, steps = trial.number, todays_settings(attributes[SETTINGS]), attributes[STEPS]
    promotion = _promotion(attributes)
    begins = promotion.begins if promotion is not None else None
    return Assignment(
        study=spec.name,
        number=number,
        attempt=attributes[ATTEMPT],
        role=Role(attributes[ROLE]),
        settings=settings,
        steps=steps,
        report_steps=_report_steps(spec, steps, promotion),
        begins=(begins, record_owner(study_uuid, others(begins))) if begins is not None else None,
        micro_batch_tokens=attributes.get(MICRO_BATCH),
        study_uuid=study_uuid,
        owner=owner_of(study_uuid, number, attributes[REQUEST], first_settings(settings), steps),
        token=uuid.uuid4().hex,
    )


def record_owner(study_uuid: str, record: TrialRecord) -> str:
    """What the states, the curve and the models of a trial bear."""
    settings = first_settings(record.settings)
    return owner_of(study_uuid, record.number, record.request, settings, record.steps)


def _report_steps(spec: Spec, steps: int, promotion: Promotion | None) -> tuple[int, ...]:
    """Where a trial is measured; a long run at the steps of its trial, too: their losses are compared."""
    own = spec.report_steps(steps) if steps else (0,)
    if promotion is None:
        return own
    return tuple(
        sorted({*own, *(step for step in spec.report_steps(promotion.first_steps) if step <= steps)})
    )


def _promotion(attributes: Mapping[str, Any]) -> Promotion | None:
    return Promotion.from_json(attributes[PROMOTION]) if PROMOTION in attributes else None


def record_of(
    trial: FrozenTrial | TrialRows, spec: Spec, study_uuid: str, known: TrialRecord | None = None
) -> TrialRecord:
    """All that the ledger knows of a trial; one that was only enqueued has its spec's seed and steps.

    Of one that was not run here, no attribute is read. A hidden one that Optuna has as PRUNED is COMPLETE
    where it bears its value. Its value here is a loss always, whatever the search goes by.
    """
    ours = is_ours(trial, spec, study_uuid, known)
    state = State(trial.state.name)
    waiting = state is State.WAITING
    attributes = trial.user_attrs if ours else {}
    totals = attributes.get(TOTALS, {})
    value = trial.value if state is State.COMPLETE else None
    if state is State.PRUNED and HIDDEN in attributes and VALUE in attributes:
        state, value = State.COMPLETE, attributes[VALUE]
    tasks = all_scores(attributes.get(TASKS, {}))
    ended = tasks if state is State.COMPLETE else {}
    aim = aimed(ended, spec.objective.task)
    if aim is not None:
        value = attributes.get(VALUE, value)
    fixed = enqueued_values(trial)
    return TrialRecord(
        number=trial.number,
        role=Role(attributes.get(ROLE, Role.SEARCH.value)) if ours or waiting else Role.OTHER,
        state=state,
        params=todays_paths(trial.params) or (fixed if isinstance(fixed, dict) else {}),
        settings=todays_settings(attributes.get(SETTINGS, {})),
        seed=attributes.get(SEED, spec.trial.seed),
        steps=attributes.get(STEPS, spec.steps),
        losses=trial.intermediate_values,
        value=value,
        # One that was written right before a kill says nothing of the attempt after it.
        reason=attributes.get(REASON) if state in (State.FAIL, State.PRUNED) else None,
        replicate_of=attributes.get(REPLICATE_OF),
        attempt=attributes.get(ATTEMPT, 1),
        retries=attributes.get(RETRIES, {}),
        micro_batch_tokens=attributes.get(MICRO_BATCH),
        waits=(attributes.get(WAITS) or None) if state is State.RUNNING else None,
        seconds=totals.get("seconds"),
        tokens=totals.get("tokens"),
        flops=totals.get("flops"),
        started=trial.datetime_start.timestamp() if trial.datetime_start else None,
        finished=trial.datetime_complete.timestamp() if trial.datetime_complete else None,
        request=attributes.get(REQUEST),
        test_losses=tuple(attributes.get(TEST_LOSSES, ())),
        sources=sources_from_json(attributes.get(SOURCES, {})),
        costs={name: attributes[mark] for name, mark in COSTS.items() if mark in attributes},
        tasks=tasks,
        aim=aim,
        front_score=aimed(ended, spec.objective.front_task),
        evaluation=attributes.get(EVALUATION),
        promotion=_promotion(attributes),
    )
