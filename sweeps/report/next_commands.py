"""What to type next, once a sweep has ended or was stopped."""

from __future__ import annotations

import shlex

from sweeps.records import State
from sweeps.results.verdict import Verdict


def next_commands(
    verdict: Verdict,
    sweep: str,
    name: str,
    spec: str | None,
    runs: str | None,
    ended: tuple[str, float] | None,
) -> dict[str, str]:
    """Commands by what they are for.

    Args:
        verdict: of the sweep.
        sweep: its name.
        name: what the sweep goes by: its name, or its spec file.
        spec: what the user ran; None where commands go by the sweep's name.
        runs: the folder of results, where commands would not look by themselves.
        ended: the limit of the budget that ended the search, with its value; None where its trials did.
    """
    answer, commands = verdict.answer, {}
    name, spec = shlex.quote(name), shlex.quote(spec) if spec else None
    # What is enqueued waits for more of the budget.
    unfinished = (State.WAITING, State.RUNNING) if ended is None else (State.RUNNING,)
    if any(counts[state] for counts in (verdict.counts, verdict.replicates) for state in unfinished):
        commands["go on"] = f"sweeps run {spec}" if spec else f"sweeps resume {name}"
    if answer.trial is not None:
        original = answer.trial != answer.grown
        what = "take the original, trained on" if original else "take the best grown model"
        commands[what] = f"sweeps export {name} --out best/"
    if answer.grown is not None and answer.grown != answer.trial:
        commands["take the best grown model"] = f"sweeps export {name} --grown --out grown/"
    needs = answer.needs
    if spec and needs is not None and needs.seeds is not None and not (needs.missing or needs.tokens):
        again = f"--set finalists.seeds={needs.seeds} --set name={shlex.quote(f'{sweep}-2')}"
        commands["decide, with more seeds"] = f"sweeps run {spec} {again}"
    failed = next((ending for ending in verdict.failed if not ending.role.fresh), None)
    if failed is not None:
        commands["debug a failure"] = f"sweeps trial {spec or name} {failed.number}"
    opened = any(each.reason in ("not tried", "interval wider than the margin") for each in verdict.settings)
    if ended is not None or opened or answer.grown is None:
        commands["search on"] = _search_on(verdict, name, spec, ended)
    commands["tables, margin, caveats"] = f"sweeps best {name}"
    commands["curves, and the study"] = f"sweeps ui {name}"
    runs_option = f" --runs {shlex.quote(runs)}" if runs else ""
    return {what: f"{command}{runs_option}" for what, command in commands.items()}


def _search_on(verdict: Verdict, name: str, spec: str | None, ended: tuple[str, float] | None) -> str:
    """With twice of what ended the search."""
    limit, had = ended or ("trials", max(sum(verdict.counts.values()), 0.5))
    more = f"{2 * had:.0f}" if limit in ("trials", "tokens") else f"{2 * had:g}"
    larger = f"sweeps run {spec} --set budget.{limit}={more}" if spec else ""
    return larger or f"sweeps resume {name} --{limit.replace('_', '-')} {more}"
