"""Trials enqueued from outside: completed to full settings, or ended with the reason why they cannot run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from optuna.trial import TrialState

from sweeps.ledger.search.sampling import Proposals, Turn
from sweeps.ledger.store.created import attributes_of
from sweeps.ledger.store.mirror import Mirror
from sweeps.ledger.store.trials import (
    ATTEMPT,
    REASON,
    REQUEST,
    ROLE,
    SEED,
    SETTINGS,
    STEPS,
    enqueued_values,
)
from sweeps.records import Role
from sweeps.spec import Spec


def complete_enqueued(
    number: int,
    mirror: Mirror,
    proposals: Proposals,
    spec: Spec,
    costs: Callable[[Mapping[str, Any]], Mapping[str, float]],
) -> bool:
    """Complete the parameters of an enqueued trial and write its settings; whether it can be run.

    One that cannot ends as FAIL. After a kill before that it is done again.

    Args:
        number: of a trial that was waiting, and is RUNNING now.
        mirror: where it stands.
        proposals: what its missing values are sampled from.
        spec: of the sweep.
        costs: of settings, by the attribute that bears them.
    """
    trial, space = mirror.trial(number), proposals.space
    try:
        fixed = enqueued_values(trial)
        if not isinstance(fixed, dict):
            raise ValueError(f"fixed_params: {type(fixed).__name__}, not a mapping")  # noqa: TRY301, TRY004
        given = {**fixed, **trial.params}
        params = proposals.propose(Turn(number, mirror.asked), space.completed(given))
        if params is None:
            raise ValueError("nothing is left to try with these values")  # noqa: TRY301
        space.refuse_idle(given, params)
        settings = spec.settings_for(params).model_dump()
    except ValueError as error:  # SpecError is one
        with mirror.event(number):
            mirror.set_attribute(ROLE, Role.SEARCH.value)
            mirror.set_attribute(REASON, f"enqueued: {error}")
            mirror.end(TrialState.FAIL)
        return False
    attributes = attributes_of(settings, spec.steps, {ROLE: Role.SEARCH.value, **costs(settings)})
    with mirror.event(number):
        for name, distribution in space.distributions(params).items():
            if name not in trial.params:
                mirror.set_param(name, params[name], distribution)
        for attribute in (ROLE, SEED, STEPS, ATTEMPT, REQUEST, *costs(settings), SETTINGS):
            mirror.set_attribute(attribute, attributes[attribute])
    return True
