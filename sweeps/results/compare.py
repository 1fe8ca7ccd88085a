"""Compares trials of one sweep or several at equal steps, tokens, FLOPs and seconds of training.

What is compared: the best trial of each sweep, or of each value of a setting, or the trials that were named;
and always the control of each sweep, with the best grown model also the one that had its FLOPs. Their curves
come from disk, the rest from the ledger.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sweeps.commands import command
from sweeps.curve import CURVE, read_curve
from sweeps.errors import Problem, SpecError
from sweeps.records import Role, State, TrialRecord
from sweeps.results.comparable import differences
from sweeps.results.equal_cost import Comparison, Curve, Entry, compared, finite_part, shared_seeds
from sweeps.results.finalists import control_of
from sweeps.results.finding import SWEEP_NAME, find
from sweeps.results.labels import grown
from sweeps.results.selection import verdict
from sweeps.results.sweep import Sweep
from sweeps.results.unfinished import progress_of
from sweeps.results.verdict import none_complete
from sweeps.spec.equivalence import value_at
from sweeps.spec.faults import nearest_setting, settings_below
from sweeps.spec.model import CATALOGUE
from sweeps.wording import formatted
from tli.argument_types import PATH, STRING, require_types, type_problems
from tli.errors import CheckpointError
from tli.models.base import Base

_SHOWN = ("injection.method", "injection.k", "injection.init", "recipe.learning_rate")  # by every entry
_ONE_TRIAL = re.compile(r"(?P<sweep>.+):(?P<number>\d{1,9})")


def compare(
    *references: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    by: str | None = None,
    runs: str | os.PathLike[str] | None = None,
    study: str | None = None,
) -> Comparison:
    """Put trials side by side, at equal steps, tokens, FLOPs and seconds of training.

    Parameters
    ----------
    *references : str, path-like, or a sequence of them
        Sweeps by name or spec file, or one trial of one, as ``quickstart:7``.
    by : str, optional
        Dotted path of a setting: the best trial of each of its values, in place of the one best. Where left
        out, what the sweep has finalists of each value of, or its method where that is searched.
    runs : str or path-like, optional
        The artifacts folder; ``runs`` where left out.
    study : str, optional
        The store of all studies, where it is not the one that each spec was kept with.

    Returns
    -------
    Comparison
        Losses (nats per token) of each entry at equal amounts, with differences from its control.

    Raises
    ------
    InputError
        A sweep or trial that is not there, has no curve yet, or whose losses are not comparable.

    Examples
    --------
    >>> import sweeps
    >>> comparison = sweeps.compare("mine", "mine:1")
    >>> "mine" in str(comparison.to_json())
    True
    """
    given = _named(references)
    require_types(by=(by, STRING.optional), runs=(runs, PATH.optional), study=(study, STRING.optional))
    if not given:
        raise SpecError(Problem("references", "no sweep", "one or more", '"quickstart"'))
    _refuse_unknown(by)
    picked: dict[str, Entry] = {}
    sweeps: dict[str, Sweep] = {}
    problems: list[Problem] = []
    for reference in given:
        try:
            sweep, found = _entries(reference, by, runs, study)
        except SpecError as error:
            problems += error.problems
            continue
        other = sweeps.setdefault(sweep.spec.name, sweep)
        if other.folders != sweep.folders:
            got = f"another sweep called {sweep.spec.name!r}, in {str(sweep.folders.artifacts)!r}"
            problems.append(Problem(reference, got, "sweeps of different names"))
        picked |= {entry.key: entry for entry in found if entry.key not in picked}
    if len(sweeps) > 1 and not problems:
        problems += differences(list(sweeps.values()))
    if problems:
        raise SpecError(*dict.fromkeys(problems))
    entries = list(picked.values())
    left_out = [] if shared_seeds(entries) else [e for e in entries if e.record.role is Role.MATCHED]
    entries = [entry for entry in entries if entry not in left_out]
    doubts = [*(_unshared(entry) for entry in left_out), *_doubts(list(sweeps.values()), entries, by)]
    return compared(entries, doubts)


# -- inside ---------------------------------------------------------------------------------------


def _named(references: Sequence[Any]) -> list[str]:
    """The names among arguments, each one or a list of them."""
    names = [name for each in references for name in (each if isinstance(each, list | tuple) else [each])]
    if problems := type_problems({f"references[{n}]": (name, SWEEP_NAME) for n, name in enumerate(names)}):
        raise SpecError(*problems)
    return [os.fspath(name) for name in names]


def _refuse_unknown(by: str | None) -> None:
    known = settings_below(CATALOGUE, "trial.")
    if by is not None and by not in known:
        remedy = (nearest_setting(f"trial.{by}", CATALOGUE) or "").removeprefix("trial.")
        raise SpecError(Problem("by", formatted(by), "a dotted path in trial", remedy))


def _entries(
    reference: str, by: str | None, runs: str | os.PathLike[str] | None, study: str | None
) -> tuple[Sweep, list[Entry]]:
    """The sweep of a reference, and what of it is compared: its control, and what was asked for."""
    one = None if Path(reference).is_file() else _ONE_TRIAL.fullmatch(reference)
    name = one["sweep"] if one else reference
    sweep = find(name, runs=runs, study=study)
    records = sweep.records
    if one:
        by, chosen = None, _named_trial(reference, int(one["number"]), records, sweep)
    else:
        by = by or _usual(sweep)
        chosen = list(_best_of_each(sweep, records, by) if by else _best(sweep, records))
        if not chosen:
            got = none_complete(sweep.verdict)
            again = command("run", name, runs=sweep.folders.artifacts)
            remedy = f"{again}, or one of its trials, as {name}:1"
            if sweep.verdict.failed:
                status = command("status", name, runs=sweep.folders.artifacts)
                remedy = f"`{status}`, which has the reasons; or a trial of it, as {name}:1"
            raise SpecError(Problem(name, got, "a complete upscaled trial", remedy))
    matched = None if one or by else sweep.verdict.matched  # of the best one
    originals = control_of(records), *(r for r in records if matched and r.number == matched.number)
    together = {record.number: record for record in (*originals, *chosen) if record is not None}
    return sweep, [_entry(sweep, record, records, by) for record in together.values()]


def _named_trial(
    reference: str, number: int, records: Sequence[TrialRecord], sweep: Sweep
) -> list[TrialRecord]:
    found = [record for record in records if record.number == number]
    if not found:
        expected = f"a number from 0 to {len(records) - 1}" if records else "a sweep that has trials"
        raise SpecError(Problem(reference, f"trial {number}, which is not there", expected))
    if not found[0].ours:
        got = f"trial {number}, which was not run here"
        status = command("status", sweep.spec.name, runs=sweep.folders.artifacts)
        raise SpecError(Problem(reference, got, "a trial of this sweep", status))
    return found


def _usual(sweep: Sweep) -> str | None:
    searched = "injection.method" if "injection.method" in sweep.spec.search else None
    return sweep.spec.finalists.per or searched


def _best(sweep: Sweep, records: Sequence[TrialRecord]) -> Iterator[TrialRecord]:
    best = sweep.verdict.best_grown
    return (record for record in records if record.number == best)


def _best_of_each(sweep: Sweep, records: Sequence[TrialRecord], by: str) -> Iterator[TrialRecord]:
    """Of each value the first in the ranking, which is by mean over seeds where there are replicates."""
    wanted = sweep.spec.finalists
    top = wanted.top if by == wanted.per else 1
    values = set()
    answer = verdict(records, top=top, seeds=wanted.seeds, per=by, depth=sweep.ledger.depth)
    for finalist in answer.finalists:
        value = repr(value_at(finalist.settings, by))
        if value not in values:
            values.add(value)
            yield next(record for record in records if record.number == finalist.number)


def _entry(sweep: Sweep, record: TrialRecord, records: Sequence[TrialRecord], by: str | None) -> Entry:
    of = (Role.REPLICATE, record.number)
    if record.role is Role.MATCHED:  # one stands for those under the other seeds
        of = (Role.MATCHED, record.replicate_of or 0)
    again = (r for r in records if (r.role, r.replicate_of) == of and r.steps == record.steps)
    replicates = [r for r in again if r.state is State.COMPLETE]
    curves = {each.seed: _curve(sweep, each) for each in (record, *replicates)}
    plain = by is None or by in _SHOWN or record.original
    chosen_value = "" if plain else f"{str(by).rpartition('.')[2]}={value_at(record.settings, str(by))}"
    return Entry(sweep.spec.name, record, curves, _parameters(sweep, record), chosen_value)


def _curve(sweep: Sweep, record: TrialRecord) -> Curve:
    file = sweep.folders.trial(record.number) / CURVE
    # What a worker measured and no driver has taken is not in the ledger, and does not count.
    points = read_curve(file, sweep.ledger.owner(record))
    curve = finite_part([point for point in points if point.step in record.losses])
    if len(curve) < 2:
        got = "no measurement of it after its first step" if file.exists() else f"no curve at {str(file)!r}"
        where, remedy = f"{sweep.spec.name}:{record.number}", "another trial, or --runs DIR (runs=DIR)"
        raise SpecError(Problem(where, got, "a curve of two points or more", remedy))
    return curve


def _parameters(sweep: Sweep, record: TrialRecord) -> int | None:
    folder = sweep.model_of(record)
    if folder is None:
        return None
    try:
        return Base(str(folder), folder).facts.parameters
    except CheckpointError:  # no longer what it was
        return None


# -- how fairly -----------------------------------------------------------------------------------


def _doubts(sweeps: Sequence[Sweep], entries: Sequence[Entry], by: str | None) -> Iterator[str]:
    """What to know before believing a comparison, one sentence each."""
    yield from _unlike(sweeps)
    for sweep in sweeps:
        records = [entry.record for entry in entries if entry.sweep == sweep.spec.name]
        if not any(record.original for record in records):
            yield f"{sweep.spec.name} has no complete control: nothing of it is compared with one"
        if unfinished := progress_of(sweep, sweep.spec.name).note:
            yield f"{sweep.spec.name}: {unfinished}"
        yield from _left_out(sweep, by) if by else ()
        for record in records:
            yield from _of_one(sweep, record)


def _unshared(entry: Entry) -> str:
    of = entry.record.replicate_of
    which = f"the control with the FLOPs of trial {of}"
    return f"{entry.sweep}: {which} is left out, as it ran under fresh seeds alone"


def _left_out(sweep: Sweep, by: str) -> Iterator[str]:
    """Values of the setting compared by of which no trial was trained to its end, or none was tried."""
    tried = [
        record
        for record in sweep.records
        if record.ours and record.settings and not (record.original or record.role.promoted)
    ]
    complete = {repr(value_at(record.settings, by)) for record in tried if record.value is not None}
    choices = {path: each.choice for path, each in sweep.spec.search.items()}.get(by) or ()
    known = {*map(repr, choices), *(repr(value_at(record.settings, by)) for record in tried)} - {"'none'"}
    if missing := sorted(known - complete):
        yield f"{sweep.spec.name}: no trial with {by} {', '.join(missing)} is complete, so none is compared"


def _unlike(sweeps: Sequence[Sweep]) -> Iterator[str]:
    names = " and ".join(sweep.spec.name for sweep in sweeps)
    if len({(sweep.spec.trial.recipe.batch_tokens, sweep.spec.trial.seed) for sweep in sweeps}) > 1:
        yield f"the trials of {names} saw other batches: differences between them hold that too"
    if len({sweep.spec.steps * sweep.spec.trial.recipe.batch_tokens for sweep in sweeps}) > 1:
        yield (
            f"the budgets of {names} differ: where the shorter ends, the learning rate of the longer has not "
            "fallen yet, which counts against it"
        )
    if len({sweep.spec.resources.of_a_trial for sweep in sweeps}) > 1:
        yield f"the trials of {names} had different resources: their seconds are not of one machine"


def _of_one(sweep: Sweep, record: TrialRecord) -> Iterator[str]:
    """That a trial did not come to its end, or that the best rate may lie beyond those that were tried."""
    name = f"trial {record.number} ({grown(record) or 'control'}) of {sweep.spec.name}"
    words = {State.PRUNED: "was stopped", State.FAIL: "failed", State.RUNNING: "runs, and stands"}
    if record.state in words:
        yield f"{name} {words[record.state]} at step {record.step} of {record.steps}"
    wanted = sweep.spec.search.get("recipe.learning_rate")
    choice = wanted.choice if wanted is not None else None
    edges = {min(choice): "lowest", max(choice): "highest"} if choice and len(choice) > 1 else {}
    edge = edges.get(record.params.get("recipe.learning_rate"))
    if edge is not None:
        yield f"{name} has the {edge} rate that was tried: one beyond may suit it better"
