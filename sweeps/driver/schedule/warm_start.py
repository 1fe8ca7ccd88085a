"""What a sweep takes over from the sweeps that its spec names, looked at before anything is made."""

from __future__ import annotations

from sweeps.addresses import masked_address, may_exist, server
from sweeps.checks import stores
from sweeps.errors import InputError, Problem
from sweeps.ledger import Ledger, look, stored_spec
from sweeps.ledger.search.estimates import good_rate
from sweeps.ledger.search.features import Features
from sweeps.ledger.search.model import window
from sweeps.ledger.search.prior import FEWEST, observed
from sweeps.ownership import names_under
from sweeps.records import Role
from sweeps.results.finding import find
from sweeps.results.kept import is_file, kept_file, kept_spec
from sweeps.results.sweep import Sweep
from sweeps.spec import Spec
from sweeps.warm_start import Taken
from sweeps.wording import formatted, nearest


class WarmStart:
    """What the sweeps that a spec names say of its search.

    A study that is there has its copy already, and then they are not looked at.
    """

    def __init__(self) -> None:
        """Look at nothing yet."""
        self.taken: tuple[Taken, ...] = ()

    def look(self, spec: Spec) -> list[Problem]:
        """Take over what there is; why some of it cannot be."""
        if not spec.warm_start:
            return []
        with stores.readable(spec.study_url, spec.where("storage.study")):
            stored = _stored(spec)
        if stored is not None:
            same = stored.warm_start == spec.warm_start
            self.taken = Ledger.read(spec.study_url, spec.name).study.warm_start if same else ()
            return []
        found, problems = list[Taken](), list[Problem]()
        for index, name in enumerate(spec.warm_start):
            each, wrong = _taken(spec, name, spec.where(f"warm_start[{index}]"))
            problems += wrong
            found += [each] if each is not None else []
        self.taken = tuple(found)
        return problems

    @property
    def notes(self) -> tuple[str, ...]:
        """What was taken over, a sentence a sweep."""
        return tuple(f"the search begins with {each.words}, as a prior" for each in self.taken)


# -- inside ----------------------------------------------------------------------------------------


def _stored(spec: Spec) -> Spec | None:
    storage = look(spec.study_url) if may_exist(spec.study_url) else None
    return None if storage is None else stored_spec(storage, spec.name)


def _taken(spec: Spec, name: str, where: str) -> tuple[Taken | None, list[Problem]]:
    """What one sweep says, or why it says nothing."""
    sweep, wrong = _found(spec, name, where)
    if sweep is not None:
        wrong = _problems(spec, sweep, where)
    if sweep is None or wrong:
        return None, wrong
    records = sweep.records
    searched = [r for r in records if r.role in (Role.BASELINE, Role.SEARCH) and r.settings]
    ended = window([record for record in searched if record.state.finished])
    theirs, baseline = sweep.spec, spec.trial.model_dump()
    trials = observed(Features(spec.search), baseline, list(theirs.search), ended)
    if len(trials) < FEWEST:
        got = f"{formatted(name)}, {len(trials)} of whose trials are within this search"
        expected = f"{FEWEST} finished trials or more, of settings that this sweep may try"
        return None, [Problem(where, got, expected, "the same ranges, or another sweep")]
    rate = good_rate(theirs, records)
    return Taken(theirs.name, theirs.base.model, theirs.data.shown, rate, trials), []


def _found(spec: Spec, name: str, where: str) -> tuple[Sweep | None, list[Problem]]:
    """A sweep under the same folder of results."""
    runs = str(spec.root)
    kept = kept_file(name, runs)
    if not is_file(kept):
        names = [each for each in names_under(spec.root) if each != spec.name]
        expected = f"one of {', '.join(names)}" if names else "a sweep that was run there"
        got = f"{formatted(name)}, no sweep in {spec.root}"
        return None, [Problem(where, got, expected, nearest(name, names) or f"sweeps run {name}, first")]
    try:
        # A server is asked only where the user named it, in this spec.
        theirs = kept_spec(kept, spec.root).storage.study
        same = server(spec.study_url) and theirs == masked_address(spec.storage.study)
        return find(name, runs=runs, study=spec.study_url if same else None), []
    except InputError as error:
        return None, [
            Problem(where, f"{formatted(name)}, {each.where}: {each.got}", each.expected, each.remedy)
            for each in error.problems
        ]


def _problems(spec: Spec, sweep: Sweep, where: str) -> list[Problem]:
    """Why a sweep that was run says nothing of this one."""
    name = formatted(sweep.spec.name)
    if not spec.search.keys() & sweep.spec.search.keys():
        got = f"{name}, which searched {', '.join(sweep.spec.search) or 'nothing'}"
        expected = f"a sweep over one of {', '.join(spec.search) or 'the settings of search'}"
        return [Problem(where, got, expected, "another sweep, or deleting it")]
    if not sweep.ledger.finished:
        remedy = f"sweeps resume {sweep.spec.name}, first"
        return [Problem(where, f"{name}, which is not finished", "a finished sweep", remedy)]
    return []
