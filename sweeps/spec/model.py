"""The spec: everything that one sweep is, strict and complete.

What a sweep compares (`identity`) is told apart from what it runs on (budget, resources, storage, tracking),
which may change between two runs of the same command.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import PrivateAttr, ValidationError

from sweeps.addresses import masked_address, url_of
from sweeps.errors import Problem, SpecError
from sweeps.spec import aims, checks, values
from sweeps.spec.all_checks import faults_of
from sweeps.spec.catalogue import catalogue_of
from sweeps.spec.faults import repaired, schema_fault, untouched, without_odd_names
from sweeps.spec.fields import SpecFields
from sweeps.spec.ranges import Range, read_range
from sweeps.spec.renamed import is_before_fresh_seeds, todays_spec
from sweeps.spec.written import Source
from sweeps.wording import Fault
from tli.argument_types import Kind, require_types
from tli.places import expanded

RAISED = ("control.rates", "finalists.seeds")  # adds runs to a sweep, and changes none
READ_ANEW = ("finalists.margin",)
COMPARED = (
    "base",
    "data",
    "trial",
    "search",
    "objective",
    "sampler",
    "warm_start",
    "stopping",
    "control",
    "finalists",
)


class Spec(SpecFields):
    """One sweep, whole and checked. Made by `load_spec` or `Spec.from_json`.

    Attributes
    ----------
    name : str
        Of the sweep, its study and its folder.
    base, data : settings
        The model that is upscaled, and the text.
    trial : settings
        The baseline, complete: ``injection``, ``recipe`` and ``seed``.
    search : dict of str to Range
        Ranges by dotted path in ``trial``.
    warm_start : list of str
        Names of finished sweeps whose trials the search begins with.
    objective, sampler, budget, stopping, control, finalists : settings
        What is minimised, what proposes trials, what ends the search and a trial, what the answer is
        compared with, and what it rests on.
    evaluation : settings
        Downstream tasks that models are scored on.
    resources, retries, storage, tracking : settings
        What a trial gets, how often it is tried again, and where results are kept; tracking may be None.

    Examples
    --------
    >>> import sweeps
    >>> spec = sweeps.load_spec("mine.yaml")
    >>> spec.trial.injection.k, spec.steps
    (2, 8)
    >>> sweeps.Spec.from_json(spec.to_json()) == spec
    True
    """

    _source: Source | None = PrivateAttr(None)
    _before_fresh_seeds: bool = PrivateAttr(default=False)

    def __init__(self, **settings: Any) -> None:
        made = type(self).from_json(settings, name="Spec")
        self.__setstate__(made.__getstate__())

    def where(self, path: str) -> str:
        """Where a setting was written, for messages.

        Parameters
        ----------
        path : str
            Dotted, from the root.

        Returns
        -------
        str
            ``file:line:column path`` as far as it is known.
        """
        source = self._source
        return source.where(aims.as_written(source.values, path)) if source else path

    @property
    def before_fresh_seeds(self) -> bool:
        """Whether it was kept by a version whose claims rested on the search's own seed and text."""
        return self._before_fresh_seeds

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spec) and self.__dict__ == other.__dict__  # not where it was written

    __hash__ = None  # type: ignore[assignment]

    @property
    def hash(self) -> str:
        """SHA-256 of the identity, in hex."""
        text = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def root(self) -> Path:
        """The folder of all artifacts, relative to where the sweep was started, `~` replaced."""
        return expanded(self.storage.artifacts, self.where("storage.artifacts"))

    @property
    def study_url(self) -> str:
        """Where the study is, as SQLAlchemy and Optuna take it. May hold a password: not for messages."""
        return self._store(self.storage.study, "study.db")

    @property
    def tracking_uri(self) -> str | None:
        """Where MLflow is, or None without tracking. May hold a password: not for messages."""
        return None if self.tracking is None else self._store(self.tracking.uri, "mlflow.db")

    def _store(self, address: str, file: str) -> str:
        return url_of(self.root / file) if address == "sqlite" else address

    def to_json(self) -> dict[str, Any]:
        """The whole spec as plain JSON values, as it is kept and shown: `***` is where a secret stands.

        Only the addresses of the two stores may hold one, see `checks.secret_faults`.

        Returns
        -------
        dict
            With every setting, defaults too.
        """
        plain = self.model_dump(exclude={"search"})
        plain["search"] = {path: wanted.to_json() for path, wanted in self.search.items()}
        for holder, name in ((plain["storage"], "study"), (plain["tracking"], "uri")):
            if holder is not None:
                holder[name] = masked_address(holder[name])
        return {name: plain[name] for name in type(self).model_fields}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any], name: str = "spec.json") -> Self:
        """The inverse of `to_json`, but for masked passwords; also of what an earlier version kept.

        Parameters
        ----------
        plain : mapping
            As `to_json` gives it; what is left out has its default.
        name : str, default "spec.json"
            What the messages name as their place.

        Returns
        -------
        Spec
            Whole and checked.

        Raises
        ------
        InputError
            With all problems.
        """
        require_types(plain=(plain, Kind("a mapping of settings", types=(Mapping,))))
        spec = cls.checked(Source(name, todays_spec(plain)))
        spec._before_fresh_seeds = is_before_fresh_seeds(plain)
        return spec

    def identity(self) -> dict[str, Any]:
        """All that makes results comparable, and nothing of what they are run on, or what may change later.

        Returns
        -------
        dict
            As plain JSON values; its digest is `hash`.
        """
        plain = self.to_json()
        later = {path.partition(".")[::2] for path in (*RAISED, *READ_ANEW)}
        compared: dict[str, Any] = {name: plain[name] for name in COMPARED}
        for section, setting in later:
            compared[section] = {name: value for name, value in compared[section].items() if name != setting}
        if self.objective.scored is not None:  # trials are compared by these scores
            compared["evaluation"] = {name: plain["evaluation"][name] for name in ("shots", "limit")}
        return compared

    @property
    def changeable(self) -> dict[str, Any]:
        """What may change on a sweep that has ended, beside the budget: values by dotted path."""
        plain = self.to_json()
        paths = {path: path.split(".") for path in (*RAISED, *READ_ANEW)}
        found = {path: plain[section][name] for path, (section, name) in paths.items()}
        return found | self.evaluation.changeable

    def __repr__(self) -> str:
        return f"Spec({json.dumps(self.to_json(), ensure_ascii=False)})"

    __str__ = __repr__

    @classmethod
    def _of(cls, validated: SpecFields) -> Self:
        """A spec of sections that are sound one by one; not yet checked as a whole."""
        return cls.model_construct(**dict(validated))

    @classmethod
    def checked(cls, source: Source) -> Self:
        """A spec from what was read of a file.

        Parameters
        ----------
        source : Source
            Values, and where each was written.

        Returns
        -------
        Spec
            Whole and checked.

        Raises
        ------
        InputError
            With every fault, in the order of the file.
        """
        named, odd = without_odd_names(source.values)
        named, wrong_aims = aims.with_section(named)
        plain, faults, broken = _with_ranges(named)
        faults += [*odd, *wrong_aims]
        broken += ["objective"] * bool(wrong_aims)
        searched = list(named["search"]) if isinstance(named.get("search"), dict) else []
        faults += checks.path_faults(searched, CATALOGUE)
        try:
            spec = cls._of(SpecFields.model_validate(plain))
        except ValidationError as error:
            wrong = [schema_fault(each, CATALOGUE) for each in error.errors()]
            faults += wrong
            broken += [fault.path for fault in wrong]
            # The rest is judged as if these were mended.
            spec = cls._of(SpecFields.model_validate(repaired(plain, broken, CATALOGUE)))
        faults += untouched(faults_of(spec, CATALOGUE, written=len(searched)), broken)
        if faults:
            places = {fault.path: aims.as_written(source.values, fault.path) for fault in faults}
            ordered = sorted(faults, key=lambda fault: source.order(places[fault.path]))
            raise SpecError(*[_problem(fault, source.where(places[fault.path])) for fault in ordered])
        spec = spec.model_copy(update={"search": values.typed(spec.search, spec.trial)})
        spec._source = source
        return spec


