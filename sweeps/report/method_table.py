"""The table of methods as Markdown, comma-separated values and LaTeX, to be pasted elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from sweeps.report.delimited import csv_text
from sweeps.results.equal_cost import Comparison, Equal
from sweeps.results.method_table import MethodRow, flat_rows, method_rows
from sweeps.results.task_scores import score_text
from sweeps.text import loss, short
from tli.terminal import printable

_NUMBERED = 3  # columns of text, before those of numbers
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%",
    "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$",
}  # fmt: skip
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~$&])")


def markdown(comparison: Comparison) -> str:
    """A GitHub-flavoured table, and below it what to know before believing it."""
    header, rows = _table(comparison)
    ruler = ["---" if place < _NUMBERED else "---:" for place in range(len(header))]
    lines = [
        _row(header, _markdown_cell),
        f"| {' | '.join(ruler)} |",
        *(_row(row, _markdown_cell) for row in rows),
    ]
    notes = [f"- {_markdown_cell(each)}" for each in _notes(comparison)]
    return "\n".join([*lines, "", *notes]) + "\n"


def latex(comparison: Comparison) -> str:
    """A `tabular` that needs no package, and below it, as comments, what to know before believing it."""
    header, rows = _table(comparison)
    columns = "".join("l" if place < _NUMBERED else "r" for place in range(len(header)))
    body = [f"{' & '.join(map(_latex_cell, row))} \\\\" for row in rows]
    head = f"{' & '.join(map(_latex_cell, header))} \\\\"
    lines = [
        rf"\begin{{tabular}}{{{columns}}}",
        r"\hline",
        head,
        r"\hline",
        *body,
        r"\hline",
        r"\end{tabular}",
    ]
    notes = [f"% {' '.join(printable(each).split())}" for each in _notes(comparison)]
    return "\n".join([*lines, *notes]) + "\n"


def delimited(comparison: Comparison) -> str:
    """RFC 4180, numbers with all their digits, under names that do not change; what is missing is empty."""
    rows = flat_rows(method_rows(comparison))
    return csv_text(rows, list(rows[0]))


FORMATS: Mapping[str, Callable[[Comparison], str]] = {"md": markdown, "csv": delimited, "latex": latex}

# -- inside ---------------------------------------------------------------------------------------


def _table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Header and rows as plain texts, not escaped yet."""
    rows = method_rows(comparison)
    steps = sorted({step for row in rows for step in row.losses})
    tasks = list(dict.fromkeys(task for row in rows for task in row.tasks))
    header = ["method", "trial", "learning rate", "parameters", "initial loss"]
    header += [f"loss at step {step:,}" for step in steps]
    header += ["steps to the base's loss", "loss at equal tokens", "loss at equal FLOPs", *tasks]
    return header, [_cells(row, steps, tasks) for row in rows]


def _cells(row: MethodRow, steps: Sequence[int], tasks: Sequence[str]) -> list[str]:
    reached = "not reached" if row.steps_to_base is None else f"{row.steps_to_base:,.1f}"
    return [
        row.method,
        row.reference,
        f"{row.learning_rate:.1e}" if row.learning_rate is not None else "-",
        short(row.parameters) if row.parameters is not None else "-",
        loss(row.initial_loss),
        *(loss(row.losses.get(step)) for step in steps),
        "0" if row.steps_to_base == 0 else reached,
        loss(row.equal_tokens),
        loss(row.equal_compute),
        *(score_text(row.tasks.get(task)) for task in tasks),
    ]


def _notes(comparison: Comparison) -> Iterator[str]:
    equal = {each.axis: each for each in comparison.equal}
    seeds = len(comparison.seeds)
    over = f"means of {seeds} seeds" if seeds > 1 else "one seed each"
    base = loss(comparison.base_loss)
    yield f"Held-out losses in nats per token, {over}; the base's own loss before training: {base}."
    yield f"Equal tokens: {equal['tokens'].amount:,.0f}{_ended(equal['tokens'])}."
    yield (
        f"Equal FLOPs: {equal['flops'].amount:.2e}{_ended(equal['flops'])}; what costs more is read there "
        "before its learning rate has fallen, which counts against it."
    )
    yield from comparison.warnings


def _ended(each: Equal) -> str:
    return f", where {', '.join(each.ended_first)} ended" if each.ended_first else ", where all ended"


def _row(cells: Sequence[str], escape: Callable[[str], str]) -> str:
    return f"| {' | '.join(map(escape, cells))} |"


def _markdown_cell(text: str) -> str:
    """In one line, nothing in it being markup."""
    return _MARKDOWN.sub(r"\\\1", " ".join(printable(text).split()))


def _latex_cell(text: str) -> str:
    return "".join(_LATEX.get(each, each) for each in " ".join(printable(text).split()))
