"""A sweep that was run: found by name or spec, read, resumed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from sweeps import addresses
from sweeps.checks import stores
from sweeps.checks.data import amount_notes
from sweeps.errors import Problem, SpecError
from sweeps.folders import Folders
from sweeps.ledger import Ledger, look, refuse_foreign, spec_conflicts, stored_spec
from sweeps.ownership import is_set_aside
from sweeps.records import TrialRecord
from sweeps.results.kept import is_file, kept_file, kept_spec, unasked_study, unasked_tracking
from sweeps.results.selection import Verdict, verdict
from sweeps.spec import COMPARED, Spec, load_spec, packaged
from sweeps.spec.address_checks import address_faults
from sweeps.spec.settings import StorageSettings, TrackingSettings
from sweeps.wording import masked
from tli.data.batches import token_counts
from tli.errors import CheckpointError
from tli.models.lineage import read_lineage


class NoSweepError(SpecError):
    """Nothing was run under this name, or not here."""


@dataclass(frozen=True)
class Sweep:
    """A sweep that can be looked at: its spec, its places, its ledger."""

    spec: Spec
    folders: Folders
    ledger: Ledger
    kept: bool = False  # whether the spec is the one that lay beside the results, which others may have made

    @property
    def records(self) -> list[TrialRecord]:
        """Every trial."""
        return self.ledger.trials()

    def model_of(self, record: TrialRecord) -> Path | None:
        """The folder of the model that a trial trained; None where none was kept, or another's was."""
        folder = self.folders.model_dir(record.number, record.attempt)
        try:
            kept = read_lineage(folder)
        except CheckpointError:
            return None
        return folder if kept.get("owner") == self.ledger.owner(record) else None

    @property
    def verdict(self) -> Verdict:
        """The answer so far."""
        return self.answer(self.records)

    def answer(self, records: Sequence[TrialRecord]) -> Verdict:
        """The answer if these were all trials, as they were at some time."""
        wanted = self.spec.finalists
        found = verdict(records, top=wanted.top, seeds=wanted.seeds, per=wanted.per, depth=self.ledger.depth)
        return replace(found, warnings=(*found.warnings, *self._text_notes()))

    def _text_notes(self) -> Iterator[str]:
        """Where there was less text than the spec makes of it; nothing where the token files are gone."""
        counts = token_counts(self.folders.tokens, self.ledger.study.input_digests.get("text", ""))
        return amount_notes(self.spec, *counts) if counts is not None else iter(())

    @property
    def ended_by(self) -> str | None:
        """What ended the search the last time: the name of a setting of the budget, or `search`."""
        return next((each.ended_by for each in reversed(self.ledger.study.completions)), None)

    @property
    def used_up(self) -> tuple[str, float] | None:
        """The limit of the budget that ended the search before its trials did, with its value."""
        return next(
            (limit for limit in self.ledger.spec.budget.limits.items() if limit[0] == self.ended_by), None
        )


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
    sweep = found(named(reference, runs=runs, study=study), reference, where=where)
    return replace(sweep, kept=is_file(kept_file(reference, runs)))


def named(reference: str, *, runs: str | None = None, study: str | None = None) -> Spec:
    """The spec that a name or a file stands for: as it was kept beside its results, or as it is written.

    Raises:
        NoSweepError: there is neither.
        SpecError: it cannot be read, one of the options cannot be used, or only a kept spec names the server
            of its study.
    """
    root = Path(runs or "runs")
    kept = kept_file(reference, runs)
    if is_file(kept):
        spec = kept_spec(kept, root)
        if study is None and (unasked := unasked_study(spec)):
            raise SpecError(unasked)
    elif is_file(Path(reference)) or reference in packaged():
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


def _tracked(spec: Spec, uri: str | None) -> Spec:
    if uri is None:
        return spec
    if addresses.without_masks(uri) != uri:
        got = f"{uri!r}, without its password"
        raise SpecError(Problem("--tracking", got, "the whole address", "--tracking with the whole address"))
    tracking = TrackingSettings(uri=uri)
    fault = next(address_faults(StorageSettings(), tracking), None)
    if fault is not None:
        raise SpecError(Problem("--tracking", fault.got, fault.expected, fault.remedy))
    return spec.model_copy(update={"tracking": tracking})


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
    if not addresses.may_exist(url):
        raise NoSweepError(
            Problem(spec.name, f"no study at {addresses.file_of(url)}", "a sweep that was run", run)
        )
    if (
        addresses.without_masks(url) != url
    ):  # copied from a message: PostgreSQL's client may have the password
        url = addresses.without_masks(url)
        storage = spec.storage.model_copy(update={"study": url})
        spec = spec.model_copy(update={"storage": storage})
    if problems := list(stores.store(url, where, table="studies", written=False)):
        raise SpecError(*problems)
    with stores.readable(url, where):
        store = look(url)
        if store is None or stored_spec(store, spec.name) is None:
            if store is not None:
                refuse_foreign(store, spec.name)
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
    tracking: str | None = None,
    budget: Mapping[str, float] = MappingProxyType({}),
) -> Spec:
    """The spec with which a sweep that was run goes on.

    Args:
        reference: a name, or a spec file.
        runs: the artifacts folder; `runs` by default.
        study: the study's URL, where it is not the one that the spec was kept with.
        tracking: MLflow's address, likewise.
        budget: its settings that are raised.

    Raises:
        SpecError: there is no such sweep, its study has another spec than the file, or an address that it
            needs was kept without its password.
    """
    given = _tracked(named(reference, runs=runs, study=study), tracking)
    sweep = found(given, reference, where="--study" if study else None)
    sweep = replace(sweep, kept=tracking is None and is_file(kept_file(reference, runs)))
    problems = spec_conflicts(sweep.ledger.spec, given)
    uri = given.tracking_uri
    if sweep.kept and (unasked := unasked_tracking(sweep.spec)):
        problems.append(unasked)
    elif uri is not None and addresses.without_masks(uri) != uri:
        got = f"{masked(uri)!r}, without its password"
        problems.append(Problem(given.where("tracking.uri"), got, "the whole address", "--tracking URI"))
    if problems:
        raise SpecError(*problems)
    if not budget:
        return sweep.spec
    wanted = {**sweep.spec.to_json(), "budget": {**sweep.spec.budget.to_json(), **budget}}
    words = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in budget.items())
    return sweep.spec.model_copy(update={"budget": Spec.from_json(wanted, name=f"{words}:").budget})


def names_under(runs: Path) -> list[str]:
    """The names of the sweeps under a folder, without what was set aside from them."""
    names = [kept.parent.name for kept in runs.glob("*/spec.json")]
    return sorted(name for name in names if not is_set_aside(name))


def places(sweep: Sweep) -> dict[str, str]:
    """Where everything of a sweep is, for display; passwords masked."""
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


def _known(root: Path) -> str:
    names = names_under(root)
    return f"one of {', '.join(names)}" if names else "a sweep that was run"
