"""The tables of a model card about downstream tasks and about losses by text, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sweeps.records import Role, TrialRecord
from sweeps.results.by_source import by_source
from sweeps.results.promoted_scores import PromotedScores
from sweeps.results.scored_runs import Cell, Difference, Kept
from sweeps.results.tasks import TaskTable, task_table
from sweeps.results.text_losses import BySource, Model, OnText
from sweeps.results.verdict import Verdict
from sweeps.text import counted, digits_apart

_LONG: Mapping[Role, Model] = {Role.PROMOTED_CONTROL: "control", Role.PROMOTION: "grown"}
Columns = Mapping[str, str]  # the name of a score's attribute, by the title of its column
_MODELS = {
    "base": "the base, untrained",
    "control": "the original, trained on",
    "matched": "the original, trained with the FLOPs of the best grown model",
    "grown": "the grown model",
}


def tables_of(
    sweep: Kept, verdict: Verdict, records: Sequence[TrialRecord], record: TrialRecord
) -> tuple[TaskTable | None, BySource | None]:
    """Scores on tasks and losses by text that a card shows: those of its model, of base and originals.

    Args:
        sweep: whose results on disk are read.
        verdict: of it.
        records: every trial of it.
        record: the trial whose model the card is of.
    """
    number = record.number
    if record.promotion is not None:
        tasks = task_table(sweep, verdict, records)
        pair = {each.role: each for each in records if number in (each.number, _beside(each))}
        beside = record.promotion.beside
        pair |= {each.role: each for each in records if each.number == beside}
        runs = {model: pair[role] for role, model in _LONG.items() if role in pair}
        found = verdict.sources
        return tasks, found and found.of_runs({m: (r.number, r.sources) for m, r in runs.items()})
    grown = None if record.original or record.role is Role.MATCHED else number
    listed = verdict
    if grown is not None:
        also = [each for each in (verdict.baseline,) if each is not None and each.number == grown]
        listed = replace(verdict, best_grown=grown, finalists=(*verdict.finalists, *also))
    base = sweep.ledger.study.base_sources
    sources = by_source(sweep.ledger.spec.data, base, records, listed)
    return task_table(sweep, verdict, records, grown), sources


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table; a bar within a cell is kept from ending it."""
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in lines]


def task_section(found: TaskTable | None, number: int) -> list[str]:
    """What the model of a card scored on downstream tasks, beside base and original; nothing without tasks.

    Args:
        found: of the sweep, with the model of the card as its winner if it is a grown one.
        number: of the trial whose model the card is of.
    """
    if found is None:
        return []
    long = next((each for each in found.promotions if number in (each.trial, each.control)), None)
    columns = _of_promotion(long, number) if long is not None else _of_sweep(found, number)
    rows: Sequence[Any] = long.rows if long is not None else found.rows
    table, mine = [], False
    for row in rows:
        cells = {title: getattr(row, name) for title, name in columns.items()}
        mine = mine or any(title.startswith("**") and cell is not None for title, cell in cells.items())
        chance = "" if row.chance is None else f"{row.chance:.2f}"
        table.append((f"{row.task} {row.metric}", chance, *map(_cell, cells.values())))
    if not table:
        return []
    documents = "all documents" if found.limit is None else f"the first {counted(found.limit, 'document')}"
    seeds = "each of one run" if long is not None else "means over fresh seeds"
    said = (
        f"By lm-evaluation-harness, {counted(found.shots, 'solved example')} before each document, "
        f"{documents} of each task; scores with standard errors over documents, {seeds}. Differences are "
        "paired by document, with 95 % intervals by bootstrap over documents, each on its own."
    )
    lines = ["", "## Downstream tasks", "", said, ""]
    lines += markdown_table(("task", "chance", *columns), table)
    if not mine:
        return [*lines, "", f"Trial {number} itself was not scored."]
    return [*lines, "", *_differences(rows, long, found, number)]


