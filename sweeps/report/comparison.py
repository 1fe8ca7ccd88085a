"""A comparison as text: its trials, their losses at equal cost, the lead and its interval."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from sweeps.results.equal_cost import AXES, Comparison, Entry, Equal
from sweeps.results.labels import rate
from sweeps.results.task_scores import score_text, task_scores
from sweeps.text import WIDTH, bullets, counted, indented, join, loss, section, short, table

_NAMES = {"steps": "steps", "tokens": "tokens", "flops": "FLOPs", "seconds": "seconds"}
_WIDEST, _IN_ROWS_OF_TWO = 26, 20  # characters of a trial's name in a table


def comparison_text(comparison: Comparison) -> str:
    """The whole page, 80 columns wide."""
    base = comparison.base_loss
    return join(
        _heading(comparison),
        section("Held-out loss by step, in nats per token", _inset(_trials(comparison))),
        section("Held-out loss at equal cost", _inset(_equal(comparison))),
        section("Ahead", _inset(_ahead(comparison))),
        section(f"Spent to reach the base's own loss, {loss(base)}", _inset(_reached(comparison))),
        section("Downstream tasks, with standard errors", _inset(_tasks(comparison))),
        indented(" ".join(_legend(comparison)), by=0),
        section("Caveats", bullets(comparison.warnings)),
    )


def _heading(comparison: Comparison) -> list[str]:
    """What is compared; where it is of several sweeps, the letters that these go by."""
    letters = _letters(comparison)
    names = [f"{letter} {name}" if len(letters) > 1 else name for name, letter in letters.items()]
    seeds, trials = len(comparison.seeds), len(comparison.entries)
    over = f"means of {seeds} seeds" if seeds > 1 else "one seed each"
    text = f"Compared: {counted(trials, 'trial')} of {', '.join(names)}; {over}"
    return textwrap.wrap(text, WIDTH, break_on_hyphens=False)


def _letters(comparison: Comparison) -> dict[str, str]:
    names = dict.fromkeys(entry.sweep for entry in comparison.entries)
    return {name: chr(ord("A") + place) for place, name in enumerate(names)}


def _inset(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _trials(comparison: Comparison) -> list[str]:
    steps = sorted({step for losses in comparison.losses.values() for step in losses} - {0})
    header = ("trial", "params", "lr", "initial", *(f"step {step}" for step in steps))
    rows = []
    for entry in comparison.entries:
        losses = comparison.losses[entry.key]
        size = short(entry.parameters) if entry.parameters is not None else "-"
        shown = [loss(losses.get(step)) for step in (0, *steps)]
        rows.append((_who(entry, comparison), size, rate(entry.record), *shown))
    return table(header, rows, left={0}, width=WIDTH - 2)


def _equal(comparison: Comparison) -> list[str]:
    """A column for each axis; the lowest loss of each is marked."""
    axes = comparison.equal
    rows = [
        (
            _who(entry, comparison),
            *(f"{loss(e.mean(entry.key))}{'*' if e.order[0] == entry.key else ' '}" for e in axes),
        )
        for entry in comparison.entries
    ]
    header = ("", *(f"{_NAMES[each.axis]} " for each in axes))
    at = ("all got to", *(f"{_amount(each.axis, each.amount)} " for each in axes))
    ended = ("ended first", *(f"{_ended(each, comparison)} " for each in axes))
    return table(header, [at, *rows, ended], left={0}, width=WIDTH - 2)


def _ended(each: Equal, comparison: Comparison) -> str:
    if not each.ended_first:
        return "all"
    names = [_number(entry, comparison) for entry in comparison.entries if entry.key in each.ended_first]
    return f"trial {names[0]}" if len(names) == 1 else f"{len(names)} trials"


def _ahead(comparison: Comparison) -> list[str]:
    """Who has the lowest loss at each axis, and by how much before whom."""
    who = {entry.key: _who(entry, comparison, _IN_ROWS_OF_TWO) for entry in comparison.entries}
    rows = []
    for each in comparison.equal:
        if len(each.order) > 1:
            first, second = each.order[:2]
            by = f"{each.mean(second) - each.mean(first):.4f}"
            significant = "-"
            if each.lead is not None and each.lead.half_width is not None:
                by += f" ± {each.lead.half_width:.4f}"
                significant = "yes" if each.lead.significant else "no"
            rows.append((_NAMES[each.axis], who[first], who[second], by, significant))
    header = ("", "lowest", "next", "by", "significant")
    return table(header, rows, left={0, 1, 2, 4}) if rows else []


def _reached(comparison: Comparison) -> list[str]:
    if comparison.base_loss is None:
        return []
    rows = [
        (_who(entry, comparison), *(_spent(comparison.reached[entry.key][axis], axis) for axis in AXES))
        for entry in comparison.entries
    ]
    return table(("", *(_NAMES[axis] for axis in AXES)), rows, left={0}, width=WIDTH - 2)


def _tasks(comparison: Comparison) -> list[str]:
    """A row a task, as there may be more of them than columns fit."""
    scores = {entry.key: task_scores(entry.record) for entry in comparison.entries}
    tasks = dict.fromkeys(task for each in scores.values() for task in each)
    header = ("", *(_number(entry, comparison) for entry in comparison.entries))
    rows = [
        (task, *(score_text(scores[entry.key].get(task)) for entry in comparison.entries)) for task in tasks
    ]
    return table(header, rows, left={0}) if rows else []


def _spent(amount: float | None, axis: str) -> str:
    if amount is None:
        return "not reached"
    return _amount(axis, amount) if amount else "0"


def _amount(axis: str, amount: float) -> str:
    if axis == "flops":
        return f"{amount:.2e}"
    if axis == "seconds":
        return f"{amount:,.1f}"
    return f"{amount:,.0f}"


def _who(entry: Entry, comparison: Comparison, most: int = _WIDEST) -> str:
    """Its row's name in the tables, where numbers are aligned."""
    widest = max(len(_number(each, comparison)) for each in comparison.entries)
    text = f"{_number(entry, comparison):>{widest}}  {entry.what}"
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _number(entry: Entry, comparison: Comparison) -> str:
    """Of its trial, behind the letter of its sweep where there are several."""
    letters = _letters(comparison)
    number = str(entry.record.number)
    return f"{letters[entry.sweep]}:{number}" if len(letters) > 1 else number


def _legend(comparison: Comparison) -> Iterator[str]:
    yield "*: the lowest. Each column is read where the first curve ends, on the lines between measurements."
    if len(comparison.seeds) > 1:
        yield "±: 95 % t intervals, paired by seed; significant: without 0."
    if comparison.base_loss is not None:
        yield "0: has the base's loss from the start."
    yield (
        "FLOPs and seconds are those of training. Costlier models are met there before their learning rate "
        "has fallen, which counts against them; seconds depend on what else the machine did."
    )
