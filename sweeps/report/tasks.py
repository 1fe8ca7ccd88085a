"""Scores on downstream tasks in words: a line for the first screen, and the table below it."""

from __future__ import annotations

from collections.abc import Iterator

from sweeps.results.scored_runs import Cell
from sweeps.results.tasks import Difference, TaskTable
from sweeps.text import bullets, counted, section, table, these


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
    if found.rows:
        documents = (
            "all documents" if found.limit is None else f"the first {counted(found.limit, 'document')}"
        )
        notes.append(
            f"{counted(found.shots, 'solved example')} before each document; {documents} of each task; score"
            " and standard error over documents, means over fresh seeds"
        )
        notes.append(
            "differences are paired by document and seed; 95 % intervals by bootstrap over documents, each on"
            " its own, for these seeds; p by McNemar's exact test, where one seed has run"
        )
    if found.missing:
        notes.append(f"not scored yet: {these('trial', found.missing)}")
    notes += [f"not scored, {reason}" for reason in found.failed]
    return section("Downstream tasks", [*lines, *bullets(notes)])


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