def source_section(found: BySource | None, number: int) -> list[str]:
    """What the models lose on each of several texts, beside the base; nothing where there is one text.

    Args:
        found: of the sweep, with the model of the card in it.
        number: of the trial whose model the card is of.
    """
    if found is None:
        return []
    rows, mine = [], False
    for text in found.texts:
        losses = digits_apart([each.loss for each in text.models if each.loss is not None])
        for each in text.models:
            mine = mine or each.trial == number
            weight = "only measured" if text.weight is None else f"weight {text.weight:.3g}"
            name = f"{text.name} ({weight}, {text.measure})" if each is text.models[0] else ""
            shown = "" if each.loss is None else f"{each.loss:.{losses}f}"
            bits = "" if each.bits_per_byte is None else f"{each.bits_per_byte:.4f}"
            rows.append((name, _model(each, number), shown, bits, _less(each)))
    said = (
        "Losses in nats per token of validation or test text, as said beside each; a difference above 0 is "
        "what a model has lost of what the base knew."
    )
    lines = ["", "## By source", "", said, ""]
    lines += markdown_table(("text", "model", "loss", "bits per byte", "less the base"), rows)
    return lines if mine else [*lines, "", f"Trial {number} ran under no fresh seed and is not among them."]


# -- inside ----------------------------------------------------------------------------------------


def _beside(record: TrialRecord) -> int | None:
    return record.promotion.beside if record.promotion is not None else None


def _of_promotion(found: PromotedScores, number: int) -> Columns:
    beside = {} if found.control is None else {f"the original beside it, trial {found.control}": "control"}
    if number == found.control:
        return {
            "the base": "base",
            f"a promotion of trial {found.of}, trial {found.trial}": "promotion",
            _this(number): "control",
        }
    return {"the base": "base", **beside, _this(number): "promotion"}


def _of_sweep(found: TaskTable, number: int) -> Columns:
    names = {
        "control": (found.control, "the original"),
        "matched": (found.matched, "the original with its FLOPs"),
        "winner": (found.winner, "the best grown"),
    }
    columns = {"the base": "base"}
    for name, (trial, title) in names.items():
        if trial is not None:
            columns[_this(trial) if trial == number else f"{title}, trial {trial}"] = name
    return columns


def _this(number: int) -> str:
    return f"**this, trial {number}**"


def _differences(
    rows: Sequence[Any], long: PromotedScores | None, found: TaskTable, number: int
) -> Iterator[str]:
    """A line a metric and other model, of a grown model against the originals; none of an original."""
    if long is None:
        mine = found.winner == number
        others = {"against_control": found.control, "against_matched": found.matched}
    else:
        mine = long.trial == number
        others = {"against_control": long.control, "against_base": None}
    for row in rows if mine else ():
        for name, other in others.items():
            if (difference := getattr(row, name)) is not None:
                against = "the base" if other is None else f"the original, trial {other}"
                yield f"- {row.task} {row.metric}: {_difference(difference)} against {against}"


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return ""
    return f"{cell.value:.3f}" + ("" if cell.stderr is None else f" ± {cell.stderr:.3f}")


def _difference(found: Difference) -> str:
    if found.low is None or found.high is None:
        return f"{found.mean:+.3f} on each document"
    shown = "" if found.significant else ", not shown to differ"
    p = "" if found.p is None else f", p {found.p:.2g} by McNemar's exact test"
    return f"{found.mean:+.3f} (95 %: {found.low:+.3f} to {found.high:+.3f}{p}){shown}"


def _model(each: OnText, number: int) -> str:
    if each.trial is None:
        return _MODELS[each.model]
    return _this(number) if each.trial == number else f"{_MODELS[each.model]}, trial {each.trial}"


def _less(each: OnText) -> str:
    if each.difference is None:
        return ""
    digits = digits_apart([each.difference, *([each.half_width] if each.half_width is not None else [])])
    spread = "" if each.half_width is None else f" ± {each.half_width:.{digits}f}"
    says = "" if each.says in (None, "not shown") or each.half_width is None else f", {each.says}"
    return f"{each.difference:+.{digits}f}{spread}{says}"
