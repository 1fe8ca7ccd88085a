"""What a trial of ours holds in Optuna's words, and how it reads in ours."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeps.records import Assignment, Role, State, TrialRecord
from sweeps.spec import Spec

# Attributes of a trial of ours.
ROLE, SETTINGS, SEED, STEPS = "sweeps:role", "sweeps:settings", "sweeps:seed", "sweeps:steps"
ATTEMPT, REASON, TOTALS = "sweeps:attempt", "sweeps:reason", "sweeps:totals"
REPLICATE_OF = "sweeps:replicate_of"
END = "sweeps:end"  # its place among the ends of the study's trials, for clocks may be moved
STOPPED = "sweeps:stopped"  # where the stopping rule gave it up, so that a restart does not ask again
RETRIES, MICRO_BATCH = "sweeps:retries", "sweeps:micro_batch_tokens"
REQUEST = "sweeps:request"  # key of the trial's creation, so that it is made once
RUNG = "completed_rung_"  # begins the names of system attributes in which stopping rules keep their rungs
HIDDEN = "sweeps:hidden"  # on trials that the sampler and the stopping rule must not see


def attributes_of(settings: Mapping[str, Any], steps: int, more: Mapping[str, Any]) -> dict[str, Any]:
    """What a new trial of ours bears, as it will be read again."""
    base = {
        SETTINGS: dict(settings),
        SEED: settings["seed"],
        STEPS: steps,
        ATTEMPT: 1,
        REQUEST: uuid.uuid4().hex,
    }
    attributes: dict[str, Any] = json.loads(json.dumps({**base, **more}))
    return attributes


def template(
    params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution], attributes: Mapping[str, Any]
) -> FrozenTrial:
    """A trial as it is created: RUNNING since now."""
    trial = create_trial(
        state=TrialState.RUNNING,
        params=dict(params),
        distributions=dict(distributions),
        user_attrs=dict(attributes),
    )
    trial.datetime_start = datetime.now()  # noqa: DTZ005 - Optuna keeps local time
    return trial


def assignment_of(trial: FrozenTrial, spec: Spec) -> Assignment:
    """The current attempt at a trial, as it is handed out."""
    attributes = trial.user_attrs
    return Assignment(
        study=spec.name,
        number=trial.number,
        attempt=attributes[ATTEMPT],
        role=Role(attributes[ROLE]),
        settings=attributes[SETTINGS],
        steps=attributes[STEPS],
        report_steps=spec.report_steps(),
        micro_batch_tokens=attributes.get(MICRO_BATCH),
    )


def record_of(trial: FrozenTrial, spec: Spec) -> TrialRecord:
    """All that the ledger knows of a trial; one that was only enqueued has its spec's seed and steps."""
    attributes = trial.user_attrs
    totals = attributes.get(TOTALS, {})
    complete = trial.state is TrialState.COMPLETE
    return TrialRecord(
        number=trial.number,
        role=Role(attributes.get(ROLE, Role.SEARCH.value)),
        state=State(trial.state.name),
        params=trial.params or trial.system_attrs.get("fixed_params", {}),
        settings=attributes.get(SETTINGS, {}),
        seed=attributes.get(SEED, spec.trial.seed),
        steps=attributes.get(STEPS, spec.steps),
        losses=trial.intermediate_values,
        value=trial.value if complete else None,
        # One that was written right before a kill says nothing of the attempt after it.
        reason=attributes.get(REASON) if trial.state in (TrialState.FAIL, TrialState.PRUNED) else None,
        replicate_of=attributes.get(REPLICATE_OF),
        attempt=attributes.get(ATTEMPT, 1),
        retries=attributes.get(RETRIES, {}),
        micro_batch_tokens=attributes.get(MICRO_BATCH),
        seconds=totals.get("seconds"),
        tokens=totals.get("tokens"),
        flops=totals.get("flops"),
        started=trial.datetime_start.timestamp() if trial.datetime_start else None,
        finished=trial.datetime_complete.timestamp() if trial.datetime_complete else None,
    )
