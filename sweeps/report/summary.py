"""The whole answer as `sweeps best` prints it: the first screen, then all that it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from sweeps.records import TrialRecord
from sweeps.report.answer import answer_lines
from sweeps.report.by_source import by_source_text
from sweeps.report.finalists import finalists_text, margin_text
from sweeps.report.front import front_text
from sweeps.report.ladder import ladder_text
from sweeps.report.longer import longer_text
from sweeps.report.next_commands import Screen
from sweeps.report.promotions import promotions_text
from sweeps.report.rows import settings_text
from sweeps.report.styled import Line
from sweeps.report.tasks import tasks_text
from sweeps.results.ladder import ladder_of
from sweeps.results.longer import longer
from sweeps.results.verdict import Ending, Verdict
from sweeps.text import WIDTH, bullets, counted, join, pairs, section, table

ENDINGS_SHOWN = 12


def best_lines(
    verdict: Verdict,
    records: Sequence[TrialRecord],
    screen: Screen,
    places: Mapping[str, str] = MappingProxyType({}),
) -> list[Line]:
    """The first screen, then all that it rests on.

    `places` are shown as they come, label and address, so secrets in them are masked by the caller.
    """
    rest = join(
        finalists_text(verdict, records),
        margin_text(verdict),
        front_text(verdict, records),
        tasks_text(screen.tasks),
        longer_text(longer(verdict, records)),
        ladder_text(ladder_of(verdict, records, screen.ladder)),
        by_source_text(verdict),
        promotions_text(records, verdict.sources),
        _untried(verdict),
        _stopped(verdict, records, screen),
        _failed(verdict, screen),
        section("Caveats", bullets(verdict.warnings)),
        section("The search began with, as a prior", bullets(screen.warm_start)),
        section("Where", pairs(places)),
    )
    below = [Line(text, "" if not text or text.startswith(" ") else "bold") for text in rest.split("\n")]
    return [*answer_lines(verdict, records, screen), *([Line(""), *below] if rest else [])]


def _untried(verdict: Verdict) -> list[str]:
    """What no trial was run to an end with, however often it was begun."""
    shown = (f"{settings_text(each.settings)}: {_begun(each.tried)}" for each in verdict.untried)
    return section("Not run to an end", bullets(shown))


def _begun(tried: int) -> str:
    return f"{counted(tried, 'trial')} begun" if tried else "not tried"


def _stopped(verdict: Verdict, records: Sequence[TrialRecord], screen: Screen) -> list[str]:
    if not verdict.stopped:
        return []
    settings = {record.number: settings_text(record.params) for record in records}
    rows = [
        (str(ending.number), f"{ending.step}/{ending.steps}", _loss(ending.loss), settings[ending.number])
        for ending in verdict.stopped[:ENDINGS_SHOWN]
    ]
    rows_shown = table(("trial", "step", "loss", "settings"), rows, left={3}, width=WIDTH - 2)
    return ["Stopped early", *(f"  {line}" for line in rows_shown), *_rest(verdict.stopped, screen)]


def _failed(verdict: Verdict, screen: Screen) -> list[str]:
    if not verdict.failed:
        return []
    shown = (
        f"trial {ending.number} ({ending.role}) at step {ending.step} of {ending.steps}: "
        f"{ending.reason or 'no reason recorded'}"
        for ending in verdict.failed[:ENDINGS_SHOWN]
    )
    return ["Failed", *bullets(shown), *_rest(verdict.failed, screen)]


def _rest(endings: Sequence[Ending], screen: Screen) -> list[str]:
    rest = len(endings) - ENDINGS_SHOWN
    return [f"  and {rest} more: `{screen.command('status', screen.reference)}`"] if rest > 0 else []


def _loss(loss: float | None) -> str:
    return "-" if loss is None else f"{loss:.4f}"
