"""A study that exists already: whether a spec can go on with it, and what of it is left to run."""

from __future__ import annotations

from sweeps.driver.schedule.after_search import matched_controls
from sweeps.driver.schedule.spending import going_on, raised
from sweeps.driver.watchers import Watcher
from sweeps.errors import Problem
from sweeps.ledger import Ledger, fresh_seeds, look, refuse_foreign, spec_conflicts, stored_spec
from sweeps.results.evaluated import is_due
from sweeps.spec import Spec, changed_amounts
from sweeps.wording import formatted


def study_problems(spec: Spec, *, extend: bool = True) -> list[Problem]:
    """Why a study that exists already cannot go on with this spec; nothing is made by looking.

    Args:
        spec: what is to be run.
        extend: whether a larger budget than the study's is wanted on purpose.
    """
    storage, stored = look(spec.study_url), _stored(spec)
    if storage is None or stored is None:
        return []
    problems = spec_conflicts(stored, spec, fresh_seeds(storage, spec.name))
    have, want = stored.budget.to_json(), spec.budget.to_json()
    more = {f"budget.{name}": (have[name], want[name]) for name in raised(stored.budget, spec.budget)}
    more |= changed_amounts(stored, spec, raised=True)
    for path, (before, after) in () if extend else more.items():
        got, ours = formatted(after), f"{formatted(before)}, the study's own"
        problems.append(Problem(path, got, ours, f"--extend (extend=True), or --set {path}={got}"))
    return problems


def with_the_larger_budget(spec: Spec, watcher: Watcher) -> Spec:
    """The study's budget, where it is larger than the spec's: what was asked for is not taken back."""
    stored = _stored(spec)
    if stored is None:
        return spec
    budget, notes = going_on(stored.budget, spec.budget)
    for note in notes:
        watcher.note(note)
    return spec.model_copy(update={"budget": budget})


def nothing_left(spec: Spec) -> bool:
    """Whether all that a spec asks for was run."""
    stored = _stored(spec)
    if stored is None or stored.budget != spec.budget or changed_amounts(stored, spec, raised=True):
        return False
    ledger = Ledger.read(spec.study_url, spec.name)
    if not ledger.finished:
        return False
    if stored.evaluation != spec.evaluation and is_due(spec, ledger.trials(), ledger.depth):
        return False
    return stored.finalists == spec.finalists or not matched_controls(ledger, spec)


def _stored(spec: Spec) -> Spec | None:
    storage = look(spec.study_url)
    if storage is None:
        return None
    refuse_foreign(storage, spec.name)
    return stored_spec(storage, spec.name)
