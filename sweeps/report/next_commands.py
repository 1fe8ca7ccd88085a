"""What to type next, once a sweep has ended or was stopped."""

from __future__ import annotations

import shlex

from sweeps.records import Role, State
from sweeps.results.verdict import Verdict


def next_commands(
    verdict: Verdict, name: str, spec: str | None, runs: str | None, ended: tuple[str, float] | None
) -> dict[str, str]:
    """Commands by what they are for.

    Args:
        verdict: of the sweep.
        name: what the sweep goes by: its name, or its spec file.
        spec: what the user ran; None where commands go by the sweep's name.
        runs: the folder of results, where commands would not look by themselves.
        ended: the limit of the budget that ended the search, with its value; None where its trials did.
    """
    commands = {}
    name, spec = shlex.quote(name), shlex.quote(spec) if spec else None
    # What is enqueued waits for more of the budget.
    unfinished = (State.WAITING, State.RUNNING) if ended is None else (State.RUNNING,)
    if any(counts[state] for counts in (verdict.counts, verdict.replicates) for state in unfinished):
        commands["go on"] = f"sweeps run {spec}" if spec else f"sweeps resume {name}"
    if verdict.best is not None:
        commands["take the winner"] = f"sweeps export {name} --out best/"
    if verdict.best != verdict.lowest:
        commands["take the other"] = f"sweeps export {name} --trial {verdict.lowest} --out lowest/"
    if verdict.best is not None:
        commands["at equal cost"] = f"sweeps compare {name}"
    commands["look at curves"] = f"sweeps ui {name}"
    limit, had = ended or ("trials", max(sum(verdict.counts.values()), 0.5))
    more = f"{2 * had:.0f}" if limit in ("trials", "tokens") else f"{2 * had:g}"
    larger = f"sweeps run {spec} --set budget.{limit}={more}" if spec else ""
    commands["search on"] = larger or f"sweeps resume {name} --{limit.replace('_', '-')} {more}"
    failed = next((ending for ending in verdict.failed if ending.role is not Role.REPLICATE), None)
    if failed is not None:
        commands["debug a failure"] = f"sweeps trial {spec or name} {failed.number}"
    runs_option = f" --runs {shlex.quote(runs)}" if runs else ""
    return {what: f"{command}{runs_option}" for what, command in commands.items()}
