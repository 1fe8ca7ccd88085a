"""The ladder as a table of `sweeps best`, and as one line of the summary."""

from __future__ import annotations

from collections.abc import Iterator

from sweeps.records import State
from sweeps.results.ladder import Climb, Ladder, Rung
from sweeps.results.rank_correlation import FEWEST
from sweeps.text import WIDTH, bullets, loss, section, short, table

_WORDS = {State.RUNNING: "running", State.WAITING: "waiting", State.FAIL: "failed", State.PRUNED: "stopped"}


def ladder_text(found: Ladder | None) -> list[str]:
    """A row a finalist with its loss at each budget, then whether the ranking held."""
    if found is None:
        return []
    control = found.rungs[0].runs[0].trial
    rows = []
    for place, number in enumerate(found.losses):
        name = f"{number}{' control' if number == control else ''}"
        rows.append((name, loss(found.losses[number]), *(_cell(rung.runs[place]) for rung in found.rungs)))
    header = (
        "trial",
        *(f"{short(each)} tokens" for each in (found.tokens, *(r.tokens for r in found.rungs))),
    )
    lines = table(header, rows, left={0}, width=WIDTH - 2)
    title = "Ladder: validation loss at longer budgets, each run from the start"
    return section(title, [*(f"  {line}" for line in lines), *bullets(_said(found))])


def ladder_line(found: Ladder | None) -> str | None:
    """In one line, whether the ranking held up to the longest budget that was run; None without a ladder."""
    if found is None:
        return None
    known = [rung for rung in found.rungs if rung.ranking is not None]
    if not known:
        return f"no two runs at {short(found.rungs[0].tokens)} tokens have ended yet"
    rest = "" if found.finished else "; not all of it has ended"
    return f"{_held(known[-1])}{rest}"


def _cell(run: Climb) -> str:
    if run.loss is not None:
        return loss(run.loss)
    return "not run" if run.state is None else _WORDS.get(run.state, "no loss")


def _said(found: Ladder) -> Iterator[str]:
    for rung in found.rungs:
        if rung.ranking is not None:
            yield _held(rung)
        for run in rung.runs:
            if run.state is State.FAIL:
                why = run.reason or "no reason recorded"
                yield f"trial {run.trial} at {short(rung.tokens)} tokens failed: {why}"


def _held(rung: Rung) -> str:
    """How this rung's ranking agrees with the one below it, and whether the best is the same."""
    ranking = rung.ranking
    assert ranking is not None
    best = (
        f"trial {rung.lowest} has the lowest loss, as it had below"
        if rung.lowest == rung.lowest_below
        else f"trial {rung.lowest} has the lowest loss, where trial {rung.lowest_below} had it below"
    )
    said = "no rank correlation, as losses are equal"
    if ranking.value is not None:
        said = f"rank correlation {ranking.value:+.2f} of {ranking.n}"
        if ranking.interval is None:
            said += f", too few to say ({FEWEST} or more have an interval)"
        else:
            said += f" (95 %: {ranking.interval[0]:+.2f} to {ranking.interval[1]:+.2f})"
    return f"at {short(rung.tokens)} tokens {best}; {said}"
