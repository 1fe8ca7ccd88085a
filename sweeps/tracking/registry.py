"""Models of trials for MLflow's registry: asked for by a mark beside the model, told through the outbox.

The mark stays, and with it the model, whatever the sweep frees; so a registration that a server did not get
is told again by the next run, or by `sync`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sweeps.commands import command
from sweeps.errors import Problem, SpecError
from sweeps.folders import Folders
from sweeps.records import State, TrialRecord
from sweeps.results.finding import tracked
from sweeps.results.kept import unasked_tracking
from sweeps.results.registration import key_of, version_tags
from sweeps.results.sweep import Sweep
from sweeps.tracking.events import name_problem
from sweeps.tracking.interface import Tracking
from sweeps.tracking.outbox import read_sent
from sweeps.tracking.tracker import open_tracker
from sweeps.tracking.trial_runs import show, show_end
from sweeps.tracking.undriven import undriven
from tli.files import read_regular, replace_file

DONE = "registry.json"  # in the sweep's folder, written by the delivering process alone: what is registered
_LARGEST = 1 << 24  # bytes of that file, or of a mark
_BYTES_PER_SECOND = 5_000_000  # of a model that is uploaded, at the least
_SECONDS = 60.0  # for all else


def name_problems(name: str, where: str = "register") -> list[Problem]:
    """Why the registry takes no model of this name."""
    wrong = name_problem(name)
    return (
        [Problem(where, f"{name[:80]!r}, {wrong}", "the name of a model", "--register mine")] if wrong else []
    )


def tracking_problems_of(sweep: Sweep) -> list[Problem]:
    """That the sweep has no MLflow, so no registry."""
    if sweep.spec.tracking is not None:
        return []
    expected, remedy = "an MLflow, whose registry takes the model", "--tracking sqlite, or without --register"
    return [Problem("register", "a sweep without tracking (tracking: null)", expected, remedy)]


def ask_for(folders: Folders, number: int, attempt: int, name: str) -> None:
    """Write down that the model of an attempt is to be registered under a name, beside others."""
    path, names = folders.registered(number, attempt), asked_for(folders, number, attempt)
    if name not in names:
        folders.make(path.parent)
        replace_file(path, json.dumps({"names": [*names, name]}).encode())


def asked_for(folders: Folders, number: int, attempt: int) -> list[str]:
    """The names under which the model of an attempt is to be registered."""
    try:
        names = json.loads(read_regular(folders.registered(number, attempt), _LARGEST))["names"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
    good = isinstance(names, list) and all(isinstance(each, str) and not name_problem(each) for each in names)
    return list(names) if good else []


def show_registrations(tracker: Tracking, sweep: Sweep, records: Sequence[TrialRecord]) -> None:
    """Tell of every model that is to be registered; what was told before is not told again."""
    for record in records:
        if record.state is not State.COMPLETE:
            continue
        if names := asked_for(sweep.folders, record.number, record.attempt):
            tracker.register(record.number, record.attempt, names, version_tags(sweep, record))


def patience(folders: Folders, record: TrialRecord) -> float:
    """Seconds in which a model of this size is on a server, whose network is not fast."""
    model = folders.model_dir(record.number, record.attempt)
    return (
        _SECONDS + sum(each.stat().st_size for each in model.rglob("*") if each.is_file()) / _BYTES_PER_SECOND
    )


def register(sweep: Sweep, record: TrialRecord, name: str) -> str | None:
    """Have the model of a trial registered; its version, or None where no server has taken it yet.

    Args:
        sweep: that no process drives meanwhile.
        record: of a complete trial whose model is kept.
        name: of the registered model.

    Raises:
        LedgerHeldError: another process drives the sweep.
        SpecError: the folder is another study's, or the sweep has no tracking.
    """
    ledger, folders = sweep.ledger, sweep.folders
    if problems := [*name_problems(name), *tracking_problems_of(sweep)]:
        raise SpecError(*problems)
    assert sweep.spec.tracking is not None, "that is a problem"
    with undriven(sweep):
        ask_for(folders, record.number, record.attempt, name)
        tracker = open_tracker(
            sweep.spec.tracking.uri,
            study=sweep.spec.name,
            folder=folders.sweep,
            artifacts=folders.artifacts.absolute(),
            study_uuid=ledger.study.study_uuid,
        )
        tags = {"sweeps.study": ledger.spec.name, "sweeps.spec_hash": ledger.spec.hash}
        tracker.open_sweep(ledger.spec.to_json(), tags, again=False)
        show(tracker, record)
        show_end(tracker, record)
        show_registrations(tracker, sweep, [record])
        tracker.close(patience(folders, record))
    return version_of(sweep, record, name)


def version_of(sweep: Sweep, record: TrialRecord, name: str) -> str | None:
    """The version under which the registry has the model of a trial; None while none is known."""
    sent = read_sent(sweep.folders.sweep)
    known = registered_in(sweep.folders.sweep, sent.target) if sent is not None else {}
    return known.get(f"{name}/{key_of(sweep, record)}")


def registered_in(folder: Path, target: str) -> dict[str, str]:
    """Versions by name and key, as far as was written down for the store of this fingerprint."""
    try:
        known = json.loads(read_regular(folder / DONE, _LARGEST)).get(target, {})
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}
    texts = isinstance(known, dict) and all(isinstance(each, str) for each in known.values())
    return dict(known) if texts else {}


def write_down(folder: Path, target: str, name: str, version: str) -> None:
    """Write down that a store has a version, under its name and key; of one store at a time."""
    known = registered_in(folder, target)
    if known.get(name) != version:
        replace_file(folder / DONE, json.dumps({target: {**known, name: version}}).encode())


def with_tracking(sweep: Sweep, uri: str | None) -> Sweep:
    """The sweep with the MLflow that its models are to be registered in; whether it answers is not asked.

    Args:
        sweep: that was found.
        uri: of another MLflow than the spec's.

    Raises:
        SpecError: it has none, or only a kept spec names it, or its address will not do.
    """
    if uri is not None:
        return replace(sweep, spec=tracked(sweep.spec, uri), kept=False)
    if problems := tracking_problems_of(sweep):
        raise SpecError(*problems)
    if sweep.kept and (unasked := unasked_tracking(sweep.spec)):
        raise SpecError(unasked)
    return sweep


def registered_text(sweep: Sweep, name: str, version: str | None) -> str:
    """What is said of a registration that was asked for."""
    if version is not None:
        return f"registered in MLflow as {name}, version {version}"
    again = command("sync", sweep.spec.name, runs=sweep.folders.artifacts)
    return f"MLflow has not registered it as {name} yet; the next run of this sweep does, or `{again}`"
