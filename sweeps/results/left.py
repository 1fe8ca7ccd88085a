"""What of a sweep's runs is still to be run, by what they are for; which are trained again to be scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sweeps.errors import Problem
from sweeps.records import Role, TrialRecord
from sweeps.results.evaluated import base_due, runs_due
from sweeps.results.finalists import replicates_due
from sweeps.results.finding import NoSweepError, found
from sweeps.results.ladder import rungs_due
from sweeps.results.looks import look_of
from sweeps.results.matched import matched_due

if TYPE_CHECKING:
    from sweeps.results.sweep import Sweep
    from sweeps.spec import Spec


@dataclass(frozen=True)
class Left:
    """What a sweep that was begun has left.

    Attributes:
        runs: how many, at most, by role; those that were interrupted are among them.
        again: numbers of complete runs that are trained again to be scored on tasks: a model is scored in the
            run that trains it, also where it is kept.
        tokens, flops: of training those again.
    """

    runs: Mapping[Role, int]
    again: tuple[int, ...]
    tokens: int
    flops: float

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {**asdict(self), "runs": {str(role): number for role, number in self.runs.items()}}


def begun(spec: Spec, conflicts: Callable[[Spec], Sequence[Problem]]) -> tuple[Left | None, list[str]]:
    """What is left of a spec's sweep, where it was begun; or a note that another spec has its name.

    Args:
        spec: what is wanted.
        conflicts: why a study that is there cannot go on with it.
    """
    try:
        sweep = found(spec)
    except NoSweepError:
        return None, []
    if problems := conflicts(spec):
        got = f"the study has a sweep {spec.name!r} already, of another spec ({problems[0].where})"
        return None, [f"{got}: this one would be refused, and needs another name"]
    return left_of(sweep, spec), []


def left_of(sweep: Sweep, spec: Spec) -> Left:
    """What is left of a sweep by a spec, which may ask for more than its study has.

    As long as trials are searched, or run again under fresh seeds, what comes after is known at most.

    Args:
        sweep: as it stands.
        spec: what is wanted of it now.
    """
    records = [record for record in sweep.records if record.ours]
    stored = sweep.ledger.spec
    over = sweep.ledger.finished and (stored.budget, stored.control) == (spec.budget, spec.control)
    runs = {Role.CONTROL: 0, Role.BASELINE: 0, Role.SEARCH: 0} if over else _of_search(spec, records)
    searched = not any(runs.values())
    runs |= _after(sweep, spec, records, searched=searched)
    again = tuple(runs_due(spec, records, sweep.ledger.depth))
    runs[Role.EVALUATION] = base_due(spec, records) + len(again)
    runs[Role.EVALUATION] += _open(records, Role.EVALUATION)
    tokens = sum(run.steps * run.settings["recipe"]["batch_tokens"] for run in again)
    return Left(runs, tuple(run.number for run in again), tokens, sum(run.flops or 0.0 for run in again))


# -- inside ----------------------------------------------------------------------------------------


def _of_search(spec: Spec, records: Sequence[TrialRecord]) -> dict[Role, int]:
    wanted = {Role.CONTROL: spec.control_rates, Role.BASELINE: 1}
    left = {role: max(0, most - _ended(records, role)) for role, most in wanted.items()}
    ended = sum(record.budgeted and record.state.finished for record in records)
    return left | {Role.SEARCH: max(0, spec.budget.trials - ended - sum(left.values()))}


def _after(sweep: Sweep, spec: Spec, records: Sequence[TrialRecord], *, searched: bool) -> dict[Role, int]:
    chosen, depth, most = spec.finalists, sweep.ledger.depth, spec.most_finalists
    at_most = {
        Role.REPLICATE: (most + 2) * chosen.seeds,
        Role.MATCHED: chosen.seeds * spec.control.matched,
        Role.RUNG: spec.rung_runs,
    }
    if not searched:
        return at_most
    due = len(replicates_due(records, chosen.top, chosen.seeds, spec.spread, depth=depth))
    rungs = rungs_due(records, spec.budget.ladder, chosen.top, spec.spread, depth=depth)
    first = {Role.REPLICATE: due, Role.RUNG: len(rungs)}
    first = {role: number + _open(records, role) for role, number in first.items()}
    if first[Role.REPLICATE]:
        return {**first, Role.MATCHED: at_most[Role.MATCHED]}
    matched = matched_due(
        records,
        chosen.top,
        chosen.seeds,
        spec.spread,
        depth=depth,
        margin=chosen.margin,
        look=look_of(records, sweep.ledger.study.completions),
    )
    number = len(matched) * spec.control.matched + _open(records, Role.MATCHED)
    return {**first, Role.MATCHED: number}


def _ended(records: Sequence[TrialRecord], role: Role) -> int:
    return sum(record.role is role and record.state.finished for record in records)


def _open(records: Sequence[TrialRecord], role: Role) -> int:
    return sum(record.role is role and not record.state.finished for record in records)
