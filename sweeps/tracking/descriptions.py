"""The descriptions of a sweep's experiment and of its own run in MLflow, in Markdown.

The experiment's begins with the answer, of which MLflow shows one line until it is opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sweeps.records import State, TrialRecord
from sweeps.results.candidates import Candidate
from sweeps.results.claims import Claim
from sweeps.results.paired import Difference
from sweeps.results.sentence import named, sentence
from sweeps.results.sweep import Sweep
from sweeps.results.verdict import Verdict
from sweeps.text import digits_apart, loss
from sweeps.tracking.appearance import configuration_name

_MOST = 12  # rows of a table: an experiment's tag holds 5,000 characters


def experiment_text(sweep: Sweep, found: Verdict, records: Sequence[TrialRecord], against: int | None) -> str:
    """The answer, the finalists, where the report lies, how to read the charts.

    Args:
        sweep: that has its answer.
        found: its verdict.
        records: every trial of it.
        against: number of the control that gaps are to.
    """
    parts = [run_text(sweep, found, records), _report(sweep), _reading(against)]
    return "\n\n".join(filter(None, parts))


def run_text(sweep: Sweep, found: Verdict, records: Sequence[TrialRecord]) -> str:
    """The answer and the table of finalists."""
    table = "\n".join(_table(found, records))
    return "\n\n".join(filter(None, [f"{sweep.spec.name}: {sentence(found, records)}", table]))


def running_text(sweep: Sweep, records: Sequence[TrialRecord], phase: str, against: int | None) -> str:
    """How far a sweep is that is not finished, and its lowest loss; the answer comes at its end.

    Args:
        sweep: that is not finished.
        records: every trial of it.
        phase: of its work: `search`, `finalists`.
        against: number of the control that gaps are to, once that is known.
    """
    searched = [record for record in records if record.budgeted and record.ours]
    ended = sum(record.state.finished for record in searched)
    said = f"{sweep.spec.name}: not finished ({phase}), {ended} of {sweep.spec.budget.trials} trials ended"
    parts = [said]
    parts += [f"{n} {word}" for word, n in _counts(searched).items() if n]
    text = f"{', '.join(parts)}. The answer stands here once fresh seeds were run."
    lowest = min(
        (r for r in searched if not r.original and r.state is State.COMPLETE and r.value is not None),
        key=lambda record: (record.value, record.number),
        default=None,
    )
    control = next((record for record in records if record.number == against), None)
    lines = [text, _lowest(lowest, control) if lowest else "", _report(sweep), _reading(against)]
    return "\n\n".join(filter(None, lines))


# -- inside ----------------------------------------------------------------------------------------


def _counts(records: Sequence[TrialRecord]) -> dict[str, int]:
    named_states = {"stopped": State.PRUNED, "failed": State.FAIL, "running": State.RUNNING}
    return {word: sum(r.state is state for r in records) for word, state in named_states.items()}


def _lowest(record: TrialRecord, control: TrialRecord | None) -> str:
    text = f"Lowest loss so far: trial {record.number}, {named(record)}, {loss(record.value)}"
    if control is None or control.value is None or record.value is None:
        return f"{text}."
    gap = record.value - control.value
    side = "below" if gap < 0 else "above"
    digits = digits_apart([gap])
    return f"{text}: {abs(gap):.{digits}f} nats {side} the control, under the seed that chooses."


def _table(found: Verdict, records: Sequence[TrialRecord]) -> Iterator[str]:
    """Finalists, baseline and controls: means over fresh seeds, differences with their intervals."""
    every = [*found.finalists[:_MOST], found.control, found.matched, found.baseline]
    listed = list({each.number: each for each in every if each is not None}.values())
    if not listed:
        return
    by_number = {record.number: record for record in records}
    scores = {}
    if found.front is not None and found.front.score is not None:
        scores = {each.number: _score(each.score, each.score_error) for each in found.front.members}
    heads = ["seeds", "validation", "test", "less the control, 95 %", "FLOPs"]
    heads += [f"{found.front.score} ± standard error"] if found.front is not None and scores else []
    yield f"| run | {' | '.join(heads)} |"
    yield f"|---{'|---:' * len(heads)}|"
    digits = digits_apart([each.mean for each in listed])
    for each in listed:
        test = "" if each.test_loss is None else f"{each.test_loss:.{digits}f}"
        cells = (
            _named(by_number[each.number], found), str(len(each.fresh)), f"{each.mean:.{digits}f}", test,
            _difference(each.against_control), _cost(each, found.control),
            *([scores.get(each.number, "")] if scores else []),
        )  # fmt: skip
        yield f"| {' | '.join(cells)} |"
    if len(found.finalists) > _MOST:
        yield f"\n{len(found.finalists) - _MOST} more finalists are in the report."


def _score(value: float | None, error: float | None) -> str:
    spread = "" if error is None else f" ± {error:.3f}"
    return "" if value is None else f"{value:.3f}{spread}"


def _named(record: TrialRecord, found: Verdict) -> str:
    name = configuration_name(record)
    if record.number == found.answer.trial:
        return f"**{name}: best**"
    return f"{name}: best grown" if record.number == found.answer.grown else name


def _difference(found: Claim | Difference | None) -> str:
    if found is None:
        return ""
    width = found.half_width
    digits = digits_apart([found.mean] if width is None else [found.mean, width])
    return f"{found.mean:+.{digits}f}" + ("" if width is None else f" ± {width:.{digits}f}")


def _cost(each: Candidate, control: Candidate | None) -> str:
    ours, theirs = each.flops_per_token, control.flops_per_token if control else None
    return f"{ours / theirs:.2f}x" if ours and theirs else ""


def _report(sweep: Sweep) -> str:
    return f"Report, with figures: `{sweep.folders.report}`, and `report.html` among this sweep's artifacts."


def _reading(against: int | None) -> str:
    if against is None:
        return ""
    return (
        f"`control_gap` is a run's loss less that of the control (trial {against}, or its run under the same "
        "seed) at the same step: below 0 is better than training the original on. Dark grey: the control; "
        "pink: the baseline; other colours: finalists; light grey: the rest."
    )
