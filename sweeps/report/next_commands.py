"""What to type next, once a sweep has ended or was stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from sweeps.commands import command
from sweeps.records import State
from sweeps.results.answer import Needs
from sweeps.results.tasks import TaskTable
from sweeps.results.verdict import Verdict

_FRESH_SEEDS = 3  # with which there are intervals, and chances
_MORE_RATES = 2  # for a control whose best one is not known
# The options of `sweeps resume`, by the setting that they raise; other settings take another sweep.
_OPTIONS = {"finalists.seeds": "--seeds", "control.rates": "--control-rates", "budget.trials": "--trials"}


@dataclass(frozen=True)
class Screen:
    """What the answer itself does not know: how the sweep is called, and where it stands.

    Attributes:
        name: of the sweep.
        reference: what commands call it: its name, or its spec file.
        spec: what the user ran; None where commands go by the sweep's name.
        runs: the folder of results, where commands would not look by themselves.
        study: its store, where the user named it by an option.
        ended: the limit of the budget that ended the search, with its value; None where its trials did.
        gpus: of one trial.
        settings: of the spec, by dotted path, what a remedy begins from; without them none is named.
        resumable: whether the sweep can be run on.
        warm_start: what the search began with, of each earlier sweep.
        tasks: scores on downstream tasks.
        ladder: tokens of one run at each longer budget.
    """

    name: str
    reference: str
    spec: str | None = None
    runs: str | None = None
    study: str | None = None
    ended: tuple[str, float] | None = None
    gpus: float = 0
    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    resumable: bool = True
    warm_start: tuple[str, ...] = ()
    tasks: TaskTable | None = None
    ladder: tuple[int, ...] = ()

    def command(self, *words: str) -> str:
        """One that finds the sweep's results."""
        # What is run from a spec file finds the store in it.
        return command(*words, runs=self.runs, study=None if words[0] == "run" else self.study)


def next_commands(verdict: Verdict, screen: Screen) -> dict[str, str]:
    """Commands by what they are for.

    Args:
        verdict: of the sweep.
        screen: how it is called.
    """
    answer, name, commands = verdict.answer, screen.reference, {}
    # What is enqueued waits for more of the budget.
    unfinished = (State.WAITING, State.RUNNING) if screen.ended is None else (State.RUNNING,)
    counts = (verdict.counts, verdict.replicates)
    if screen.resumable and any(each[state] for each in counts for state in unfinished):
        again = ("run", screen.spec) if screen.spec else ("resume", name)
        commands["go on"] = screen.command(*again)
    if answer.trial is not None:
        original = answer.trial != answer.grown
        what = "take the original, trained on" if original else "take the best grown model"
        commands[what] = screen.command("export", name, "--out", "best/")
    if answer.grown is not None and answer.grown != answer.trial:
        commands["take the best grown model"] = screen.command("export", name, "--grown", "--out", "grown/")
    if answer.needs is not None and "not finished" not in answer.limits:
        commands |= _deciding(answer.needs, screen)
    failed = next((ending for ending in verdict.failed if not ending.role.after), None)
    if failed is not None:
        commands["debug a failure"] = screen.command("trial", screen.spec or name, str(failed.number))
    if verdict.failed:
        commands["every trial, and reasons"] = screen.command("status", name)
    opened = any(each.reason in ("not tried", "interval wider than the margin") for each in verdict.settings)
    if screen.resumable and (screen.ended is not None or opened or answer.grown is None):
        commands.setdefault("search on", _search_on(verdict, screen))
    commands["tables, margin, caveats"] = screen.command("best", name)
    commands["curves, and the study"] = screen.command("ui", name)
    return commands


def _deciding(needs: Needs, screen: Screen) -> dict[str, str]:
    """The command that brings what would decide an open answer; nothing where none is known to."""
    known = screen.settings
    if not known or needs.tokens or "trials" in needs.missing or "control" in needs.missing:
        return {}
    changes: dict[str, Any] = {}
    what = "decide, with more seeds"
    if needs.seeds is not None and not needs.missing:
        changes["finalists.seeds"] = needs.seeds
    if needs.text is not None and not needs.missing:
        changes["data.test_tokens"] = round(needs.text * known["data.test_tokens"])
        what = "decide, with more text"
    if "fresh seeds" in needs.missing:
        changes["finalists.seeds"] = max(_FRESH_SEEDS, known["finalists.seeds"] + 1)
    if "control rates" in needs.missing:
        rates = known["control_rates"] + _MORE_RATES
        changes["control.rates"] = max(rates, known["control.rates"])
        changes["budget.trials"] = max(4 * rates, known["budget.trials"])
        what = "find the control's rate"
    if "matched control" in needs.missing and not known["control.matched"]:
        changes["control.matched"] = "true"
        what = "compare at equal compute"
    made = _changed(changes, screen) if changes else None
    return {what: made} if made else {}


def _changed(changes: Mapping[str, Any], screen: Screen) -> str | None:
    """The command that changes settings: on the same sweep where that can be, else a new one of the spec."""
    anew = not screen.resumable or not changes.keys() <= _OPTIONS.keys()
    if screen.spec:
        named = {**changes, **({"name": f"{screen.name}-2"} if anew else {})}
        words = [word for path, value in named.items() for word in ("--set", f"{path}={value}")]
        return screen.command("run", screen.spec, *words)
    if anew:
        return None
    words = [word for path, value in changes.items() for word in (_OPTIONS[path], str(value))]
    return screen.command("resume", screen.reference, *words)


def _search_on(verdict: Verdict, screen: Screen) -> str:
    """With twice of what ended the search."""
    limit, had = screen.ended or ("trials", max(sum(verdict.counts.values()), 0.5))
    more = f"{2 * had:.0f}" if limit in ("trials", "tokens") else f"{2 * had:g}"
    if screen.spec:
        return screen.command("run", screen.spec, "--set", f"budget.{limit}={more}")
    return screen.command("resume", screen.reference, f"--{limit.replace('_', '-')}", more)
