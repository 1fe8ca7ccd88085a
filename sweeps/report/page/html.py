"""The report as one HTML page: no network, light and dark, readable on a phone and in print."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from importlib import resources
from typing import Any

from sweeps.records import TrialRecord
from sweeps.report.page import tables
from sweeps.report.page.content import figures
from sweeps.results.occupancy import occupancy
from sweeps.results.sentence import sentence
from sweeps.results.verdict import Verdict
from sweeps.search_answers import SearchAnswers
from sweeps.text import counted, duration, join, short

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def page(
    verdict: Verdict,
    records: Sequence[TrialRecord],
    answers: SearchAnswers | None,
    *,
    again: Mapping[str, str],
    spec: Mapping[str, Any],
    notes: Sequence[str] = (),
    more: Sequence[Sequence[str]] = (),
) -> str:
    """The whole page.

    Args:
        verdict: of the sweep.
        records: every trial of it.
        answers: what the model of its search said; None before the search is over.
        again: what it takes to do it again, by label: command, digests, versions.
        spec: as plain JSON values, secrets masked.
        notes: what a reader has to know first: that it is not finished, say.
        more: tables as the terminal shows them, each of lines, its title first.
    """
    name, said = str(spec["name"]), sentence(verdict, records)
    body = [
        f"<h1>{escape(name)}: {escape(said)}</h1>",
        *(f'<p class="note">{escape(note)}</p>' for note in notes),
        f'<div class="cards">{tables.cards(verdict)}</div>',
        _section(
            "Finalists against the control",
            f"Differences of {_measure(verdict)} loss with simultaneous 95 % intervals; small dots are "
            "single fresh seeds, the hollow one the seed that chose it (validation loss). The band is the "
            f"margin, {verdict.margin.nats:.2g} nats: inside it a difference does not matter.",
            '<div class="pair"><div class="figure" id="forest-tokens"></div>'
            '<div class="figure" id="forest-compute"></div></div>',
        ),
        _section(
            "Gap to the control",
            "Validation loss of the finalists less the control's at the same amount, mean over fresh seeds.",
            _switch("steps", "tokens", "FLOPs", "seconds") + _figure("gap"),
        ),
        _section("All curves", "One line a trial, fresh seeds left out.", _figure("curves")),
        _section(
            "K by first weights" if answers and tables.PAIR in answers.pairs else "Choices",
            "The best validation loss over rates and scales by the model of the search, with 95 % intervals, "
            "and how many trials were tried.",
            f'<div class="scroll">{tables.cells(answers)}</div>',
        ),
        _section(
            "Learning rate",
            "Loss after the last step of trials that ran to their end; lines: the valley of each K by the "
            "model.",
            _figure("rates"),
        ),
        _section("Stopping", "", tables.stopping(verdict)),
        *_front(verdict),
        _section(
            "Under fresh seeds",
            "A click on a row or a mark pins a trial in all figures; Escape frees all.",
            tables.finalists(verdict, records),
        ),
        *(_section(title, "", f"<pre>{escape(join(lines))}</pre>") for title, *lines in filter(None, more)),
        _section("Failures", "", tables.endings(verdict, records)),
        _section("Caveats", "", _list(verdict.warnings)),
        _section("Cost", "", _pairs(_cost(verdict, records, spec.get("resources", {})))),
        _section("Do it again", "", _pairs(again) + _details("The whole spec", json.dumps(spec, indent=1))),
    ]  # fmt: skip
    return _document(name, "\n".join(body), figures(verdict, records, answers))


def _document(name: str, body: str, data: Mapping[str, Any]) -> str:
    folder = resources.files("sweeps.report.page")
    style, script = ((folder / each).read_text(encoding="utf-8") for each in ("page.css", "page.js"))
    # `<` would let a text of a trial end the element.
    plain = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(name)}</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
<header><span>Sweep {escape(name)}, as of {made}</span>
<button type="button" id="theme" title="light or dark">Theme</button></header>
<main>
{body}
</main>
<div id="tip" role="status"></div>
<script type="application/json" id="data">{plain}</script>
<script>
{script}</script>
</body>
</html>
"""


def _section(title: str, text: str, inside: str) -> str:
    said = f"<p>{escape(text)}</p>" if text else ""
    return f"<section>\n<h2>{escape(title)}</h2>\n{said}{inside}\n</section>"


def _front(verdict: Verdict) -> Iterator[str]:
    """Loss against cost or score, where the objective names one."""
    front = verdict.front
    if front is not None and front.cost is None:
        differences = counted(front.compared, "difference")
        said = (
            "Test loss under fresh seeds less the control's, and the score, at equal tokens, with 95 % "
            f"intervals of their differences to the control, at 95 % for all {differences} together. The "
            "line joins those of which no other is better in both means; grey is shown to be dominated; the "
            "upright line is the base as it is."
        )
        yield _section(f"Loss against {front.score}", said, _figure("front"))
    elif front is not None:
        pairs = counted(front.compared, "pair")
        said = (
            "Test loss under fresh seeds less the control's at equal tokens, with intervals at 95 % for all "
            f"{pairs} together. The line joins what no cheaper model is shown to beat; grey is dominated."
        )
        yield _section("Loss against cost", said, _figure("front"))


def _figure(name: str) -> str:
    left = f'<p id="{name}-left"></p>'
    return f'<div class="figure" id="{name}"></div>\n<div class="legend" id="{name}-legend"></div>{left}'


def _switch(*names: str) -> str:
    buttons = "".join(
        f'<button type="button" data-amount="{name}" aria-pressed="{str(not place).lower()}">{name}</button>'
        for place, name in enumerate(names)
    )
    return f'<div class="switch" id="amount" role="group" aria-label="amount">{buttons}</div>'


def _list(sentences: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(each)}</li>" for each in sentences)
    return f"<ul>{items}</ul>" if items else "<p>None.</p>"


def _pairs(values: Mapping[str, str]) -> str:
    rows = "".join(f"<dt>{escape(label)}</dt><dd>{escape(value)}</dd>" for label, value in values.items())
    return f"<dl>{rows}</dl>"


def _details(title: str, text: str) -> str:
    return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"


def _measure(verdict: Verdict) -> str:
    return next((claim.loss for claim in verdict.claims), "test")


def _cost(verdict: Verdict, records: Sequence[TrialRecord], resources: Mapping[str, Any]) -> dict[str, str]:
    spent = verdict.spent
    ours = [record for record in records if record.ours and not record.role.promoted]
    flops = sum(record.flops or 0.0 for record in ours)
    fresh = spent.tokens_after - spent.tokens_of_scoring
    after = f" ({fresh / spent.tokens:.0%} under fresh seeds)" if spent.tokens else ""
    found = {"tokens": f"{short(spent.tokens)}{after}", "FLOPs of training": short(flops)}
    if spent.seconds:
        found["training"] = duration(spent.seconds)
        if gpus := (resources.get("gpus") or 0) * (resources.get("workers") or 1):
            found["GPU-hours of training"] = f"{spent.seconds * gpus / 3600:.3g}"
    if (used := occupancy(ours)) is not None:
        found["trials ran for"] = duration(used.busy)
        slots = "in one slot" if used.slots == 1 else f"in {used.slots} slots"
        found["slots idle"] = f"{used.idle:.1%} of that time, {slots}"
    return found
