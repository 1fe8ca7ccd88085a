"""Scores on downstream tasks in words: a line for the first screen, and the table below it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from sweeps.results.promoted_scores import PromotedScores
from sweeps.results.scored_runs import Cell
from sweeps.results.tasks import Difference, TaskTable
from sweeps.text import WIDTH, bullets, counted, section, short, table, these


def task_lines(found: TaskTable | None) -> Iterator[tuple[str, str]]:
    """Label and text of each task's main metric: the winner against the original, and the base."""
    objective = found.objective if found else None
    if objective is not None:
        yield (
            "chosen by",
            f"{objective}, by which the search went; whether to grow, and what settings do, is told by loss",
        )
    for row in found.rows if found else ():
        if not row.main and f"{row.task}/{row.metric}" != objective:
            continue
        parts = []
        against = row.against_matched or row.against_control
        original = row.matched if row.against_matched else row.control
        if row.winner:
            parts.append(f"trial {found.winner if found else ''} {_cell(row.winner)}")
        if original:
            parts.append(f"the original {_cell(original)}")
        if row.base:
            parts.append(f"the base {_cell(row.base)}")
        if row.chance is not None:
            parts.append(f"chance {row.chance:.3f}")
        text = f"{row.task} {row.metric}: {', '.join(parts)}"
        if against is not None:
            shown = "" if against.significant else ": not shown to differ"
            text += f"; {_difference(against)} against the original{shown}"
        yield "tasks", text


def tasks_text(found: TaskTable | None) -> list[str]:
    """The table: a row a metric, and what it rests on."""
    if found is None:
        return []
    lines = [f"  {line}".rstrip() for line in _table(found)] if found.rows else []
    notes = []
    if found.rows or any(each.rows for each in found.promotions):
        documents = (
            "all documents" if found.limit is None else f"the first {counted(found.limit, 'document')}"
        )
        one_seed = "; a promotion's are of one seed" if found.promotions else ""
        notes.append(
            f"{counted(found.shots, 'solved example')} before each document; {documents} of each task; score"
            f" and standard error over documents, means over fresh seeds{one_seed}"
        )
        notes.append(
            "differences are paired by document and seed; 95 % intervals by bootstrap over documents, each on"
            " its own, for these seeds; p by McNemar's exact test, where one seed has run"
        )
    if found.missing:
        notes.append(f"not scored yet: {these('trial', found.missing)}")
    notes += [f"not scored, {reason}" for reason in found.failed]
    lines += [f"  {line}".rstrip() for each in found.promotions for line in _promotion(each)]
    notes += [_unscored(each) for each in found.promotions if each.unscored]
    return section("Downstream tasks", [*lines, *bullets(notes)])


def _promotion(found: PromotedScores) -> list[str]:
    """A promotion's scores beside those of the base and of the original beside it, and how it differs."""
    if not found.rows:
        return []
    beside = "-" if found.control is None else f"trial {found.control}"
    said = f"trial {found.trial}, trial {found.of} promoted to {short(found.tokens)} tokens"
    said += "" if found.control is None else f"; beside it {beside}, the original"
    header = ("task", "chance", "base", f"trial {found.trial}", beside)
    rows, differences = [], []
    for row in found.rows:
        name, chance = f"{row.task} {row.metric}", "-" if row.chance is None else f"{row.chance:.2f}"
        rows.append((name, chance, *(_cell(each) for each in (row.base, row.promotion, row.control))))
        for other, difference in ((beside, row.against_control), ("the base", row.against_base)):
            if difference is not None:
                differences.append((name, other, _difference(difference)))
                name = ""
    lines = ["", *textwrap.wrap(said, WIDTH - 2), *table(header, rows, left={0})]
    if differences:
        lines += ["", *table((f"trial {found.trial} less", "", ""), differences, left={0, 1})]
    return lines


def _unscored(found: PromotedScores) -> str:
    """What was trained to its end without these scores: before tasks were named, or with others."""
    return (
        f"{these('trial', found.unscored)}, of a promotion: no score on these tasks with these shots and this"
        " limit; `tli eval` scores the model that is kept, which `promotions[].model` in JSON names"
    )


def _table(found: TaskTable) -> list[str]:
    header = ("task", "chance", "base", "control", "same FLOPs", f"trial {found.winner}")
    rows = []
    for row in found.rows:
        cells = (row.base, row.control, row.matched, row.winner)
        chance = "-" if row.chance is None else f"{row.chance:.2f}"
        rows.append((f"{row.task} {row.metric}", chance, *(_cell(each) for each in cells)))
    lines = table(header, rows, left={0})
    compared = [row for row in found.rows if row.against_control or row.against_matched]
    if compared:
        differences = [
            (f"{row.task} {row.metric}", *map(_difference, (row.against_control, row.against_matched)))
            for row in compared
        ]
        title = (f"trial {found.winner} less", "the control", "the original, same FLOPs")
        lines += ["", *table(title, differences, left={0})]
    return lines


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    return f"{cell.value:.3f}" + ("" if cell.stderr is None else f"±{cell.stderr:.3f}")


def _difference(found: Difference | None) -> str:
    if found is None:
        return "-"
    if found.low is None or found.high is None:
        return f"{found.mean:+.3f} on each document"
    said = f"{found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f})"
    return said if found.p is None else f"{said}, p {found.p:.2g}"
