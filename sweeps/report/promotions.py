"""Promotions as text: what one would take, and how those of a sweep stand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sweeps.records import Role, State, TrialRecord
from sweeps.results.promotions import LongRun, promotions
from sweeps.results.sentence import named
from sweeps.results.text_losses import BySource
from sweeps.text import bullets, duration, in_bytes, loss, section, table


def planned_lines(
    run: LongRun, record: TrialRecord, expected: Mapping[str, Any], *, ranks: int
) -> Iterator[str]:
    """What one long run is, and what is left of it takes.

    Args:
        run: as it was planned.
        record: the trial that it makes longer.
        expected: what it takes: tokens, FLOPs, bytes of memory and disk, seconds, passes over the text.
        ranks: that train it together.
    """
    tokens, steps = f"{run.tokens:,} tokens", f"{run.steps:,} steps"
    if run.role is Role.PROMOTED_CONTROL:
        yield f"beside it, with as many FLOPs: trial {record.number}, {named(record)}: {tokens}, {steps}"
    else:
        yield f"trial {record.number}, {named(record)}: {tokens}, {steps}"
    if run.record is not None and run.record.state is State.COMPLETE:
        yield f"  it is finished, as trial {run.record.number}"
        return
    yield f"  begins  {_begins(run)}"
    memory = f"{in_bytes(expected['memory'])} of memory{' in each rank' if ranks > 1 else ''}"
    yield (
        f"  takes   {expected['tokens']:,} tokens, {expected['flops']:.2e} FLOPs, {memory}, "
        f"{in_bytes(expected['disk'])} of disk"
    )
    if expected["seconds"] is not None:
        over = ", which had other ranks" if expected["other_ranks"] else ""
        yield f"  time    {duration(expected['seconds'])} at the speed of trial {record.number}{over}"
    if expected["passes"] is not None:
        yield f"  text    {expected['passes']:,.2f} passes over the training text in all"


def scoring_line(found: Mapping[str, Any]) -> str:
    """What scoring the model of a long run takes, after its last step.

    Args:
        found: names of the tasks, documents, sequences and tokens that go through it, FLOPs.
    """
    return (
        f"  scored  on {', '.join(found['tasks'])} after its last step: {found['documents']:,} documents, "
        f"{found['sequences']:,} sequences, {found['tokens']:,} tokens, {found['flops']:.2e} FLOPs"
    )


def _begins(run: LongRun) -> str:
    where = f"{run.promotion.words}, at step {run.first_step}" if run.first_step else run.promotion.words
    if run.record is None:
        return where
    return f"where it was stopped: trial {run.record.number}, measured at step {run.record.step}; {where}"


def promotions_text(records: Sequence[TrialRecord], sources: BySource | None = None) -> list[str]:
    """The promotions of a sweep, a sentence each, then what they lose on each of several texts; nothing
    where there are none.

    Args:
        records: of the sweep.
        sources: of its answer; None where there is one text.
    """
    by_number, found = {record.number: record for record in records}, promotions(records, sources=sources)
    lines = bullets(_sentence(row, by_number) for row in found)
    return section("Promotions", [*lines, *_by_text(found)])


def _by_text(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A row a text and long run, each of one seed, with its difference to the base."""
    runs = [(f"trial {run['trial']}", run) for row in found for run in (row, row["control"]) if run]
    rows = [
        (text, name, loss(on["loss"]), f"{on['difference']:+.4f}")
        for text in dict.fromkeys(text for _, run in runs for text in run["sources"])
        for name, run in runs
        if (on := run["sources"].get(text)) is not None
    ]
    shown = [
        ("" if place and rows[place - 1][0] == row[0] else row[0], *row[1:]) for place, row in enumerate(rows)
    ]
    if shown:
        yield ""
        yield from (
            f"  {line}" for line in table(("text", "model", "loss", "less the base"), shown, left={0, 1})
        )


def promotion_text(record: TrialRecord, records: Sequence[TrialRecord]) -> str:
    """One promotion, in a sentence."""
    row = next(each for each in promotions(records) if each["trial"] == record.number)
    return _sentence(row, {each.number: each for each in records})


def _sentence(row: Mapping[str, Any], records: Mapping[int, TrialRecord]) -> str:
    begins = f"from the state of trial {row['begins']}" if row["begins"] is not None else "afresh"
    what = f"trial {row['trial']} is trial {row['of']} ({named(records[row['of']])})"
    parts = [f"{what} with {row['tokens']:,} tokens, {begins}", _standing(row)]
    if row["control"] is not None:
        parts.append(f"beside it trial {row['control']['trial']}, the original, {_standing(row['control'])}")
    if (against := row["against_control"]) is not None:
        difference = against.get("test_loss", against["loss"])
        kind = "test" if "test_loss" in against else "validation"
        side = "better" if difference < 0 else "worse"
        parts.append(f"{abs(difference):.4f} nats {side} than it at equal compute ({kind} loss, one seed)")
    return "; ".join(parts)


def _standing(row: Mapping[str, Any]) -> str:
    if row["state"] == State.COMPLETE:
        tested = f", {loss(row['test_loss'])} on test text" if row["test_loss"] is not None else ""
        return f"complete, loss {loss(row['loss'])}{tested}"
    if row["state"] == State.FAIL:
        return f"failed at step {row['step']} of {row['steps']}: {row['reason'] or 'no reason recorded'}"
    return f"not finished, at step {row['step']} of {row['steps']}"
