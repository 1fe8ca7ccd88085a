"""Sweeps that were run, found by their name under the runs folder or by their spec."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sweeps import addresses
from sweeps.checks import stores
from sweeps.commands import command
from sweeps.errors import Problem, SpecError
from sweeps.folders import Folders
from sweeps.ledger.reading import read_file
from sweeps.ownership import names_under
from sweeps.results.kept import is_file, kept_file, kept_spec, unasked_study, unasked_tracking
from sweeps.results.sweep import Sweep
from sweeps.spec import COMPARED, Spec
from sweeps.spec.address_checks import address_faults
from sweeps.spec.equivalence import replaced
from sweeps.spec.settings import StorageSettings, TrackingSettings
from sweeps.wording import masked
from tli.argument_types import PATH, STRING, Kind, require_types
from tli.places import expanded

if TYPE_CHECKING:
    from sweeps.ledger import LedgerView

_LOG = logging.getLogger(__name__)


SWEEP_NAME = Kind("a sweep's name, or its spec file", '"quickstart"', (str, os.PathLike))


class NoSweepError(SpecError):
    """Nothing was run under this name, or not here."""


def find(
    reference: str | os.PathLike[str],
    *,
    runs: str | os.PathLike[str] | None = None,
    study: str | None = None,
) -> Sweep:
    """Find a sweep that was run: by its name under the runs folder, or by its spec file.

    What is compared, and the budget, come from the study; what it runs on (stores, folders, resources) from
    what was named here, as that may have moved since.

    Parameters
    ----------
    reference : str or path-like
        A name, or a spec file.
    runs : str or path-like, optional
        The artifacts folder; ``runs`` where left out.
    study : str, optional
        The study's URL, where it is not the one that the spec was kept with.

    Returns
    -------
    Sweep
        As it stands; a sweep that runs can be asked again.

    Raises
    ------
    InputError
        There is no such sweep (`NoSweepError`), or it cannot be read.

    Examples
    --------
    >>> import sweeps
    >>> sweep = sweeps.find("mine")
    >>> sweep.verdict.best is None
    False
    """
    require_types(
        reference=(reference, SWEEP_NAME), runs=(runs, PATH.optional), study=(study, STRING.optional)
    )
    reference, runs = os.fspath(reference), None if runs is None else str(expanded(os.fspath(runs), "runs"))
    where = "study" if study else None
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
        _LOG.debug("spec kept in %s", kept)
        spec = kept_spec(kept, root)
        if study is None and (unasked := unasked_study(spec)):
            raise SpecError(unasked)
    else:
        spec = _written(reference, runs)
    if study is None:
        return spec
    storage = spec.storage.model_copy(update={"study": study})
    fault = next(address_faults(storage, None), None)
    if fault is not None:
        raise SpecError(Problem("study", fault.got, fault.expected, fault.remedy))
    return spec.model_copy(update={"storage": storage})


def _written(reference: str, runs: str | None) -> Spec:
    """The spec of a file, or a packaged one; YAML is imported for these alone."""
    from sweeps.spec import load_spec, packaged

    root = Path(runs or "runs")
    if is_file(Path(reference)) or reference in packaged():
        return load_spec(reference, runs=runs)
    if root.exists() and not root.is_dir():
        raise SpecError(Problem("runs", f"{str(root)!r}, a file", "the folder of all results"))
    raise NoSweepError(
        Problem(reference or "NAME", f"no sweep in {root}", _known(root), command("list", runs=root))
    )


def tracked(spec: Spec, uri: str | None) -> Spec:
    """The spec with another MLflow; as it is for None.

    Raises:
        SpecError: the address will not do, or lacks its password.
    """
    if uri is None:
        return spec
    if addresses.without_masks(uri) != uri:
        got = f"{uri!r}, without its password"
        raise SpecError(Problem("tracking", got, "the whole address", "--tracking with the whole address"))
    tracking = TrackingSettings(uri=uri)
    fault = next(address_faults(StorageSettings(), tracking), None)
    if fault is not None:
        raise SpecError(Problem("tracking", fault.got, fault.expected, fault.remedy))
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
    run = command("run", reference or spec.name, runs=spec.root)
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
        ledger: LedgerView | None = read_file(url, spec.name)
        way = "by Optuna" if ledger is None else "by SQL"
        _LOG.debug("study %r in %s, read %s", spec.name, masked(url), way)
        ledger = ledger or _by_optuna(url, spec, run)
    carried = {field: getattr(ledger.spec, field) for field in (*COMPARED, "budget")}
    return Sweep(spec.model_copy(update=carried), Folders(spec.root, spec.name), ledger)


def _by_optuna(url: str, spec: Spec, run: str) -> LedgerView:
    """The study of a spec, read by Optuna; where there is none, NoSweepError names the command to run."""
    from sweeps.ledger import Ledger, look, refuse_foreign, stored_spec

    store = look(url)
    if store is None or stored_spec(store, spec.name) is None:
        if store is not None:
            refuse_foreign(store, spec.name)
        got = f"no study of this name in {masked(url)}"
        raise NoSweepError(Problem(spec.name, got, "a sweep that was run", run))
    return Ledger.read(url, spec.name)


def resumed(
    reference: str,
    *,
    runs: str | None = None,
    study: str | None = None,
    tracking: str | None = None,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> Spec:
    """The spec with which a sweep that was run goes on.

    Args:
        reference: a name, or a spec file.
        runs: the artifacts folder; `runs` by default.
        study: the study's URL, where it is not the one that the spec was kept with.
        tracking: MLflow's address, likewise.
        more: settings that are raised, by dotted path: of the budget, fresh seeds, rates of the control.

    Raises:
        SpecError: there is no such sweep, its study has another spec than the file, or an address that it
            needs was kept without its password.
    """
    given = tracked(named(reference, runs=runs, study=study), tracking)
    sweep = found(given, reference, where="study" if study else None)
    sweep = replace(sweep, kept=tracking is None and is_file(kept_file(reference, runs)))
    from sweeps.ledger import most_fresh_seeds, spec_conflicts

    ran = most_fresh_seeds(
        (record.replicate_of, record.seed) for record in sweep.records if record.role.fresh
    )
    problems = spec_conflicts(sweep.ledger.spec, given, ran)
    uri = given.tracking_uri
    if sweep.kept and (unasked := unasked_tracking(sweep.spec)):
        problems.append(unasked)
    elif uri is not None and addresses.without_masks(uri) != uri:
        got = f"{masked(uri)!r}, without its password"
        problems.append(Problem(given.where("tracking.uri"), got, "the whole address", "--tracking URI"))
    if problems:
        raise SpecError(*problems)
    if not more:
        return sweep.spec
    wanted = replaced(sweep.spec.to_json(), more)
    options = {path: path.replace("finalists.", "").removeprefix("budget.") for path in more}
    given_words = {
        path: ",".join(value) if isinstance(value, list) else value for path, value in more.items()
    }
    words = " ".join(
        f"--{options[path].replace('_', '-').replace('.', '-')} {value}"
        for path, value in given_words.items()
    )
    raised = Spec.from_json(wanted, name=f"{words}:")
    sections = {path.partition(".")[0] for path in more}
    return sweep.spec.model_copy(update={section: getattr(raised, section) for section in sections})


def _known(root: Path) -> str:
    names = names_under(root)
    return f"one of {', '.join(names)}" if names else "a sweep that was run"
