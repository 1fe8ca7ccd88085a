"""Sweeps that were run: found by name, looked at, and their models taken home."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from sweeps import reach
from sweeps.errors import Problem, SpecError
from sweeps.folders import Folders
from sweeps.ledger import Ledger, open_storage, refuse_foreign, spec_conflicts, stored_spec
from sweeps.records import State, TrialRecord
from sweeps.selection import Verdict, verdict
from sweeps.spec import COMPARED, Spec, load_spec, packaged
from sweeps.spec.checks import address_faults
from sweeps.text import amount_notes
from sweeps.wording import masked
from tli.data import token_counts

STUDY_URL = "--study postgresql://USER:PASSWORD@HOST/DATABASE"


class NoSweepError(SpecError):
    """Nothing was run under this name, or not here."""


@dataclass(frozen=True)
class Sweep:
    """A sweep that can be looked at: its spec, its places, its ledger."""

    spec: Spec
    folders: Folders
    ledger: Ledger

    @property
    def records(self) -> list[TrialRecord]:
        """Every trial."""
        return self.ledger.trials()

    @property
    def verdict(self) -> Verdict:
        """The answer so far."""
        return self.answer(self.records)

    def answer(self, records: Sequence[TrialRecord]) -> Verdict:
        """The answer if these were all trials, as they were at some time."""
        wanted = self.spec.finalists
        found = verdict(records, top=wanted.top, seeds=wanted.seeds, per=wanted.per)
        return replace(found, warnings=(*found.warnings, *self._text_notes()))

    def _text_notes(self) -> Iterator[str]:
        """Where there was less text than the spec makes of it; nothing where the token files are gone."""
        counts = token_counts(self.folders.tokens, self.ledger.study.material.get("text", ""))
        return amount_notes(self.spec, *counts) if counts is not None else iter(())

    @property
    def ended_by(self) -> str | None:
        """What ended the search the last time: the name of a setting of the budget, or `search`."""
        return next((each.ended_by for each in reversed(self.ledger.study.conclusions)), None)

    @property
    def used_up(self) -> tuple[str, float] | None:
        """The limit of the budget that ended the search before its trials did, with its value."""
        return next(
            (limit for limit in self.ledger.spec.budget.limits.items() if limit[0] == self.ended_by), None
        )


@dataclass(frozen=True)
class Listed:
    """One line of a list of sweeps; with a `reason` where the sweep cannot be read."""

    records: Sequence[TrialRecord] = ()
    finished: bool = False
    reason: str | None = None


def find(reference: str, *, runs: str | None = None, study: str | None = None) -> Sweep:
    """A sweep that was run: by its name under the runs folder, or by its spec file.

    What is compared, and the budget, come from the study; what it runs on (stores, folders, resources) from
    what was named here, as that may have moved since.

    Args:
        reference: a name, or a spec file.
        runs: the artifacts folder; `runs` by default.
        study: the study's URL, where it is not the one that the spec was kept with.

    Raises:
        NoSweepError: there is no such sweep.
        SpecError: it cannot be read.
    """
    where = "--study" if study else None
    return found(named(reference, runs=runs, study=study), reference, where=where)


def named(reference: str, *, runs: str | None = None, study: str | None = None) -> Spec:
    """The spec that a name or a file stands for: as it was kept beside its results, or as it is written.

    Raises:
        NoSweepError: there is neither.
        SpecError: it cannot be read, or one of the options cannot be used.
    """
    root = Path(runs or "runs")
    kept = root / reference / "spec.json"
    if _is_file(kept):
        spec = _kept(kept, root)
    elif _is_file(Path(reference)) or reference in packaged():
        spec = load_spec(reference, runs=runs)
    elif root.exists() and not root.is_dir():
        raise SpecError(Problem("--runs", f"{str(root)!r}, a file", "the folder of all results"))
    else:
        raise NoSweepError(Problem(reference or "NAME", f"no sweep in {root}", _known(root), "sweeps list"))
    if study is None:
        return spec
    storage = spec.storage.model_copy(update={"study": study})
    fault = next(address_faults(storage, None), None)
    if fault is not None:
        raise SpecError(Problem("--study", fault.got, fault.expected, fault.remedy))
    return spec.model_copy(update={"storage": storage})


def found(spec: Spec, reference: str | None = None, *, where: str | None = None) -> Sweep:
    """The sweep of a spec that names its stores.

    Args:
        spec: of the sweep.
        reference: what the user calls it; its name when left out.
        where: the option that the study's address came from; its place in the spec when left out.

    Raises:
        NoSweepError: it was not run.
        SpecError: its study cannot be read.
    """
    url, where = spec.study_url, where or spec.where("storage.study")
    run = f"sweeps run {reference or spec.name}"
    if not reach.may_exist(url):
        raise NoSweepError(
            Problem(spec.name, f"no study at {reach.file_of(url)}", "a sweep that was run", run)
        )
    if reach.without_masks(url) != url:
        spec, url = _without_password(spec, where)
    elif problems := list(reach.store(url, where, table="studies")):
        raise SpecError(*problems)
    with reach.readable(url, where):
        storage = open_storage(url)
        if stored_spec(storage, spec.name) is None:
            refuse_foreign(storage, spec.name)
            got = f"no study of this name in {masked(url)}"
            raise NoSweepError(Problem(spec.name, got, "a sweep that was run", run))
        ledger = Ledger.read(url, spec.name)
    carried = {field: getattr(ledger.spec, field) for field in (*COMPARED, "budget")}
    return Sweep(spec.model_copy(update=carried), Folders(spec.root, spec.name), ledger)


def resumed(
    reference: str,
    *,
    runs: str | None = None,
    study: str | None = None,
    budget: Mapping[str, float] = MappingProxyType({}),
) -> Spec:
    """The spec with which a sweep that was run goes on.

    Args:
        reference: a name, or a spec file.
        runs: the artifacts folder; `runs` by default.
        study: the study's URL, where it is not the one that the spec was kept with.
        budget: its settings that are raised.

    Raises:
        SpecError: there is no such sweep, its study has another spec than the file, or an address that it
            needs was kept without its password.
    """
    given = named(reference, runs=runs, study=study)
    sweep = found(given, reference, where="--study" if study else None)
    problems = spec_conflicts(sweep.ledger.spec, given)
    uri = given.tracking_uri
    if uri is not None and reach.without_masks(uri) != uri:
        where = given.where("tracking.uri")
        problems.append(
            Problem(where, f"{uri!r}, without its password", "the whole address", "sweeps resume SPEC.yaml")
        )
    if problems:
        raise SpecError(*problems)
    if not budget:
        return sweep.spec
    wanted = {**sweep.spec.to_json(), "budget": {**sweep.spec.budget.to_json(), **budget}}
    words = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in budget.items())
    return sweep.spec.model_copy(update={"budget": Spec.from_json(wanted, name=f"{words}:").budget})


def sweeps_in(runs: Path) -> dict[str, Listed]:
    """Every sweep whose results lie under a folder, by name, those that cannot be read with the reason.

    Raises:
        SpecError: the folder is none.
    """
    if runs.exists() and not runs.is_dir():
        raise SpecError(Problem("--runs", f"{str(runs)!r}, a file", "the folder of all results"))
    listed = {}
    for kept in sorted(runs.glob("*/spec.json")):
        name = kept.parent.name
        try:
            sweep = find(name, runs=str(runs))
            with reach.readable(sweep.spec.study_url, name):
                listed[name] = Listed(sweep.records, sweep.ledger.finished)
        except SpecError as error:
            listed[name] = Listed(reason=error.problems[0].got)
    return listed


def export(sweep: Sweep, out: Path, *, number: int | None = None) -> int:
    """Copy a trained model out; without a number, the best one. Returns the trial's number.

    Raises:
        SpecError: the trial does not exist, did not complete, or its weights were not kept.
        CheckpointError: `out` exists, or the weights are not those that were written.
    """
    from tli.export import copy_model

    chosen = sweep.verdict.best if number is None else number
    records = {record.number: record for record in sweep.records}
    if chosen is None or chosen not in records:
        got = "no complete trial yet" if chosen is None else f"trial {chosen}, which is not there"
        raise SpecError(
            Problem(f"sweep {sweep.spec.name}", got, "a complete trial", f"sweeps status {sweep.spec.name}")
        )
    record = records[chosen]
    source = sweep.folders.final(chosen, record.attempt)
    if not (source / "lineage.json").is_file():
        raise SpecError(_no_weights(sweep, records, chosen, out))
    facts = {
        "heldout_loss": record.value,
        "initial_loss": record.initial_loss,
        "verdict": sweep.verdict.to_json(),
    }
    copy_model(source, out, lineage=facts)
    return chosen


def _no_weights(sweep: Sweep, records: Mapping[int, TrialRecord], chosen: int, out: Path) -> Problem:
    finals = {number: sweep.folders.final(number, record.attempt) for number, record in records.items()}
    held = [str(number) for number, final in finals.items() if (final / "lineage.json").is_file()]
    state, where = records[chosen].state, f"trial {chosen}"
    if not state.finished:
        got, again = f"one that is {state.value.lower()}", f"`sweeps status {sweep.spec.name}`, and waiting"
        return Problem(where, got, "a complete trial", again)
    words = {State.PRUNED: "one that was stopped early", State.FAIL: "one that failed"}
    got = words.get(state, "one whose weights were not kept")
    kept = f"one of the trials that were kept: {', '.join(held) or 'none'}"
    return Problem(where, got, kept, f"sweeps trial {sweep.spec.name} {chosen} --out {out}, to train it here")


def places(sweep: Sweep) -> dict[str, str]:
    """Where everything of a sweep is, for a person; passwords masked."""
    spec, root = sweep.spec.to_json(), sweep.folders.artifacts
    study = spec["storage"]["study"]
    tracking = spec["tracking"]
    shown = {
        "study": f"{root / 'study.db'}, study {sweep.spec.name!r}" if study == "sqlite" else study,
        "MLflow": "not tracked",
        "trials": str(sweep.folders.sweep / "trials"),
    }
    if tracking is not None:
        shown["MLflow"] = str(root / "mlflow.db") if tracking["uri"] == "sqlite" else tracking["uri"]
    return shown


def _without_password(spec: Spec, where: str) -> tuple[Spec, str]:
    """The spec with a study address that was kept masked, as PostgreSQL's client may still open it."""
    url = reach.without_masks(spec.study_url)
    problems = list(reach.postgres(url, where))
    if problems:
        expected = "its password, which is not kept on disk"
        remedy = f"{STUDY_URL}, or PGPASSWORD or ~/.pgpass for PostgreSQL's own client"
        raise SpecError(*[Problem(p.where, p.got, expected, remedy) for p in problems])
    storage = spec.storage.model_copy(update={"study": url})
    return spec.model_copy(update={"storage": storage}), url


def _kept(file: Path, root: Path) -> Spec:
    """The spec beside its results, with the folder that it is in now."""
    try:
        values = json.loads(file.read_text("utf-8"))
        got = "" if isinstance(values, dict) else "no mapping"
    except (OSError, ValueError) as error:
        got = f"a file that cannot be read ({error})"
    if got:
        raise SpecError(Problem(str(file), got, "a spec as it was run", "`sweeps run` with its YAML"))
    spec = Spec.from_json(values, name=str(file))
    if spec.name != file.parent.name:
        got = f"the sweep {spec.name!r} in a folder of another name"
        raise SpecError(Problem(str(file), got, f"the folder {spec.name!r}", "renaming the folder"))
    storage = spec.storage.model_copy(update={"artifacts": str(root.absolute())})
    return spec.model_copy(update={"storage": storage})


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, a folder that may not be looked into
        return False


def _known(root: Path) -> str:
    names = [file.parent.name for file in sorted(root.glob("*/spec.json"))]
    return f"one of {', '.join(names)}" if names else "a sweep that was run"