CATALOGUE = catalogue_of(Spec)


def with_settings(spec: Spec, changes: Mapping[str, Any]) -> Spec:
    """The spec with other values at some dotted paths, which are not checked; for estimates of what if."""
    for path, value in changes.items():
        spec = _with_setting(spec, path.split("."), value)
    return spec


def _with_setting(section: Any, names: Sequence[str], value: Any) -> Any:
    first, *rest = names
    inner = _with_setting(getattr(section, first), rest, value) if rest else value
    return section.model_copy(update={first: inner})


def _with_ranges(plain: Mapping[str, Any]) -> tuple[dict[str, Any], list[Fault], list[str]]:
    """The values with every sound range read, the faults of the others, and the paths of those."""
    search = plain.get("search", {})
    if not isinstance(search, Mapping):
        return dict(plain), [], []  # left to the schema
    ranges: dict[str, Range] = {}
    faults: list[Fault] = []
    for path, written in search.items():
        found, wrong = read_range(written, f"search.{path}")
        faults += wrong
        if found is not None:
            ranges[path] = found
    return {**plain, "search": ranges}, faults, [f"search.{path}" for path in search if path not in ranges]


def _problem(fault: Fault, where: str) -> Problem:
    return Problem(where, fault.got, fault.expected, fault.remedy)
