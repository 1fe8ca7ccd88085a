"""Checks across settings that a schema cannot make: contradictions, and a search that cannot be walked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from sweeps.addresses import file_of, holds_secret, url_of
from sweeps.errors import InputError, Problem
from sweeps.spec.data_settings import DataSettings
from sweeps.spec.faults import Catalogue, nearest_setting, settings_below
from sweeps.spec.ranges import Range
from sweeps.spec.resources import ResourceSettings
from sweeps.spec.section import Settings
from sweeps.spec.settings import (
    BaseSettings,
    BudgetSettings,
    FinalistSettings,
    TrialSettings,
)
from sweeps.wording import Fault, formatted, masked, nearest
from tli.places import expanded
from tli.planning.checks import injection_problems
from tli.training.ranks import Ranks, rows_problems
from tli.training.recipe_checks import recipe_problems

# Already used beside the sweeps' own folders.
RESERVED = ("study.db", "mlflow.db", "mlartifacts", "prometheus", "tokens")
FIXED = ("seed", "recipe.tokens", "recipe.batch_tokens")  # the same for all trials, or none could be compared

_FINEST_SHARE = 0.0001  # of a GPU
_TAKEN = ("trial.recipe.tokens", "trial.recipe.batch_tokens", "budget.trials")
_MULTIPLES = tuple(f"trial.recipe.{name}" for name in ("tokens", "batch_tokens", "micro_batch_tokens"))


def name_faults(name: str) -> Iterator[Fault]:
    """A sweep's name is the name of its folder beside the stores."""
    if name in RESERVED or name.endswith((".db", ".db-wal", ".db-shm", ".")):
        yield Fault("name", formatted(name), "a name that no store has", "my-sweep")


def trial_faults(trial: TrialSettings, sequence_length: int) -> list[Fault]:
    """Contradictions within one trial, as `tli` judges them; what depends on the base is left out."""
    problems = injection_problems(trial.to_injection(), None, "trial.injection")
    problems += recipe_problems(trial.to_recipe(), sequence_length, "trial.recipe")
    return [_fault(problem) for problem in problems]


def untrained_faults(trial: TrialSettings, search: Mapping[str, Range]) -> Iterator[Fault]:
    """The original model, where a search tries it, has no injected layers that could be trained alone."""
    method, train = search.get("injection.method"), search.get("recipe.train")
    if "none" not in (method.ends if method else (trial.injection.method,)):
        return
    asked = train is not None and "none" in train.when.get("injection.method", ("none",))
    given = train.ends if train is not None and asked else (trial.recipe.train,)
    alone = [each for each in given if each != "all"]
    if alone:
        place = "search.injection.method" if method else "trial.injection.method"
        involves = ("trial.recipe.train", "search.recipe.train")
        what = "nothing" if alone[0] == "injected" else "norms alone"
        got = f"'none', of which recipe.train: {alone[0]} trains {what}"
        yield Fault(place, got, "all of it trained, or another method", "recipe.train: all", involves)


def method_faults(trial: TrialSettings, search: Mapping[str, Range]) -> Iterator[Fault]:
    """Methods that are searched and need a setting that neither the baseline nor the search gives."""
    wanted = search.get("injection.method")
    known = {path.removeprefix("injection.") for path in search if path.startswith("injection.")}
    for index, method in enumerate(wanted.ends if wanted is not None else ()):
        for problem in injection_problems(replace(trial.to_injection(), method=method), None, "injection"):
            name = problem.where.removeprefix("injection.")
            if name in known or name == "method":
                continue
            place = f"search.injection.method.{wanted.kind}[{index}]"  # type: ignore[union-attr]
            got = f"{formatted(method)}, which needs {name}"
            remedy = f"trial.{problem.where}: {problem.remedy}" if problem.remedy else ""
            yield Fault(
                place,
                got,
                f"{problem.expected} as trial.{problem.where}",
                remedy,
                (f"trial.{problem.where}",),
            )


