"""Sweeps that were run: found by name, looked at, and their models taken home."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from sweeps import reach
from sweeps.claim import is_set_aside
from sweeps.errors import Problem, SpecError
from sweeps.folders import Folders
from sweeps.ledger import Ledger, look, refuse_foreign, spec_conflicts, stored_spec
from sweeps.records import State, TrialRecord
from sweeps.selection import Verdict, verdict
from sweeps.spec import COMPARED, Spec, load_spec, packaged
from sweeps.spec.checks import address_faults
from sweeps.spec.settings import StorageSettings, TrackingSettings
from sweeps.text import amount_notes
from sweeps.wording import masked
from tli.data import token_counts
from tli.errors import CheckpointError
from tli.files import read_regular
from tli.lineage import read_lineage

_LARGEST = 1 << 20  # bytes of a kept spec
_OWN_SPEC = "the sweep's own spec file as NAME"
STUDY_URL = "--study postgresql://USER:PASSWORD@HOST/DATABASE"


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
        folder = self.folders.final(record.number, record.attempt)
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
    sweep = found(named(reference, runs=runs, study=study), reference, where=where)
    return replace(sweep, kept=_is_file(_kept_file(reference, runs)))


def named(reference: str, *, runs: str | None = None, study: str | None = None) -> Spec:
    """The spec that a name or a file stands for: as it was kept beside its results, or as it is written.

    Raises:
        NoSweepError: there is neither.
        SpecError: it cannot be read, one of the options cannot be used, or only a kept spec names the server
            of its study.
    """
    root = Path(runs or "runs")
    kept = _kept_file(reference, runs)
    if _is_file(kept):
        spec = _kept(kept, root)
        if study is None and reach.server(spec.study_url):
            remedy = f"{STUDY_URL}, or {_OWN_SPEC}"
            raise SpecError(_server_of_a_kept_spec(spec, "storage.study", spec.study_url, remedy))
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


def _tracked(spec: Spec, uri: str | None) -> Spec:
    if uri is None:
        return spec
    if reach.without_masks(uri) != uri:
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
    if not reach.may_exist(url):
        raise NoSweepError(
            Problem(spec.name, f"no study at {reach.file_of(url)}", "a sweep that was run", run)
        )
    if reach.without_masks(url) != url:  # copied from a message: PostgreSQL's client may have the password
        url = reach.without_masks(url)
        storage = spec.storage.model_copy(update={"study": url})
        spec = spec.model_copy(update={"storage": storage})
    if problems := list(reach.store(url, where, table="studies", written=False)):
        raise SpecError(*problems)
    with reach.readable(url, where):
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
    sweep = replace(sweep, kept=tracking is None and _is_file(_kept_file(reference, runs)))
    problems = spec_conflicts(sweep.ledger.spec, given)
    uri = given.tracking_uri
    if unasked := server_problem(sweep):
        problems.append(unasked)
    elif uri is not None and reach.without_masks(uri) != uri:
        got = f"{masked(uri)!r}, without its password"
        problems.append(Problem(given.where("tracking.uri"), got, "the whole address", "--tracking URI"))
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
    for name in _names(runs):
        try:
            sweep = find(name, runs=str(runs))
            with reach.readable(sweep.spec.study_url, name):
                listed[name] = Listed(sweep.records, sweep.ledger.finished)
        except SpecError as error:
            listed[name] = Listed(reason=_reason(error.problems))
        except Exception as error:  # noqa: BLE001 - one that cannot be read hides no other
            text = masked(" ".join(str(error).split()))[:200]
            listed[name] = Listed(reason=f"{type(error).__name__}: {text}")
    reason = _unreadable(runs / "study.db")
    if reason is not None and reason not in [each.reason for each in listed.values()]:
        listed["study.db"] = Listed(reason=reason)
    return listed


def _names(runs: Path) -> list[str]:
    """The names of the sweeps under a folder, without what was set aside from them."""
    names = [kept.parent.name for kept in runs.glob("*/spec.json")]
    return sorted(name for name in names if not is_set_aside(name))


def _unreadable(file: Path) -> str | None:
    """Why the store of a folder's studies cannot be read; what is in it is listed by nothing else."""
    url = reach.url_of(file)
    if not _is_file(file):
        return None
    problems = list(reach.store(url, str(file), table="studies", written=False))
    if problems:
        return _reason(problems)
    try:
        with reach.readable(url, str(file)):
            look(url)
    except SpecError as error:
        return _reason(error.problems)
    return None


def _reason(problems: Sequence[Problem]) -> str:
    first = problems[0]
    return f"{first.got}; try {first.remedy}" if first.remedy else first.got


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
    source = sweep.model_of(record)
    if source is None:
        raise SpecError(_no_weights(sweep, records, chosen, out))
    facts = {
        "heldout_loss": record.value,
        "initial_loss": record.initial_loss,
        "verdict": sweep.verdict.to_json(),
    }
    copy_model(source, out, lineage=facts)
    return chosen


def _no_weights(sweep: Sweep, records: Mapping[int, TrialRecord], chosen: int, out: Path) -> Problem:
    held = [str(number) for number, record in records.items() if record.ours and sweep.model_of(record)]
    state, where = records[chosen].state, f"trial {chosen}"
    if not records[chosen].ours:
        got, again = "one that was not run here", f"sweeps status {sweep.spec.name}"
        return Problem(where, got, f"a trial of this sweep: {', '.join(held) or 'none is kept'}", again)
    if not state.finished:
        got, again = f"one that is {state.value.lower()}", f"`sweeps status {sweep.spec.name}`, and waiting"
        return Problem(where, got, "a complete trial", again)
    words = {State.PRUNED: "one that was stopped early", State.FAIL: "one that failed"}
    final = sweep.folders.final(chosen, records[chosen].attempt)
    lost = "were not kept" if not final.exists() else "in its folder are another study's, or another trial's"
    got = words.get(state, f"one whose weights {lost}")
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


def server_problem(sweep: Sweep, option: str | None = "--tracking URI") -> Problem | None:
    """Why no login may be sent to the MLflow of a sweep: it is a server that only a kept spec names.

    Args:
        sweep: found by its name or by its spec.
        option: with which a command takes the address instead.
    """
    uri = sweep.spec.tracking_uri
    if not sweep.kept or uri is None or not reach.server(uri):
        return None
    remedy = f"{option}, or {_OWN_SPEC}" if option else _OWN_SPEC
    return _server_of_a_kept_spec(sweep.spec, "tracking.uri", uri, remedy)


def _server_of_a_kept_spec(spec: Spec, path: str, url: str, remedy: str) -> Problem:
    """A folder of results can come from elsewhere; passwords of the environment go where the user says."""
    got = f"{masked(url)!r}, a server named by the kept spec alone"
    expected = "its address from you, as a login may be sent to it"
    return Problem(spec.where(path), got, expected, remedy)


def _kept_file(reference: str, runs: str | None) -> Path:
    return Path(runs or "runs") / reference / "spec.json"


def _kept(file: Path, root: Path) -> Spec:
    """The spec beside its results, with the folder that it is in now."""
    try:
        values = json.loads(read_regular(file, _LARGEST))
        got = "" if isinstance(values, dict) else "no mapping"
    except (OSError, ValueError, RecursionError) as error:
        got = f"a file that cannot be read ({' '.join(str(error).split())[:200]})"
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
    names = _names(root)
    return f"one of {', '.join(names)}" if names else "a sweep that was run"
