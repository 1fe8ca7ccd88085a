"""A sweep's standing as lines: a head of a few, and a table of what runs and what ended last.

As many lines at 5 trials as at 5,000. Colours only stress what words say: bold, dim, green and red, which can
be read on a dark background as on a light one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sweeps.records import State, TrialRecord
from sweeps.report.rows import COLUMNS, STATES, Shown
from sweeps.report.styled import Line
from sweeps.results.labels import configuration
from sweeps.results.pace import Left
from sweeps.results.standing import Standing
from sweeps.text import counted, duration, loss, short
from tli.terminal import printable

ROWS = 20  # trials shown at once
_ROOMY = 16  # lines of a terminal that has room for all of the head
_BAR = 24  # characters
_ASCII = str.maketrans("━─±…", "=-~~")  # a character for each, so that columns stay where they are
_LEAST_NOTE = 12  # characters of the last column, or it is left out
_STYLES = {State.FAIL: "red", State.PRUNED: "dim"}


def overview(
    standing: Standing, width: int, height: int, *, doing: str = "", ascii_only: bool = False
) -> list[Line]:
    """The lines of a terminal's page.

    Args:
        standing: of the sweep.
        width: of the terminal, in characters; lines are cut so that none wraps.
        height: of the terminal, in lines.
        doing: what it does before its first trial.
        ascii_only: whether no other characters can be shown.
    """
    roomy = height >= _ROOMY
    lines = [_title(standing), *([Line(doing)] if doing else [])]
    if standing.counts:
        lines.append(Line(counts_text(standing)))
        lines += [_bar(standing)] if roomy else _if(left_text(standing.left))
        lines += _best_line(standing)
        lines += [Line(budget_text(standing))] if roomy and standing.budget_left else []
    room = height - 1 - len(lines)
    if standing.counts and room > 2:
        lines += [Line("")] if roomy else []
        lines += _table(standing, width, min(ROWS, room - 2 - roomy))
    shown = [_cut(line, width - 1) for line in lines[: max(1, height - 1)]]
    return [_in_ascii(line) for line in shown] if ascii_only else shown


def head(standing: Standing, width: int | None, *, driven: bool) -> list[Line]:
    """Above the list of all trials: the best against the control, what is left; nothing before a trial ended.

    Args:
        standing: of the sweep.
        width: of the terminal, at which lines are cut; None where there is none.
        driven: whether a process runs the sweep now; of one that stands still no end is foretold.
    """
    lines = [*_best_line(standing), *_if(left_text(standing.left) if driven else "")]
    lines += [Line(budget_text(standing))] if len(standing.budget_left) == 1 else []  # else: what was spent
    return lines if width is None else [_cut(line, width) for line in lines]


def summary_text(standing: Standing) -> str:
    """All of it in one line, for a log."""
    parts = [counts_text(standing), best_text(standing), left_text(standing.left)]
    return "; ".join(part for part in parts if part)


def counts_text(standing: Standing) -> str:
    """`22 of 40 trials ended: 2 running, 14 complete, 5 stopped, 1 failed`."""
    counts = [
        f"{standing.counts[state]} {word}" for state, word in STATES.items() if state in standing.counts
    ]
    return f"{standing.ended} of {counted(standing.total, 'trial')} ended: {', '.join(counts)}"


def best_text(standing: Standing) -> str:
    """The best loss against the control's: `best 3.4217, 0.0123 below the control (3.4340)`; or score, or
    both.
    """
    best, control = standing.best, standing.control
    known = {"best": best, "control": control}
    beside = {of: each.front_score for of, each in known.items() if each is not None and each.front_score}
    scores = ", ".join(f"{of} {each.name} {each.score:.4f}" for of, each in beside.items())
    return ", ".join(filter(None, [_best_loss(standing), scores]))


def _best_loss(standing: Standing) -> str:
    best, control, gap = standing.best, standing.control, standing.gap
    both = {"best": best, "control": control}
    scores = {of: each.aim for of, each in both.items() if each is not None and each.aim is not None}
    if scores:
        return ", ".join(f"{of} {aim.name} {aim.score:.4f}" for of, aim in scores.items())
    if best is None:
        return f"control {loss(control.value)}; no grown model is complete" if control is not None else ""
    if gap is None or control is None:
        return f"best {loss(best.value)}; no control is complete, so not known against what"
    side = "below" if gap < 0 else "above"
    by = f"{abs(gap):.4f} {side}" if gap else "as good as"
    return f"best {loss(best.value)}, {by} the control ({loss(control.value)})"


def left_text(left: Left | None) -> str:
    """`about 25m00s left (18m20s to 41m00s)`."""
    if left is None:
        return ""
    return f"about {duration(left.seconds)} left ({duration(left.low)} to {duration(left.high)})"


def budget_text(standing: Standing) -> str:
    """`budget left: 18 of 40 trials, 17.4k of 60k tokens`."""
    parts = [_amount(name, *has) for name, has in standing.budget_left.items()]
    return f"budget left: {', '.join(parts)}"


def _amount(name: str, left: float, most: float) -> str:
    if name == "trials":
        return f"{left:.0f} of {most:.0f} trials"
    if name == "wall":
        return f"{duration(left)} of {duration(most)} of search"
    if name == "gpu_hours":
        return f"{left:.3g} of {most:.3g} GPU-hours"
    return f"{short(left)} of {short(most)} {'FLOPs' if name == 'flops' else name}"


def _if(text: str) -> list[Line]:
    return [Line(text)] if text else []


def _title(standing: Standing) -> Line:
    text = f"{standing.name}  {standing.phase}  {duration(standing.seconds)}"
    return Line(text, "bold", len(standing.name))


def _bar(standing: Standing) -> Line:
    done = round(_BAR * min(1.0, standing.share))
    text = left_text(standing.left)
    return Line(f"{'━' * done}{'─' * (_BAR - done)}  {standing.share:.0%}{f'  {text}' if text else ''}")


def _best_line(standing: Standing) -> list[Line]:
    text, best = best_text(standing), standing.best
    if best is None:
        return _if(text)
    better = standing.ahead
    whole = f"{text}: trial {best.number}, {configuration(best)}"
    return [Line(whole, "bold green" if better else "bold", len(text))]


def _table(standing: Standing, width: int, rows: int) -> list[Line]:
    """What runs, then what ended last; columns that do not fit are left out, the least important first."""
    rows = max(1, rows)
    recent = standing.recent[: max(rows // 3, rows - len(standing.running))]
    chosen = [*standing.running[: rows - len(recent)], *recent]
    cells = [_cells(standing, record) for record in chosen]
    kept, widths = _fitting(cells, width - 1)
    header = {column.title: column.title for column in COLUMNS}
    lines = [Line(_row(header, kept, widths), "bold")]
    best = standing.best.number if standing.best is not None else None
    for record, row in zip(chosen, cells, strict=True):
        style = "bold green" if record.number == best else _STYLES.get(record.state, "")
        lines.append(Line(_row(row, kept, widths), style))
    more = standing.ended + len(standing.running) - len(chosen)
    return [*lines, *([Line(f"and {more} more", "dim")] if more > 0 else [])]


def _cells(standing: Standing, record: TrialRecord) -> dict[str, str]:
    number = record.number
    shown = Shown(record, standing.left_of.get(number), standing.expected.get(number), standing.control)
    row = {column.title: column.show(shown) for column in COLUMNS}
    for column in COLUMNS:
        text = row[column.title]
        if column.left and column.wide and len(text) > column.wide:
            row[column.title] = f"{text[: column.wide - 1]}…"
    return row


def _fitting(rows: Sequence[Mapping[str, str]], width: int) -> tuple[list[str], dict[str, int]]:
    """The columns that there is room for, in order, and how wide each is."""
    widths = {
        column.title: max(column.wide, len(column.title), *(len(row[column.title]) for row in rows))
        for column in COLUMNS
    }
    kept, left = set[str](), width + 1
    for column in sorted(COLUMNS, key=lambda column: column.rank):
        least = widths[column.title] if column.wide else _LEAST_NOTE
        if left - least - 1 < 0:
            break
        kept.add(column.title)
        left -= least + 1
    return [column.title for column in COLUMNS if column.title in kept], widths


def _row(row: Mapping[str, str], kept: Sequence[str], widths: Mapping[str, int]) -> str:
    left = {column.title for column in COLUMNS if column.left}
    cells = (row[t].ljust(widths[t]) if t in left else row[t].rjust(widths[t]) for t in kept)
    return " ".join(cells).rstrip()


def _cut(line: Line, width: int) -> Line:
    text = printable(line.text)
    return Line(
        text if len(text) <= width else f"{text[: max(0, width - 1)]}…"[:width], line.style, line.wide
    )


def _in_ascii(line: Line) -> Line:
    text = line.text.translate(_ASCII).encode("ascii", "replace").decode("ascii")
    return Line(text, line.style, line.wide)