def amount_faults(
    budget: BudgetSettings, finalists: FinalistSettings, ranges: int, controls: int
) -> Iterator[Fault]:
    """Budgets that the number of ranges or finalists does not fit, beside so many controls."""
    candidates = budget.trials - controls
    if finalists.top > candidates:
        without = "the control" if controls == 1 else f"{controls} controls"
        expected = f"at most {candidates}, the budget's trials without {without}"
        yield Fault("finalists.top", str(finalists.top), expected, str(candidates), ("budget.trials",))
    if not ranges and budget.trials > 2:
        expected = f"at least one range for a budget of {budget.trials} trials"
        yield Fault(
            "search", "no ranges", expected, "injection.k: {choice: [1, 2, 4, 8]}", ("budget.trials",)
        )


def limit_faults(
    budget: BudgetSettings, resources: ResourceSettings, trial: TrialSettings
) -> Iterator[Fault]:
    """Limits that leave nothing to search with, or that nothing is counted against."""
    steps = trial.to_recipe().steps
    needed = 2 * steps * trial.recipe.batch_tokens
    if budget.tokens is not None and budget.tokens <= needed:
        expected = f"more than {needed:,}, which the control and the baseline take"
        yield Fault("budget.tokens", f"{budget.tokens:,}", expected, str(budget.trials * needed // 2), _TAKEN)
    if budget.gpu_hours is not None and not resources.gpus:
        expected = "no limit of GPU-hours where trials have no GPU"
        yield Fault("budget.gpu_hours", formatted(budget.gpu_hours), expected, "wall", ("resources.gpus",))


def per_faults(per: str | None, search: Mapping[str, Range]) -> Iterator[Fault]:
    """Finalists of each value need a setting whose values can be told apart: a searched choice."""
    wanted = search.get(per) if per is not None else None
    if per is None or (wanted is not None and wanted.choice is not None):
        return
    choices = [path for path, each in search.items() if each.choice is not None]
    got = formatted(per) if wanted is None else f"{formatted(per)}, a range of numbers"
    expected = f"a path under search that has choices: {', '.join(choices) or 'there is none'}"
    yield Fault("finalists.per", got, expected, nearest(per, choices) or "null", (f"search.{per}",))


def resource_faults(resources: ResourceSettings) -> Iterator[Fault]:
    """More than the one GPU that a rank uses, a share among ranks, or one that Ray rounds to none."""
    gpus, workers = resources.gpus, resources.workers
    if gpus > 1:
        expected = "at most 1: a rank trains on one GPU, and others would stand idle and count as GPU-hours"
        remedy = f"1, with resources.workers: {math.ceil(gpus)}" if workers == 1 else "1"
        yield Fault("resources.gpus", f"{gpus:g}", expected, remedy, ("resources.workers",))
    elif workers > 1 and 0 < gpus < 1:
        expected = f"0 or 1: each of {workers} ranks has a GPU of its own, as NCCL wants it"
        yield Fault("resources.gpus", f"{gpus:g}", expected, "1", ("resources.workers",))
    elif 0 < gpus < _FINEST_SHARE:
        expected = f"0, or at least {_FINEST_SHARE:g}, the finest share of a GPU that Ray counts"
        yield Fault("resources.gpus", f"{gpus:g}", expected, "0.1")


def rank_faults(resources: ResourceSettings, trial: TrialSettings, data: DataSettings) -> Iterator[Fault]:
    """A batch whose rows the ranks of a trial do not divide."""
    tokens, length = trial.recipe.batch_tokens, data.sequence_length
    if tokens % length:  # a fault of its own
        return
    for problem in rows_problems(
        tokens // length, length, Ranks(0, resources.workers), "trial.recipe.batch_tokens"
    ):
        involves = ("resources.workers", "data.sequence_length")
        yield Fault(problem.where, problem.got, problem.expected, problem.remedy, involves)


def _homeless(path: str, address: str) -> Iterator[Fault]:
    """A `~` in an address would be the name of a folder: only paths have it replaced."""
    if not address.startswith("sqlite") or not file_of(address).as_posix().startswith("~"):
        return
    try:
        remedy = url_of(expanded(file_of(address), path))
    except InputError:
        remedy = "sqlite:////FOLDER/FILE"
    yield Fault(
        path, formatted(address), "a file by its whole path, as no ~ is replaced in an address", remedy
    )


def secret_faults(base: BaseSettings, data: DataSettings) -> Iterator[Fault]:
    """Secrets in settings that are kept as they are written: beside results, in the study, in MLflow."""
    named = {
        f"data.{group}.{name}": settings
        for group, texts in (("sources", data.sources), ("measured_only", data.measured_only))
        for name, settings in texts.items()
    }
    sections: dict[str, Settings] = {"base": base, "data": data, **named}
    for section, settings in sections.items():
        for name, value in settings.to_json().items():
            if isinstance(value, str) and holds_secret(value):
                expected = "nothing secret, as this setting is kept with the results"
                remedy = "HF_TOKEN for the hub, or a copy on disk"
                yield Fault(f"{section}.{name}", formatted(value), expected, remedy)


def path_faults(paths: Iterable[str], catalogue: Catalogue) -> Iterator[Fault]:
    """Searched paths that are no setting of a trial, or that must not differ between trials."""
    for path in paths:
        yield from _path_faults(path, catalogue)


def condition_faults(search: Mapping[str, Range]) -> Iterator[Fault]:
    """Conditions that can never be met."""
    for path, wanted in search.items():
        for other, allowed in wanted.when.items():
            yield from _condition_faults(path, other, allowed, search)
    yield from _circles(search)


def may_differ(path: str, catalogue: Catalogue) -> bool:
    """Whether a path is a setting of a trial that a search may vary."""
    setting = catalogue.get(f"trial.{path}")
    return setting is not None and not setting.section and path not in FIXED


def _path_faults(path: str, catalogue: Catalogue) -> Iterator[Fault]:
    place = f"search.{path}"
    setting = catalogue.get(f"trial.{path}")
    if setting is None:
        leaves = settings_below(catalogue, "trial.")
        meant = nearest_setting(path, leaves)
        yield Fault(
            place,
            f"{formatted(path)}, which is not a setting of trial",
            "a dotted path in trial",
            meant or "",
        )
    elif setting.section:
        inner = next(other for other in catalogue if other.startswith(f"trial.{path}."))
        remedy = f"{inner.removeprefix('trial.')}: ..."
        yield Fault(place, f"{formatted(path)}, which is a section", "the dotted path of one setting", remedy)
    elif path in FIXED:
        expected = "a setting that may differ between trials; all see the same text for the same tokens"
        remedy = "finalists.seeds for more seeds" if path == "seed" else f"setting it once, as trial.{path}"
        yield Fault(place, formatted(path), expected, remedy)


def _condition_faults(
    path: str, other: str, values: Iterable[object], search: Mapping[str, Range]
) -> Iterator[Fault]:
    place = f"search.{path}.when.{other}"
    parent = search.get(other)
    if parent is None:
        remedy = (
            nearest(other, [each for each in search if each != path]) or f"adding it, or deleting {place}"
        )
        yield Fault(
            place,
            f"{formatted(other)}, which is not searched",
            "a path under search",
            remedy,
            (f"search.{other}",),
        )
        return
    for value in values:
        if not parent.allows(value):
            if parent.choice is not None:
                known = [str(choice) for choice in parent.choice]
                expected = f"one of its choices {', '.join(formatted(choice) for choice in parent.choice)}"
                remedy = nearest(str(value), known) or ""
            else:
                expected, remedy = f"a value from {parent.ends[0]} to {parent.ends[1]}", ""
            yield Fault(place, formatted(value), expected, remedy, (f"search.{other}",))


def _circles(search: Mapping[str, Range]) -> Iterator[Fault]:
    known: set[str] = set()
    for start in search:
        circle = None if start in known else _way_back(start, search, [start])
        if circle:
            known.update(circle)
            got = f"a circle, {' -> '.join(circle)}"
            yield Fault(f"search.{start}.when", got, "conditions that end somewhere", "deleting one of them")


def _way_back(start: str, search: Mapping[str, Range], chain: list[str]) -> list[str] | None:
    for other in search[chain[-1]].when:
        if other == start:
            return [*chain, start]
        if other in search and other not in chain:
            found = _way_back(start, search, [*chain, other])
            if found:
                return found
    return None


def _fault(problem: Problem) -> Fault:
    involves = ("data.sequence_length", *_MULTIPLES) if problem.where in _MULTIPLES else ()
    if problem.where.startswith("trial.injection.") and problem.where != "trial.injection.method":
        involves = ("trial.injection.method",)
    got = "null" if problem.got == "None" else masked(problem.got)
    return Fault(problem.where, got, problem.expected, problem.remedy, involves)
