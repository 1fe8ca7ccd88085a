"""A spec for a larger sibling of a sweep's base, its ranges narrowed by what the sweep found."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sweeps.checks import machine
from sweeps.checks.memory import fits, fitting_changes
from sweeps.commands import command
from sweeps.errors import Problem, SpecError
from sweeps.results.sweep import Sweep
from sweeps.results.transferred_ranges import RATES, Decision, decided_settings, rounded
from sweeps.results.verdict import Verdict, none_complete
from sweeps.spec import Range, Spec
from sweeps.spec.commented import commented
from sweeps.spec.equivalence import replaced, value_at
from sweeps.spec.settings import TrialSettings
from sweeps.text import in_bytes, short
from tli.errors import InputError
from tli.models.base import Base
from tli.models.descriptions import find_or_described

_NAMED_LAYERS = ("injection.layers", "injection.after")  # of the smaller base
_CARD = 80 * 10**9  # bytes of a GPU, where this machine has none to ask
_USUAL_RUNS = "runs"
_COPIED = ("objective", "sampler", "budget", "stopping", "control", "finalists", "resources", "retries")


@dataclass(frozen=True)
class Transfer:
    """A spec that was made from a sweep for another base."""

    spec: Spec
    text: str  # as YAML, with its evidence as comments
    factor: float  # of learning rates, by the whole rule


def transfer(sweep: Sweep, base: str, name: str | None = None) -> Transfer:
    """The spec of a sweep for a larger sibling of its base.

    Args:
        sweep: finished, with a best grown model.
        base: a hub id or a folder; a model that is described in the package needs no network.
        name: of the new sweep; made of both names where left out.

    Raises:
        InputError: the sweep is not finished or has no grown model, the base is not found, or is of another
            architecture.
    """
    verdict = sweep.verdict
    problems = list(_unready(sweep, verdict))
    large = _found(base, "--base", problems)
    small = _found(sweep.spec.base.model, f"base of {sweep.spec.name}", problems, sweep.spec.base.revision)
    if large and small and large.facts.model_type != small.facts.model_type:
        got = f"{large.name}, of the architecture {large.facts.model_type}"
        expected = f"a sibling of {small.name}, of the architecture {small.facts.model_type}"
        problems.append(Problem("--base", got, expected, "a new spec; what was found says nothing of it"))
    if problems or large is None or small is None or verdict.chosen is None:
        raise SpecError(*problems)
    records = sweep.records
    factor = small.facts.hidden_size / large.facts.hidden_size
    factor *= math.sqrt(small.facts.depth / large.facts.depth)
    decided = list(decided_settings(sweep.spec, verdict, records, small.facts, large.facts, factor))
    plain = _plain(sweep.spec, verdict.chosen.settings, decided, large, name or _named(sweep.spec.name, base))
    comments = {
        "": list(_heading(sweep, verdict, small, large, factor)),
        **{f"search.{each.path}" if each.range else f"trial.{each.path}": each.comments for each in decided},
    }
    plain, comments["resources"] = _sized(plain, large)
    if (fixed := _unsearched_rates(sweep.spec, verdict.chosen.settings, factor)) is not None:
        plain, comments["trial.recipe.learning_rate"] = replaced(plain, fixed[0]), fixed[1]
    comments["trial"] = (f"The settings of trial {verdict.chosen.number}, the best grown model.",)
    text = commented(plain, comments)
    return Transfer(Spec.from_json(plain, name="--base"), text, factor)


# -- before -----------------------------------------------------------------------------------------


def _unready(sweep: Sweep, verdict: Verdict) -> Iterator[Problem]:
    name, runs = sweep.spec.name, sweep.folders.artifacts
    if not sweep.ledger.finished:
        yield Problem(
            name, "a sweep that is not finished", "a finished one", command("resume", name, runs=runs)
        )
    elif verdict.chosen is None:
        yield Problem(name, none_complete(verdict), "a grown model", command("status", name, runs=runs))


def _found(model: str, where: str, problems: list[Problem], revision: str | None = None) -> Base | None:
    try:
        found = find_or_described(model, revision=revision, where=where)
        found.facts  # noqa: B018 - what cannot be read is a problem now
    except InputError as error:
        problems += error.problems
        return None
    return found


def _named(name: str, base: str) -> str:
    """Of the sweep for another base: `quickstart-llama-3.2-3b`."""
    tail = re.sub(r"[^a-z0-9.]+", "-", base.rstrip("/").rpartition("/")[2].lower()).strip("-.")
    return f"{name}-{tail or 'larger'}"


# -- the spec -----------------------------------------------------------------------------------------


def _plain(
    spec: Spec, best: Mapping[str, Any], decided: Sequence[Decision], large: Base, name: str
) -> dict[str, Any]:
    """The values of the new spec: what the old one sets, with the best trial as its baseline."""
    trial = replaced(best, {each.path: each.value for each in decided if each.value is not None})
    ranges = _conditioned({each.path: each.range for each in decided}, trial)
    given = spec.model_dump(exclude_defaults=True, exclude={"search", "storage", "tracking"})
    plain: dict[str, Any] = {"name": name, "base": {"model": large.name}}
    if large.revision is not None:
        plain["base"]["revision"] = large.revision
    plain["data"] = given["data"]
    plain["trial"] = TrialSettings.model_validate(trial).model_dump(exclude_defaults=True)
    recipe = {"learning_rate": trial["recipe"]["learning_rate"], "tokens": trial["recipe"]["tokens"]}
    plain["trial"]["recipe"] = {**recipe, **plain["trial"].get("recipe", {})}
    plain["search"] = {path: each.to_json() for path, each in ranges.items()}
    plain |= {section: given[section] for section in _COPIED if section in given}
    if spec.objective.scored is not None:
        plain["evaluation"] = given["evaluation"]
    if spec.finalists.per is not None and spec.finalists.per not in ranges:
        plain["finalists"] = {name: each for name, each in given["finalists"].items() if name != "per"}
    plain["resources"] = {
        "cpus": spec.resources.cpus,
        "gpus": spec.resources.gpus,
        **given.get("resources", {}),
    }
    if spec.root.absolute() != Path(_USUAL_RUNS).absolute():
        plain["storage"] = {"artifacts": spec.storage.artifacts}
    if spec.tracking is None or spec.tracking.uri == "sqlite":
        plain["tracking"] = spec.tracking.to_json() if spec.tracking else None
    return plain


def _conditioned(ranges: Mapping[str, Range | None], trial: Mapping[str, Any]) -> dict[str, Range]:
    """Ranges whose conditions can still be met; conditions on what is searched no longer are resolved."""
    kept: dict[str, Range] = {}
    for path, wanted in ranges.items():
        if wanted is None:
            continue
        fixed = {other: values for other, values in wanted.when.items() if ranges.get(other) is None}
        if all(value_at(trial, other) in values for other, values in fixed.items()):
            when = {}
            for other, values in wanted.when.items():
                parent = ranges.get(other)
                if parent is not None:
                    when[other] = tuple(value for value in values if parent.allows(value))
            if all(when.values()):
                kept[path] = replace(wanted, when=when)
    return kept


def _unsearched_rates(
    spec: Spec, best: Mapping[str, Any], factor: float
) -> tuple[dict[str, Any], tuple[str, ...]] | None:
    """The baseline's rate, by the rule, where no rate was searched."""
    if RATES[0] in spec.search:
        return None
    rate = rounded(best["recipe"]["learning_rate"] * factor**0.75)
    said = f"It was not searched: {best['recipe']['learning_rate']:.4g}, by three quarters of the rule above."
    return {f"trial.{RATES[0]}": rate}, (said,)


