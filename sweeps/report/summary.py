"""The summary of a sweep, ended or running: plain text, aligned, 80 columns wide."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from sweeps.records import Role, State, TrialRecord
from sweeps.report.next_commands import next_commands
from sweeps.results.candidates import Candidate
from sweeps.results.finalists import finalists
from sweeps.results.paired import Difference
from sweeps.results.verdict import Ending, Verdict, none_complete
from sweeps.text import WIDTH, bullets, indented, join, pairs, section, table

ENDINGS_SHOWN = 12

_STATES = {
    State.WAITING: "waiting",
    State.RUNNING: "running",
    State.COMPLETE: "complete",
    State.PRUNED: "stopped",
    State.FAIL: "failed",
}


def summary_text(
    verdict: Verdict,
    records: Sequence[TrialRecord],
    *,
    name: str,
    places: Mapping[str, str],
    spec: str | None = None,
    runs: str | None = None,
    ended: tuple[str, float] | None = None,
) -> str:
    """The end of a sweep: the answer, how sure it is, what happened, where everything is, what to do next.

    `places` are shown as they come, label and address, so secrets in them are masked by the caller. `spec` is
    what the user ran, a file or a packaged name, for the commands that need it again; when left out, they go
    by the sweep's name. `runs` is the folder of results, where commands would not look by themselves.
    `ended` is the limit of the budget that ended the search before its trials did.
    """
    # No login goes to a server that only a kept spec names: then commands go by the user's own.
    known = spec if spec and places.get("study", "").startswith("postgresql") else name
    return join(
        [*textwrap.wrap(_headline(verdict, name), WIDTH), *_ended(verdict, ended)],
        _best(verdict),
        _comparison(verdict),
        _stopped(verdict, records),
        _failed(verdict),
        section("Caveats", bullets(verdict.warnings)),
        section("Where", pairs(places)),
        section("Next", pairs(next_commands(verdict, known, spec, runs, ended))),
    )


def best_text(verdict: Verdict) -> str:
    """The best configuration and what it is better than."""
    warnings = section("Caveats", bullets(verdict.warnings))
    return join(_best(verdict) or _none(verdict), _comparison(verdict), warnings)


def status_text(records: Sequence[TrialRecord]) -> str:
    """One line per trial: how it stands, how far it is, its loss and what was searched."""
    if not records:
        return "No trials yet."
    ordered = sorted(records, key=lambda record: record.number)
    rows = [
        (str(r.number), str(r.role), _STATES[r.state], f"{r.step}/{r.steps}", _loss(r.loss), _note(r))
        for r in ordered
    ]
    ours = [record for record in records if record.ours]
    counted = [f"{sum(r.state is state for r in ours)} {word}" for state, word in _STATES.items()]
    counted.append(f"{len(records) - len(ours)} {Role.OTHER}")
    rows_shown = table(
        ("trial", "role", "state", "step", "loss", "settings"), rows, left={1, 2, 5}, width=WIDTH
    )
    return join([", ".join(part for part in counted if not part.startswith("0 "))], rows_shown)


def list_text(
    sweeps: Mapping[str, Sequence[TrialRecord]], unread: Mapping[str, str] = MappingProxyType({})
) -> str:
    """One line per sweep, by name: its trials by state, its best loss, when it last moved (UTC).

    `unread`: sweeps that are there and could not be read, with the reason.
    """
    missing = section("Could not be read", [f"  {name}: got {reason}" for name, reason in unread.items()])
    if not sweeps:
        return join(missing or ["No sweeps here."])
    header = ("sweep", "trials", "complete", "stopped", "failed", "running", "best", "last (UTC)")
    rows = []
    for name, records in sorted(sweeps.items()):
        states = [record.state for record in records if record.ours]
        shown = (State.COMPLETE, State.PRUNED, State.FAIL, State.RUNNING)
        best = next(iter(finalists(records, 1)), None)
        counts = [str(states.count(state)) for state in shown]
        rows.append((name, str(len(states)), *counts, _loss(best.value if best else None), _last(records)))
    return join(table(header, rows, left={0}), missing)


def settings_text(params: Mapping[str, Any]) -> str:
    """Searched values in one line, under their shortest names: `k=4 init=identity learning_rate=0.001`."""
    last = [path.rpartition(".")[2] for path in params]
    names = [path if last.count(end) > 1 else end for path, end in zip(params, last, strict=True)]
    return " ".join(f"{name}={_value(value)}" for name, value in zip(names, params.values(), strict=True))


def _headline(verdict: Verdict, name: str) -> str:
    words = {"COMPLETE": "complete", "PRUNED": "stopped early", "FAIL": "failed"}
    words |= {"RUNNING": "running", "WAITING": "waiting"}
    parts = [f"{verdict.counts[state]} {word}" for state, word in words.items() if verdict.counts[state]]
    replicates = sum(verdict.replicates.values())
    tail = f", and {_count(replicates, 'replicate')} under other seeds" if replicates else ""
    detail = f" ({', '.join(parts)})" if parts else ""
    others = sum(verdict.others.values())
    tail += f"; {_count(others, 'trial')} in the study not run here" if others else ""
    return f"Sweep {name}: {_count(sum(verdict.counts.values()), 'trial')}{detail}{tail}"


def _none(verdict: Verdict) -> list[str]:
    """In place of a best that there is not."""
    reasons = " `sweeps status` has the reasons." if verdict.failed else ""
    return textwrap.wrap(f"N{none_complete(verdict)[1:]}.{reasons}", WIDTH)


def _ended(verdict: Verdict, ended: tuple[str, float] | None) -> list[str]:
    """What ended the search, where that is not the number of trials."""
    if ended is None:
        return []
    waiting = verdict.counts[State.WAITING]
    rest = f"; {_count(waiting, 'enqueued trial')} not run" if waiting else ""
    return [f"The search ended because budget.{ended[0]} is used up{rest}."]


def _best(verdict: Verdict) -> list[str]:
    best = verdict.chosen
    if best is None:
        return []
    title = f"Best: trial {best.number}"
    if best.role is Role.BASELINE:
        title += ", the baseline as the spec has it"
    facts = {path: str(value) for path, value in best.params.items()}  # in full: to be typed in again
    facts["held-out loss"] = f"{best.mean:.4f} nats per token{_over(best)}"
    if best.initial_loss is not None:
        facts["initial loss"] = f"{best.initial_loss:.4f}"
    if best.against_control is not None:
        facts["vs control"] = _difference_in_words(best.against_control)
    if best.against_baseline is not None:
        facts["vs baseline"] = _difference_in_words(best.against_baseline)
    return [title, *pairs(facts), *_tie(verdict, best)]


def _tie(verdict: Verdict, best: Candidate) -> list[str]:
    if not verdict.as_good:
        return []
    numbers = ", ".join(str(number) for number in verdict.as_good)
    text = f"As good as the lowest mean, trial {verdict.lowest}: trials {numbers}."
    if best.number != verdict.lowest:
        text += f" Trial {best.number} costs the fewest FLOPs per token of the grown ones."
    return indented(text)


def _comparison(verdict: Verdict) -> list[str]:
    """A table of the finalists, then baseline and control, each followed by what was searched."""
    if not verdict.finalists:
        return []
    listed = list(verdict.finalists)
    shown = {candidate.number for candidate in listed}
    listed += [c for c in (verdict.baseline, verdict.control) if c and c.number not in shown]
    rows = [
        (
            f"{candidate.number}{_mark(candidate, verdict)}",
            str(len(candidate.fresh)),
            f"{candidate.mean:.4f}",
            _interval(candidate.against_control),
            _interval(candidate.against_baseline),
            _chance(candidate.chance_best),
            _cost(candidate, verdict.control),
        )
        for candidate in listed
    ]
    rows_shown = table(
        ("trial", "seeds", "loss", "vs control", "vs baseline", "P(best)", "FLOPs"), rows, left={0}
    )
    settings = [_candidate_note(candidate) for candidate in listed]
    lines = rows_shown[:1]
    for row, note in zip(rows_shown[1:], settings, strict=True):
        lines += [row, *indented(note, by=4)]
    legend = "Loss: mean over fresh seeds, nats per token, at equal tokens and not at equal compute. "
    legend += "Differences: of test losses under fresh seeds, paired, with simultaneous 95 % intervals."
    if any(candidate.chance_best is not None for candidate in listed):
        legend += " P(best): posterior probability that its expected loss is the lowest of all here."
    legend += " FLOPs: per token, relative to the control." if verdict.control else ""
    return ["Finalists", *(f"  {line}" for line in lines), *indented(legend)]


def _mark(candidate: Candidate, verdict: Verdict) -> str:
    return " best" if candidate.number == verdict.best else ""


def _candidate_note(candidate: Candidate) -> str:
    if candidate.role is Role.CONTROL:
        return "control: the original model, trained on"
    if candidate.settings.get("injection", {}).get("method") == "none":
        rate = candidate.settings["recipe"]["learning_rate"]
        return f"control: the original model, trained on at its best rate, {_value(rate)}"
    label = "baseline: " if candidate.role is Role.BASELINE else ""
    return label + settings_text(candidate.params)


def _chance(chance: float | None) -> str:
    return "-" if chance is None else f"{chance:.0%}"


def _cost(candidate: Candidate, control: Candidate | None) -> str:
    ours, theirs = candidate.flops_per_token, control.flops_per_token if control else None
    return f"{ours / theirs:.2f}x" if ours and theirs else "-"


def _stopped(verdict: Verdict, records: Sequence[TrialRecord]) -> list[str]:
    if not verdict.stopped:
        return []
    settings = {record.number: settings_text(record.params) for record in records}
    rows = [
        (str(ending.number), f"{ending.step}/{ending.steps}", _loss(ending.loss), settings[ending.number])
        for ending in verdict.stopped[:ENDINGS_SHOWN]
    ]
    rows_shown = table(("trial", "step", "loss", "settings"), rows, left={3}, width=WIDTH - 2)
    return ["Stopped early", *(f"  {line}" for line in rows_shown), *_rest(verdict.stopped)]


def _failed(verdict: Verdict) -> list[str]:
    if not verdict.failed:
        return []
    shown = (
        f"trial {ending.number} ({ending.role}) at step {ending.step} of {ending.steps}: "
        f"{ending.reason or 'no reason recorded'}"
        for ending in verdict.failed[:ENDINGS_SHOWN]
    )
    return ["Failed", *bullets(shown), *_rest(verdict.failed)]


def _rest(endings: Sequence[Ending]) -> list[str]:
    rest = len(endings) - ENDINGS_SHOWN
    return [f"  and {rest} more: `sweeps status`"] if rest > 0 else []


def _difference_in_words(delta: Difference) -> str:
    direction = "better" if delta.mean < 0 else "worse"
    if delta.half_width is None:
        return f"{_interval(delta)} ({direction}; one seed, no interval)"
    judgement = direction if delta.significant else "not significant: the interval holds 0"
    return f"{_interval(delta)} ({judgement}; n={delta.n} seeds, 95 %)"


def _interval(delta: Difference | None) -> str:
    if delta is None:
        return "-"
    spread = f" ± {delta.half_width:.4f}" if delta.half_width is not None else ""
    return f"{delta.mean:+.4f}{spread}"


def _over(candidate: Candidate) -> str:
    seeds = len(candidate.fresh)
    return f", mean of {seeds} fresh seeds" if seeds > 1 else ", one seed"


def _note(record: TrialRecord) -> str:
    """What was searched, or why it failed, or whose replicate it is."""
    if record.state is State.FAIL and record.reason:
        return record.reason
    if record.replicate_of is not None:
        return f"of {record.replicate_of}, seed {record.seed}"
    return settings_text(record.params)


def _last(records: Iterable[TrialRecord]) -> str:
    times = [time for record in records for time in (record.started, record.finished) if time is not None]
    return datetime.fromtimestamp(max(times), UTC).strftime("%Y-%m-%d %H:%M") if times else "-"


def _loss(loss: float | None) -> str:
    return "-" if loss is None else f"{loss:.4f}"


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
