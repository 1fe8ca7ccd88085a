"""Applies searched values to the baseline's settings, and checks that a trial would take them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from sweeps.errors import Problem, SpecError
from sweeps.spec.catalogue import catalogue_of
from sweeps.spec.checks import trial_faults
from sweeps.spec.faults import Catalogue, nearest_setting, schema_fault, settings_below
from sweeps.spec.ranges import Range
from sweeps.spec.settings import TrialSettings
from sweeps.wording import Fault, formatted, nearest
from tli.training.recipe import Recipe

_TRIAL = catalogue_of(TrialSettings)


def settings_for(trial: TrialSettings, params: Mapping[str, Any]) -> TrialSettings:
    """The trial with dotted paths replaced.

    Raises:
        SpecError: a path that is no trial setting, or a value that no trial can run with.
    """
    known = settings_below(_TRIAL, "")
    unknown = [path for path in params if path not in known]
    if unknown:
        expected = "a dotted path in trial"
        raise SpecError(
            *[
                Problem(f"params {p}", "an unknown setting", expected, nearest_setting(p, known) or "")
                for p in unknown
            ]
        )
    try:
        return TrialSettings.model_validate(_replaced(trial, params))
    except ValidationError as error:
        faults = [schema_fault(each, _TRIAL) for each in error.errors()]
        raise SpecError(*[Problem(f"params {f.path}", f.got, f.expected, f.remedy) for f in faults]) from None


def steps_of(settings: Mapping[str, Any]) -> int:
    """Optimizer steps of a trial with these settings, the whole `trial:` section as plain values."""
    return Recipe(**settings["recipe"]).steps


def value_faults(
    path: str, wanted: Range, trial: TrialSettings, sequence_length: int, catalogue: Catalogue
) -> Iterator[Fault]:
    """Choices and ends that no trial could run with, each judged as the setting it replaces."""
    before = {fault.path for fault in trial_faults(trial, sequence_length)}
    setting = catalogue[f"trial.{path}"]
    for index, value in enumerate(wanted.ends):
        place = f"search.{path}.{wanted.kind}[{index}]"
        try:
            replaced = TrialSettings.model_validate(_replaced(trial, {path: value}))
        except ValidationError as error:
            if wanted.kind in ("uniform", "log") and error.errors()[0]["type"] in (
                "int_type",
                "int_from_float",
            ):
                got = f"{wanted.kind} for a setting of whole numbers"
                yield Fault(f"search.{path}.{wanted.kind}", got, "choice or int", "int in its place")
                return
            fault = schema_fault({**error.errors()[0], "loc": ("trial", *path.split("."))}, catalogue)
            remedy = nearest(str(value), setting.names) if setting.names else ""
            yield replace(fault, path=place, remedy=remedy or "")
            continue
        for fault in trial_faults(replaced, sequence_length):
            if fault.path == f"trial.{path}" and fault.path not in before:
                yield replace(fault, path=place, got=formatted(value), remedy="", involves=fault.involves)


def typed(search: Mapping[str, Range], trial: TrialSettings) -> dict[str, Range]:
    """The ranges with choices and conditions of the setting's own type: 1 becomes 1.0 where it is a rate."""

    def as_setting(path: str, value: Any) -> Any:
        found: Any = settings_for(trial, {path: value})
        for part in path.split("."):
            found = getattr(found, part)
        return found

    result = {}
    for path, wanted in search.items():
        choice = wanted.choice and tuple(as_setting(path, value) for value in wanted.choice)
        when = {
            other: tuple(as_setting(other, value) for value in values)
            for other, values in wanted.when.items()
        }
        result[path] = replace(wanted, choice=choice, when=when)
    return result


def _replaced(trial: TrialSettings, params: Mapping[str, Any]) -> dict[str, Any]:
    plain = copy.deepcopy(trial.to_json())
    for path, value in params.items():
        holder = plain
        *sections, name = path.split(".")
        for section in sections:
            holder = holder[section]
        holder[name] = value
    return plain
