"""The spec: everything that one sweep is, strict and complete.

What a sweep compares (`identity`) is told apart from what it runs on (budget, resources, storage, tracking),
which may change between two runs of the same command.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, PrivateAttr, ValidationError

from sweeps.addresses import masked_address, url_of
from sweeps.errors import Problem, SpecError
from sweeps.spec import address_checks, checks, values
from sweeps.spec.faults import repaired, schema_fault, untouched, without_odd_names
from sweeps.spec.ineffective import unread_faults
from sweeps.spec.ranges import Range, read_range
from sweeps.spec.settings import (
    BaseSettings,
    BudgetSettings,
    DataSettings,
    FinalistSettings,
    ObjectiveSettings,
    ResourceSettings,
    RetrySettings,
    SamplerSettings,
    Settings,
    StoppingSettings,
    StorageSettings,
    TrackingSettings,
    TrialSettings,
    catalogue_of,
    section,
    setting,
)
from sweeps.spec.yaml_source import Source
from sweeps.wording import Fault, formatted, masked
from tli.places import expanded
from tli.planning.injection import Injection, with_new_names

COMPARED = ("base", "data", "trial", "search", "objective", "sampler", "stopping", "finalists")


class Spec(Settings):
    """One sweep, whole and checked. Made by `load_spec` or `Spec.from_json`."""

    name: str = setting(
        "1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or a digit",
        example="my-sweep",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
    )
    base: BaseSettings = section(BaseSettings, {"model": "builtin:tiny-llama"})
    data: DataSettings = section(DataSettings, {"source": "builtin:stdlib"})
    trial: TrialSettings = section(TrialSettings)
    search: dict[str, Range] = Field(
        {}, description="a mapping from dotted paths in trial to ranges", examples=[None]
    )
    objective: ObjectiveSettings = section(ObjectiveSettings)
    sampler: SamplerSettings = section(SamplerSettings)
    budget: BudgetSettings = section(BudgetSettings, {"trials": 24})
    stopping: StoppingSettings = section(StoppingSettings)
    finalists: FinalistSettings = section(FinalistSettings)
    resources: ResourceSettings = section(ResourceSettings)
    retries: RetrySettings = section(RetrySettings)
    storage: StorageSettings = section(StorageSettings)
    tracking: TrackingSettings | None = section(TrackingSettings)

    _source: Source | None = PrivateAttr(None)

    def where(self, path: str) -> str:
        """Where a dotted path was written, for messages: `file:line:column path` as far as it is known."""
        return self._source.where(path) if self._source else path

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spec) and self.__dict__ == other.__dict__  # not where it was written

    __hash__ = None  # type: ignore[assignment]

    @property
    def steps(self) -> int:
        """Optimizer steps of every trial."""
        return self.trial.to_recipe().steps

    @property
    def grace_step(self) -> int:
        """The first step at which the stopping rule may give a trial up."""
        return max(1, math.ceil(self.stopping.grace * self.steps))

    @property
    def replicates(self) -> int:
        """Most runs on top of the budget: finalists, control and baseline under further seeds."""
        return (self.most_finalists + 2) * (self.finalists.seeds - 1)

    @property
    def most_finalists(self) -> int:
        """As many as there may be, of all values together; the original model is none."""
        per, top = self.finalists.per, self.finalists.top
        if per is None:
            return top
        method = self.search.get("injection.method")
        methods = set(method.ends if method else (self.trial.injection.method,)) - {"none"}
        section, _, name = per.partition(".")
        # Of methods that do not read the setting, the best are a group of their own.
        idle = section == "injection" and not all(
            Injection(each).read_by_method(name.partition(".")[0]) for each in methods
        )
        values = methods if per == "injection.method" else self.search[per].ends
        return top * (len(values) + idle)

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

    def report_steps(self) -> tuple[int, ...]:
        """Steps at which the held-out loss is measured, in order.

        0, the powers of two, the stopping rule's grace and the last step; further ones evenly in between
        wherever a fifth of the budget would pass without a measurement. Evaluation costs about a third of
        training per token, so there are no more than that.
        """
        steps = self.steps
        marks = {0, self.grace_step, steps}
        marks.update(2**power for power in range(steps.bit_length()) if 2**power <= steps)
        widest = max(1, math.ceil(steps / 5))
        ordered = sorted(marks)
        for low, high in itertools.pairwise(ordered):
            parts = math.ceil((high - low) / widest)
            marks.update(low + round((high - low) * part / parts) for part in range(1, parts))
        return tuple(sorted(marks))

    def value(self, path: str) -> Any:
        """The baseline's value at a dotted path in `trial`."""
        found: Any = self.trial
        for part in path.split("."):
            found = getattr(found, part)
        return found

    def settings_for(self, params: Mapping[str, Any]) -> TrialSettings:
        """The baseline with dotted paths replaced.

        Raises:
            SpecError: a path that is no trial setting, or a value that no trial can run with.
        """
        return values.settings_for(self.trial, params)

    def to_json(self) -> dict[str, Any]:
        """The whole spec as plain JSON values, as it is kept and shown: `***` is where a secret stands.

        Only the addresses of the two stores may hold one, see `checks.secret_faults`.
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

        Raises:
            SpecError: it is no spec, or one that cannot be run.
        """
        trial = plain.get("trial")
        if isinstance(trial, dict) and isinstance(settings := trial.get("injection"), dict):
            plain = {**plain, "trial": {**trial, "injection": with_new_names(settings)}}
        return cls.checked(Source(name, dict(plain)))

    def identity(self) -> dict[str, Any]:
        """All that makes results comparable, and nothing of what they are run on."""
        plain = self.to_json()
        return {name: plain[name] for name in COMPARED}

    def __repr__(self) -> str:
        return f"Spec({json.dumps(self.to_json(), ensure_ascii=False)})"

    __str__ = __repr__

    @classmethod
    def checked(cls, source: Source) -> Self:
        """A spec from plain values. Raises one SpecError with every fault, in the order of the file."""
        named, odd = without_odd_names(source.values)
        plain, faults, broken = _with_ranges(named)
        faults += odd
        searched = list(named["search"]) if isinstance(named.get("search"), dict) else []
        faults += checks.path_faults(searched, CATALOGUE)
        try:
            spec = cls.model_validate(plain)
        except ValidationError as error:
            wrong = [schema_fault(each, CATALOGUE) for each in error.errors()]
            faults += wrong
            broken += [fault.path for fault in wrong]
            # The rest is judged as if these were mended.
            spec = cls.model_validate(repaired(plain, broken, CATALOGUE))
        faults += untouched(_faults(spec, written=len(searched)), broken)
        if faults:
            ordered = sorted(faults, key=lambda fault: source.order(fault.path))
            raise SpecError(*[_problem(fault, source.where(fault.path)) for fault in ordered])
        spec = spec.model_copy(update={"search": values.typed(spec.search, spec.trial)})
        spec._source = source
        return spec


