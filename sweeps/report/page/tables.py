"""The cards and tables of a report, as HTML: plain without a script, and read aloud as tables are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from sweeps.records import TrialRecord
from sweeps.report.finalists import in_percent
from sweeps.report.page.content import candidates
from sweeps.results.candidates import Candidate
from sweeps.results.claims import Claim
from sweeps.results.labels import configuration
from sweeps.results.sentence import named
from sweeps.results.setting_answers import SettingAnswer, not_known_where, worse_where
from sweeps.results.verdict import Verdict
from sweeps.search_answers import Estimate, SearchAnswers
from sweeps.text import digits_apart, short, short_value

_K, _INIT, _RATE = "injection.k", "injection.init", "recipe.learning_rate"
PAIR = (_K, _INIT)
_SHADES = 60  # percent of colour at the best cell
_BETTER = {"grow": "yes", "do not grow": "no", "not shown": "not shown"}


def cards(verdict: Verdict) -> str:
    """Four questions with their answers, each of which may be open."""
    found = {each.path: each for each in verdict.settings}
    claim = verdict.answer.claim
    parts = [
        _card(
            "Better than training on?",
            _BETTER[verdict.answer.grow],
            _gap(claim) if claim else "nothing to compare yet",
            answered=verdict.answer.grow != "not shown",
        )
    ]
    names = {_K: "K?", _INIT: "First weights?", _RATE: "Learning rate?"}
    return "\n".join([*parts, *(_setting_card(name, found.get(path)) for path, name in names.items())])


def _card(title: str, value: str, detail: str, *, answered: bool) -> str:
    kind = "card" if answered else "card open"
    title, value, detail = map(escape, (title, value, detail))
    return f'<div class="{kind}"><span>{title}</span><b>{value}</b><small>{detail}</small></div>'


def _setting_card(title: str, answer: SettingAnswer | None) -> str:
    if answer is None:
        return _card(title, "not searched", "one value in all trials", answered=False)
    if answer.between is not None:
        if answer.reason is None:
            return _card(title, short_value(answer.value), worse_where(answer), answered=True)
        return _card(title, "not answered", not_known_where(answer), answered=False)
    if answer.reason is None:
        good = [*answer.as_good, *(each.value for each in answer.values if each.says == "no better")]
        detail = (
            f"not shown to be worse: {', '.join(map(short_value, good))}"
            if good
            else "better than the others"
        )
        return _card(title, short_value(answer.value), detail, answered=True)
    return _card(title, "not answered", str(answer.reason), answered=False)


def _gap(claim: Claim) -> str:
    digits = digits_apart([claim.mean, *([claim.low, claim.high] if claim.low and claim.high else [])])
    ends = f" (95 %: {claim.low:+.{digits}f} to {claim.high:+.{digits}f})" if claim.low is not None else ""
    return f"best grown model less the original at {claim.at}: {claim.mean:+.{digits}f} nats{ends}"


def cells(answers: SearchAnswers | None) -> str:
    """K by first weights, or the values of each choice where not both are searched; blank is blank."""
    values = answers.values if answers else {}
    if not answers or not values:
        return "<p>The search is not over, or has no choices: no estimates.</p>"
    if pair := answers.pairs.get(PAIR):
        ks, inits = (list(dict.fromkeys(key[side] for key in pair)) for side in (0, 1))
        rows = [(short_value(k), [pair.get((k, init)) for init in inits]) for k in ks]
        return _grid("K", [short_value(init) for init in inits], rows)
    return "".join(
        _grid("", [short_value(value) for value in found], [(path, list(found.values()))])
        for path, found in values.items()
    )


def _grid(corner: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Estimate | None]]]) -> str:
    """The model's best loss over all other settings in each cell, darker where it is lower."""
    run = [each.mean for _, found in rows for each in found if each is not None and each.complete]
    low, high = min(run, default=0.0), max(run, default=0.0)
    digits = digits_apart(run)
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    lines = [f'<table class="grid"><thead><tr><th scope="col">{corner}</th>{head}</tr></thead><tbody>']
    for name, found in rows:
        lines.append(f'<tr><th scope="row">{escape(name)}</th>')
        for each in found:
            if each is None or not each.tried:
                lines.append('<td class="none">not tried</td>')
                continue
            share = 1.0 if high == low else (high - each.mean) / (high - low)
            shade = round(_SHADES * max(0.0, min(1.0, share)) ** 2)
            width = f"±{each.half_width:.{digits}f}" if each.half_width is not None else ""
            counts = f"{each.complete} of {each.tried} to the end"
            paint = f"background: color-mix(in srgb, var(--mark) {shade}%, transparent)"
            kind = "" if each.complete else ' class="none"'
            lines.append(
                f'<td{kind} style="{paint}">{each.mean:.{digits}f}<small>{width}</small>'
                f"<small>{counts}</small></td>"
            )
        lines.append("</tr>")
    return "".join([*lines, "</tbody></table>"])


