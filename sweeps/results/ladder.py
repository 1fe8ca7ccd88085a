"""The ladder: the finalists and the control at longer budgets, and whether their ranking held.

Each run begins afresh, with its schedule stretched over the longer budget, in the order of data that the
search's seed gives. Nothing but the short trials chose it, which is what makes it a test of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sweeps.records import Role, State, TrialRecord
from sweeps.results.finalists import control_of, finalists, is_done
from sweeps.results.rank_correlation import RankCorrelation, rank_correlation
from sweeps.results.verdict import Verdict
from sweeps.spec.equivalence import replaced


@dataclass(frozen=True)
class Climb:
    """One finalist, or the control, at one rung."""

    trial: int  # whose settings it has
    run: int | None  # the number of the run; None where it was not begun
    state: State | None
    loss: float | None  # validation loss after the last step, nats per token
    reason: str | None = None  # why it failed


@dataclass(frozen=True)
class Rung:
    """One budget, beside the one below it.

    Attributes
    ----------
    tokens : int
        Of one run.
    runs : tuple of Climb
        The control first, then the finalists in the order of the answer.
    ranking : RankCorrelation or None
        Spearman's rho between the losses at this rung and at the one below (at first the trials' own budget),
        over the runs that both have; None below two of them.
    lowest : int or None
        The trial whose settings have the lowest loss here.
    lowest_below : int or None
        And of the same trials at the rung below.
    """

    tokens: int
    runs: tuple[Climb, ...]
    ranking: RankCorrelation | None
    lowest: int | None
    lowest_below: int | None


@dataclass(frozen=True)
class Ladder:
    """All rungs that the spec names or that were run, and the losses at the trials' own budget."""

    tokens: int  # of a trial
    losses: Mapping[int, float]  # there: means over fresh seeds, where there are some
    rungs: tuple[Rung, ...]

    @property
    def finished(self) -> bool:
        """Whether every run has ended."""
        return all(run.state is not None and run.state.finished for rung in self.rungs for run in rung.runs)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        losses = [{"trial": number, "loss": loss} for number, loss in self.losses.items()]
        return {**asdict(self), "losses": losses, "finished": self.finished}


def rungs_due(
    records: Sequence[TrialRecord],
    ladder: Sequence[int],
    top: int,
    per: str | None = None,
    *,
    depth: int | None,
) -> list[tuple[int, dict[str, Any]]]:
    """Runs of the ladder still to be created, as (number of the trial, settings), the lowest rung first.

    One that exists in any state is not due again: a failed one stays failed, and is named. Ask once the
    search and the runs under fresh seeds are over.

    Args:
        records: of the sweep.
        ladder: tokens of one run at each rung, rising.
        top: how many finalists there are.
        per: what they are spread over, or None.
        depth: layers of the base, where they are known.
    """
    begun = [(r.replicate_of, r.settings) for r in records if r.role is Role.RUNG]
    control = control_of(records)
    climbing = [*([control] if control else []), *finalists(records, top, per, depth=depth)]
    wanted = [(each.number, climbed(each, tokens)) for tokens in ladder for each in climbing]
    return [each for each in wanted if each not in begun]


def climbed(record: TrialRecord, tokens: int) -> dict[str, Any]:
    """The settings of a trial with another budget of tokens, and nothing else changed."""
    return replaced(record.settings, {"recipe.tokens": tokens})


def ladder_of(verdict: Verdict, records: Sequence[TrialRecord], ladder: Sequence[int]) -> Ladder | None:
    """What the ladder has shown so far; None for a sweep without one.

    Args:
        verdict: of the sweep.
        records: every trial of it.
        ladder: tokens at each rung of the spec.
    """
    by_number = {record.number: record for record in records}
    ran = {r.settings["recipe"]["tokens"] for r in records if r.role is Role.RUNG}
    listed = [*([verdict.control] if verdict.control else []), *verdict.finalists]
    if not listed or not (ran or ladder):
        return None
    own = {each.number: each.mean for each in listed}
    found, below = list[Rung](), own
    for tokens in sorted({*ladder, *ran}):
        runs = tuple(_climb(by_number[each.number], tokens, records) for each in listed)
        losses = {run.trial: run.loss for run in runs if run.loss is not None}
        shared = [number for number in losses if number in below]
        both = [[each[number] for number in shared] for each in (below, losses)]
        found.append(
            Rung(
                tokens=tokens,
                runs=runs,
                ranking=rank_correlation(*both) if len(shared) > 1 else None,
                lowest=min(losses, key=losses.__getitem__, default=None),
                lowest_below=min(shared, key=below.__getitem__, default=None),
            )
        )
        below = losses
    return Ladder(by_number[listed[0].number].settings["recipe"]["tokens"], own, tuple(found))


# -- inside ---------------------------------------------------------------------------------------


def _climb(record: TrialRecord, tokens: int, records: Sequence[TrialRecord]) -> Climb:
    wanted = climbed(record, tokens)
    run = next(
        (
            each
            for each in records
            if each.role is Role.RUNG and each.replicate_of == record.number and each.settings == wanted
        ),
        None,
    )
    if run is None:
        return Climb(record.number, None, None, None)
    return Climb(record.number, run.number, run.state, run.value if is_done(run) else None, run.reason)