CATALOGUE = catalogue_of(Spec)


def difference(old: Spec, new: Spec) -> list[str]:
    """What keeps two specs from sharing a study: lines `path: old -> new`, none where results compare."""
    before, after = (dict(_flat(spec.identity())) for spec in (old, new))
    paths = [*before, *(path for path in after if path not in before)]
    lines = [(path, before.get(path, "nothing"), after.get(path, "nothing")) for path in paths]
    return [f"{path}: {one} -> {other}" for path, one, other in lines if one != other]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        # A range is one thing: its form and its ends say nothing apart.
        if isinstance(value, Mapping) and not prefix.startswith("search."):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _inline(value)


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_inline(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_inline(each) for each in value) + "]"
    return masked(value) if isinstance(value, str) else formatted(value)


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


def _faults(spec: Spec, *, written: int) -> Iterator[Fault]:
    """Everything wrong with a spec whose sections are sound one by one; `written` ranges, sound or not."""
    yield from checks.name_faults(spec.name)
    yield from checks.trial_faults(spec.trial, spec.data.sequence_length)
    yield from checks.untrained_faults(spec.trial, spec.search)
    yield from checks.data_faults(spec.data, spec.trial)
    yield from checks.amount_faults(spec.budget, spec.finalists, written)
    yield from checks.limit_faults(spec.budget, spec.resources, spec.trial)
    yield from checks.per_faults(spec.finalists.per, spec.search)
    yield from checks.stopping_faults(spec.stopping)
    yield from checks.resource_faults(spec.resources)
    yield from address_checks.address_faults(spec.storage, spec.tracking)
    yield from checks.secret_faults(spec.base, spec.data)
    wrong = list(checks.condition_faults(spec.search))
    wrong += [
        fault
        for path, wanted in spec.search.items()
        if checks.may_differ(path, CATALOGUE)
        for fault in values.value_faults(path, wanted, spec.trial, spec.data.sequence_length, CATALOGUE)
    ]
    yield from wrong
    if not wrong and all(checks.may_differ(path, CATALOGUE) for path in spec.search):
        yield from checks.method_faults(spec.trial, spec.search)
        yield from unread_faults(spec.trial, spec.search)


def _problem(fault: Fault, where: str) -> Problem:
    return Problem(where, fault.got, fault.expected, fault.remedy)
