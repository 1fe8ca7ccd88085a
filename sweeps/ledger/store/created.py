"""Trials as they are created: their attributes, and what Optuna is given."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sweeps.ledger.store.trials import (
    ATTEMPT,
    COSTS,
    HIDDEN,
    METHOD,
    PROMOTION,
    RATE,
    REPLICATE_OF,
    REQUEST,
    ROLE,
    SEED,
    SETTINGS,
    STEPS,
)
from sweeps.promotion import Promotion
from sweeps.records import Role

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial


def attributes_of(settings: Mapping[str, Any], steps: int, more: Mapping[str, Any]) -> dict[str, Any]:
    """What a new trial of ours bears, as it will be read again."""
    base = {
        SETTINGS: dict(settings),
        SEED: settings["seed"],
        STEPS: steps,
        ATTEMPT: 1,
        REQUEST: uuid.uuid4().hex,
    }
    if HIDDEN in more:  # such a trial may have no parameters, which would say how it trains
        base |= {METHOD: settings["injection"]["method"], RATE: settings["recipe"]["learning_rate"]}
    return dict(json.loads(json.dumps({**base, **more})))


def cost_attributes(
    costs: Callable[[Mapping[str, Any]], Mapping[str, float]] | None, settings: Mapping[str, Any]
) -> dict[str, float]:
    """What settings cost, as attributes of a trial; none where that is not known."""
    return {COSTS[name]: value for name, value in (costs(settings) if costs else {}).items()}


def template(
    params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution], attributes: Mapping[str, Any]
) -> FrozenTrial:
    """A trial as it is created: RUNNING since now."""
    from optuna.trial import TrialState, create_trial

    given: dict[str, Any] = {"params": dict(params), "distributions": dict(distributions)}
    trial = create_trial(state=TrialState.RUNNING, user_attrs=dict(attributes), **given)
    trial.datetime_start = datetime.now()  # noqa: DTZ005 - Optuna keeps local time
    return trial


def role_attributes(role: Role, replicate_of: int | None, promotion: Promotion | None) -> dict[str, Any]:
    """What says why a trial exists, and of which other trial it is a run."""
    hidden = role is Role.CONTROL or role.after
    of: dict[str, Any] = {REPLICATE_OF: replicate_of, PROMOTION: promotion.to_json() if promotion else None}
    of |= {HIDDEN: True if hidden else None, ROLE: role.value}
    return {name: value for name, value in of.items() if value is not None}
