"""The proposals of one study, from its spec and what is known of its base and its siblings."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, TypedDict

from sweeps.ledger.search.features import Features
from sweeps.ledger.search.front_proposals import TrialCosts, cost_aim
from sweeps.ledger.search.prior import Prior
from sweeps.ledger.search.sampling import Aim, Proposals
from sweeps.ledger.search.space import Space
from sweeps.ledger.search.view import SearchView
from sweeps.spec import Spec
from sweeps.spec.equivalence import key, replaced
from sweeps.warm_start import Taken


class Known(TypedDict, total=False):
    """What may be known beside a spec when its study is opened.

    `depth`: layers of the base; `costs`: of settings; `warm_start`: what a study that is made now takes over
    from other sweeps.
    """

    depth: int | None
    costs: TrialCosts | None
    warm_start: Sequence[Taken]


def proposals_of(
    spec: Spec,
    seen: SearchView,
    *,
    depth: int | None,
    rate: Callable[[], float | None],
    costs: TrialCosts | None,
    warm_start: Sequence[Taken],
) -> Proposals:
    """What proposes the trials of a sweep.

    Args:
        spec: of the sweep.
        seen: its trials, as far as they count for search.
        depth: layers of the base; None where that is not known.
        rate: a learning rate known to be good, as it is known now.
        costs: of settings, where they are known.
        warm_start: what was taken over from sibling sweeps.
    """
    aim = Aim(
        spec.search,
        spec.objective.answer,
        rate,
        cost=cost_aim(spec, costs),
        prior=Prior.of(Features(spec.search), warm_start),
        scored=spec.objective.task is not None,
        front_scores=spec.objective.front_task is not None,
    )
    return Proposals(
        seen,
        Space.of(spec),
        sampler=spec.sampler.name,
        seed=spec.sampler.seed,
        alike=partial(_alike, spec.trial.model_dump(), depth),
        aim=aim,
    )


def _alike(baseline: Mapping[str, Any], depth: int | None, params: Mapping[str, Any]) -> Hashable:
    """What trials with these parameters train."""
    return key(replaced(baseline, params), depth)
