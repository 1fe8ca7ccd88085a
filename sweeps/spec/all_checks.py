"""All that is checked of a spec as a whole, in one list."""

from __future__ import annotations

from collections.abc import Iterator

from sweeps.spec import address_checks, checks, data_checks, search_checks, values
from sweeps.spec.control_checks import control_faults
from sweeps.spec.evaluation import evaluation_faults
from sweeps.spec.faults import Catalogue
from sweeps.spec.fields import SpecFields
from sweeps.spec.ineffective import unread_faults
from sweeps.spec.ladders import ladder_faults
from sweeps.spec.margins import margin_faults
from sweeps.wording import Fault


def faults_of(spec: SpecFields, catalogue: Catalogue, *, written: int) -> Iterator[Fault]:
    """Everything wrong with a spec whose sections are sound one by one.

    Args:
        spec: not yet checked as a whole.
        catalogue: of all settings.
        written: ranges of the file, sound or not.
    """
    yield from checks.name_faults(spec.name)
    yield from checks.trial_faults(spec.trial, spec.data.sequence_length)
    yield from checks.untrained_faults(spec.trial, spec.search)
    yield from control_faults(spec.control, spec.trial, spec.search)
    yield from data_checks.data_faults(spec.data, spec.trial)
    yield from checks.amount_faults(spec.budget, spec.finalists, written, spec.control_rates)
    yield from checks.limit_faults(spec.budget, spec.resources, spec.trial)
    yield from ladder_faults(spec.budget.ladder, spec.trial.recipe.tokens, spec.trial.recipe.batch_tokens)
    yield from checks.per_faults(spec.finalists.per, spec.search)
    yield from margin_faults(spec.finalists.margin)
    yield from evaluation_faults(spec.evaluation)
    yield from search_checks.stopping_faults(spec.stopping)
    yield from search_checks.sampler_faults(spec.sampler, spec.objective, spec.search)
    yield from search_checks.objective_faults(spec)
    yield from search_checks.front_faults(spec)
    yield from search_checks.warm_start_faults(spec)
    yield from checks.resource_faults(spec.resources)
    yield from checks.rank_faults(spec.resources, spec.trial, spec.data)
    yield from address_checks.address_faults(spec.storage, spec.tracking)
    yield from checks.secret_faults(spec.base, spec.data)
    wrong = list(checks.condition_faults(spec.search))
    wrong += [
        fault
        for path, wanted in spec.search.items()
        if checks.may_differ(path, catalogue)
        for fault in values.value_faults(path, wanted, spec.trial, spec.data.sequence_length, catalogue)
    ]
    yield from wrong
    if not wrong and all(checks.may_differ(path, catalogue) for path in spec.search):
        yield from checks.method_faults(spec.trial, spec.search)
        yield from unread_faults(spec.trial, spec.search)