def finalists(verdict: Verdict, records: Sequence[TrialRecord]) -> str:
    """What ran under fresh seeds, one row each; the headers sort."""
    by_number = {record.number: record for record in records}
    listed = candidates(verdict)
    if not listed:
        return "<p>No trial has run to its end.</p>"
    columns = ("trial", "what", "seeds", "validation", "test", "less the control", "P(best)", "FLOPs")
    head = "".join(
        f'<th scope="col"{" class=text" if column == "what" else ""}>'
        f'<button type="button">{column}</button></th>'
        for column in columns
    )
    body = "".join(_row(each, verdict, by_number[each.number]) for each in listed)
    return _table(head, body, "sorts")


def _row(each: Candidate, verdict: Verdict, record: TrialRecord) -> str:
    gap = each.against_control
    half = gap.half_width if gap else None
    apart = "" if gap is None else f"{gap.mean:+.5f}" + ("" if half is None else f" ±{half:.5f}")
    ours, theirs = each.flops_per_token, verdict.control.flops_per_token if verdict.control else None
    cost = ours / theirs if ours and theirs else None
    mark = " (the answer)" if each.number == verdict.best else ""
    values: list[tuple[str, Any]] = [
        (f"{each.number}{mark}", each.number),
        (named(record), None),
        (str(len(each.fresh)), len(each.fresh)),
        (f"{each.mean:.5f}", each.mean),
        ("" if each.test_loss is None else f"{each.test_loss:.5f}", each.test_loss or 9e9),
        (apart, gap.mean if gap else 9e9),
        ("" if each.chance_best is None else in_percent(each.chance_best), each.chance_best or 0),
        ("" if cost is None else f"{cost:.2f}x", cost or 9e9),
    ]
    shown = "".join(
        f"<td{' class=text' if value is None else f' data-v={value!r}'}>{escape(text)}</td>"
        for text, value in values
    )
    return f'<tr data-n="{each.number}" tabindex="0">{shown}</tr>'


def endings(verdict: Verdict, records: Sequence[TrialRecord]) -> str:
    """What failed, with the reasons."""
    if not verdict.failed:
        return "<p>None.</p>"
    by_number = {record.number: record for record in records}
    rows = "".join(
        f'<tr data-n="{each.number}" tabindex="0"><td>{each.number}</td>'
        f'<td class="text">{escape(configuration(by_number[each.number]))}</td>'
        f"<td>{each.step} of {each.steps}</td>"
        f'<td class="text wrap">{escape(each.reason or "no reason recorded")}</td></tr>'
        for each in verdict.failed
    )
    head = '<th scope="col">trial</th><th class="text">what</th><th>step</th><th class="text">reason</th>'
    return _table(head, rows)


def _table(head: str, body: str, kind: str = "") -> str:
    of = f' class="{kind}"' if kind else ""
    return f'<div class="scroll"><table{of}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def stopping(verdict: Verdict) -> str:
    """What stopping saved, and what it may have missed."""
    return "".join(f"<p>{escape(text)}</p>" for text in _stopping(verdict))


def _stopping(verdict: Verdict) -> Iterator[str]:
    count, spent = len(verdict.stopped), verdict.spent
    if not count:
        yield "No trial was stopped early."
        return
    whole = spent.tokens_of_search + spent.tokens_saved
    share = f", {spent.tokens_saved / whole:.0%} of what the search would have spent" if whole else ""
    total = sum(verdict.counts.values())
    saved = f"which saved {short(spent.tokens_saved)} tokens{share}"
    yield f"{count} of {total} trials were stopped early, {saved}."
    if (found := verdict.stopping) is None:
        yield "Too few whole curves tell what was missed by it."
        return
    yield (
        f"Of the stopped ones {found.expected:.2f} are expected to have ended among the best {found.top}, "
        f"and {found.at_most} at most with a chance of 95 %, as the sweep's own whole curves tell."
    )