def _sized(plain: dict[str, Any], large: Base) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The spec with ranks and pieces of a batch with which the base fits, where that is known."""
    spec = Spec.from_json(plain, name="--base")
    gpus = bool(spec.resources.gpus)
    have = (machine.gpu_memory() or _CARD) if gpus else machine.memory()
    if have is None:
        return plain, ("Of this machine's memory nothing is known: `sweeps plan` says what a trial takes.",)
    whose = "a GPU" if gpus else "this machine"
    if gpus and machine.gpu_memory() is None:
        whose = "a GPU of 80 GB, as none is here to ask"
    if fits(spec, large, have):
        return plain, (f"By the estimate one process of a trial fits in the {in_bytes(have)} of {whose}.",)
    for change in fitting_changes(spec, large, have):
        if ("trial.recipe.train" in change) or (not gpus and "resources.workers" in change):
            continue
        made = replaced(plain, change)
        try:
            Spec.from_json(made, name="--base")
        except InputError:  # rows that so many ranks do not divide
            continue
        words = ", ".join(f"{path}: {value}" for path, value in change.items())
        return made, (f"By the estimate a trial fits in the {in_bytes(have)} of {whose} with {words}.",)
    return plain, (f"By the estimate no trial fits in the {in_bytes(have)} of {whose}, whatever is split.",)


def _heading(sweep: Sweep, verdict: Verdict, small: Base, large: Base, factor: float) -> Iterator[str]:
    one, other = small.facts, large.facts
    assert verdict.chosen is not None
    yield (
        f"Made by `sweeps transfer {sweep.spec.name} --base {large.name}` from a finished sweep over "
        f"{small.name}."
    )
    complete = sum(r.value is not None and not r.role.after for r in sweep.records)
    yield (
        f"{small.name}: width {one.hidden_size}, {one.depth} layers, {short(one.parameters)} parameters; "
        f"{complete} trials to their end, the best grown trial {verdict.chosen.number}, under "
        f"{len(verdict.chosen.fresh)} fresh seeds. Answer: {verdict.answer.grow}."
    )
    size = f"{other.depth} layers, {short(other.parameters)} parameters"
    yield f"{large.name}: width {other.hidden_size}, {size}."
    yield (
        "Rule for learning rates: with 1 / width (maximal update parametrisation with Adam, arXiv "
        "2203.03466) and 1 / sqrt(depth) (arXiv 2310.02244), here "
        f"{one.hidden_size}/{other.hidden_size} * sqrt({one.depth}/{other.depth}) = {factor:.3g}. Both are "
        f"for training from scratch: the end farther from the old range takes all of it, the other its "
        f"square root, {math.sqrt(factor):.3g}."
    )
    yield "It was not measured on these bases. Tokens and batches are those of the smaller base."
    named = [path for path in _NAMED_LAYERS if value_at(verdict.chosen.settings, path) is not None]
    if named:
        yield f"{', '.join(named)} names layers of the smaller base, and was not changed: look at it."
    if sweep.spec.storage.study != "sqlite":
        yield "storage.study is a server's address and was not copied."
