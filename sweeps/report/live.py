"""Live progress: a table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self, TextIO

from sweeps.clock import awake
from sweeps.records import State, TrialRecord
from sweeps.report.rows import COLUMNS, STATES, best_so_far, ended, plain, window
from sweeps.results.finalists import control_of
from sweeps.results.labels import configuration
from sweeps.text import duration, loss
from tli.terminal import printable

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live
    from rich.table import Table

ROWS = 20  # trials shown at once
FRAME = 7  # lines of the display around them
PROGRESS_SECONDS = 10.0  # between two lines of it, where there is no terminal
Clock = Callable[[], float]
Due = Callable[[Sequence[TrialRecord]], int]


class Display:
    """Shows a sweep on `stream` while it is entered; `update` and `note` may be called at any time."""

    def __init__(
        self, name: str, total: int, stream: TextIO, *, due: Due | None = None, clock: Clock = time.time
    ) -> None:
        """Show nothing yet.

        Args:
            name: of the sweep.
            total: the most trials that it may have.
            stream: a terminal, or anything else.
            due: how many more replicates there will be, once the finalists are known.
            clock: seconds since the epoch.
        """
        self._name, self._stream, self._clock = name, stream, clock
        self._view = View(name, total, clock(), due)
        self._live: Live | None = None
        self._phase = ""
        # Places of records that had not ended at the latest update; None before the first one.
        self._open: list[int] | None = None
        self._seen = 0  # records at the latest update
        self._progress_at = clock()  # when work before the first trial was told of

    def __enter__(self) -> Self:
        if not self._stream.isatty():
            return self
        from rich.console import Console
        from rich.live import Live

        console = Console(file=self._stream, highlight=False)
        if not console.is_dumb_terminal:
            self._live = Live(
                get_renderable=lambda: self._view.render(*console.size, self._clock()),
                console=console,
                refresh_per_second=2,
            )
            self._live.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.__exit__(None, None, None)

    def update(self, records: Sequence[TrialRecord], phase: str) -> None:
        """Take in how things stand. On a terminal this only remembers: drawing happens twice a second."""
        self._view.take(records, phase)
        if self._live is None:
            self._print_news(records, phase)

    def note(self, text: str) -> None:
        """Say something once, above the table."""
        if self._live is not None:
            self._live.console.print(printable(text), markup=False)
        else:
            self._line(text)

    def progress(self, what: str, amount: str, share: float | None) -> None:
        """Show how far work before the first trial is: a bar on a terminal, a line now and then elsewhere."""
        now = self._clock()
        self._view.work = (f"{what}: {amount}", share)
        if self._live is None and now - self._progress_at >= PROGRESS_SECONDS:
            self._progress_at = now
            self._line(f"{what}: {amount}" + (f", {share:.0%}" if share is not None else ""))

    def _print_news(self, records: Sequence[TrialRecord], phase: str) -> None:
        if self._open is None:
            self._open = [index for index, r in enumerate(records) if r.ours and not r.state.finished]
            before = self._view.count - len(self._open)
            if before:
                self._line(f"{self._name}: {before} of {self._view.total} trials ended before")
        else:
            self._open += range(self._seen, len(records))
        self._seen = len(records)
        if phase != self._phase:
            self._phase = phase
            self._line(f"{self._name}: {phase}")
        self._open = [index for index in self._open if records[index].ours]
        count = self._view.count - len(self._open)
        new = [records[index] for index in self._open if records[index].state.finished]
        self._open = [index for index in self._open if not records[index].state.finished]
        for place, record in enumerate(sorted(new, key=ended), count + 1):
            self._line(f"{f'{place}/{self._view.total}':>7}  {plain(record)}")

    def _line(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # the reader of this pipe may have gone
            self._stream.write(printable(text) + "\n")
            self._stream.flush()


@dataclass(frozen=True)
class _Progress:
    """Where a running attempt was first seen, and where it was when it last came further; active seconds."""

    attempt: int
    first_step: int
    first_at: float
    step: int
    at: float


def _progress(record: TrialRecord, now: float, before: _Progress | None) -> _Progress:
    if before is None or before.attempt != record.attempt:
        return _Progress(record.attempt, record.step, now, record.step, now)
    return replace(before, step=record.step, at=now) if record.step > before.step else before


class View:
    """The latest state of a sweep and how it is drawn."""

    def __init__(
        self, name: str, total: int, started: float, due: Due | None = None, active: Clock | None = None
    ) -> None:
        """Know of no trial yet.

        Args:
            name: of the sweep.
            total: the most trials that it may have.
            started: when the display began, in seconds since the epoch.
            due: how many more replicates there will be, once the finalists are known.
            active: seconds that do not count while nothing can run; what is left to do is foretold by them.
        """
        self.name, self._total, self._started, self._due = name, total, started, due
        self._active = active or awake()
        self._began = self._active()
        self._progress: dict[int, _Progress] = {}  # of running trials, by number
        self._records: tuple[TrialRecord, ...] = ()
        self._phase = "starting"
        self.work: tuple[str, float | None] | None = None  # before the first trial
        self._at_first: float | None = None  # trials' worth of work done before this display

    @property
    def count(self) -> int:
        """Trials that this sweep runs, or ran."""
        return len(self._records)

    @property
    def total(self) -> int:
        """Trials of the sweep; never less than there are."""
        return max(self._total, self.count)

    def take(self, records: Sequence[TrialRecord], phase: str) -> None:
        """Remember the latest of what this sweep runs."""
        records = tuple(record for record in records if record.ours)
        if phase == "finalists" != self._phase and self._due is not None:
            self._total = len(records) + self._due(records)  # the baseline may be one of them
        self._records, self._phase = records, phase
        if self._at_first is None:
            self._at_first = self._work()

    def look(self) -> None:
        """See how far the running trials have come."""
        now, before = self._active(), self._progress
        running = (record for record in self._records if record.state is State.RUNNING)
        self._progress = {r.number: _progress(r, now, before.get(r.number)) for r in running}

    def _work(self) -> float:
        return sum(1.0 if r.state.finished else r.step / max(r.steps, 1) for r in self._records)

    def left(self) -> float | None:
        """Seconds to the end of the sweep at the speed so far; None before there is a speed."""
        work = self._work()
        new = work - (self._at_first or 0.0)
        return (self._active() - self._began) * (self.total - work) / new if new >= 0.5 else None

    def left_of(self, record: TrialRecord) -> float | None:
        """Seconds to the end of a running trial at the speed that was seen here; None before there is one."""
        seen = self._progress.get(record.number)
        if seen is None or seen.step <= seen.first_step:
            return None
        pace = (seen.at - seen.first_at) / (seen.step - seen.first_step)
        return max(0.0, pace * (record.steps - seen.step) - (self._active() - seen.at))

    def render(self, width: int, height: int, now: float) -> Group:
        """Heading, progress bar and table, fitting the terminal."""
        from rich.console import Group

        self.look()
        if self.work is not None and not self._records:
            return Group(self._heading(width), _work_bar(*self.work, width))
        bar, table = self._bar(width, now), self._table(width, height)
        return Group(self._heading(width), bar, self._best(width), "", table)

    def _heading(self, width: int) -> Any:
        from rich.text import Text

        counts = [
            f"{sum(r.state is state for r in self._records)} {word}"
            for state, (word, _) in STATES.items()
            if any(r.state is state for r in self._records)
        ]
        heading = Text(no_wrap=True, overflow="ellipsis")
        heading.append(self.name, "bold")
        heading.append(f"  {self._phase}")
        heading.append("".join(f"  {count}" for count in counts), "dim")
        heading.truncate(width - 1)
        return heading

    def _best(self, width: int) -> Any:
        """What there is to beat, and what beats it: the rows themselves may be out of sight."""
        from rich.text import Text

        best = best_so_far(self._records)
        control = control_of(self._records)
        text = Text()
        if best is not None:
            text.append(f"best {loss(best.value)}", "bold green")
            text.append(printable(f" (trial {best.number}: {configuration(best)})"))
        if control is not None:
            text.append(f"{'; ' if best is not None else ''}control {loss(control.value)}")
        text.truncate(width - 1, overflow="ellipsis")
        return text

    def _bar(self, width: int, now: float) -> Table:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        done, left = sum(r.state.finished for r in self._records), self.left()
        rest = "" if done >= self.total else f", {duration(left)} left" if left is not None else ""
        text = f"{done} of {self.total} trials, {duration(now - self._started)}{rest}"
        bar = Table.grid(padding=(0, 2))
        share = min(self._work(), self.total)  # running trials count as far as they are
        bar.add_row(ProgressBar(total=self.total, completed=share, width=max(10, min(40, width - 46))), text)
        return bar

    def _table(self, width: int, height: int) -> Table:
        from rich.table import Table

        gap = 1 if width < 100 else 2
        columns = [column for column in COLUMNS if width >= column[3]]
        table = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="bold dim")
        table.expand = any(not wide for _, _, wide, _, _ in columns)
        for title, justify, wide, _, _ in columns:
            size = (
                {"min_width": wide} if wide else {"ratio": 1}
            )  # the column without a width takes what is left
            table.add_column(title, justify=justify, no_wrap=True, overflow="ellipsis", **size)  # type: ignore[arg-type]
        best = best_so_far(self._records)
        shown = window(self._records, max(3, min(ROWS, height - FRAME)))
        for record in shown:
            is_best = best is not None and record.number == best.number
            style = "bold green" if is_best else "dim" if record.state is State.FAIL else ""
            table.add_row(
                *(_cell(show(record, self.left_of(record)), record) for *_, show in columns), style=style
            )
        hidden = sum(r.state is not State.WAITING for r in self._records) - len(shown)
        if hidden > 0:
            table.caption, table.caption_justify = f"and {hidden} more", "left"
        return table


def _work_bar(text: str, share: float | None, width: int) -> Table:
    """How far work before the first trial is; a bar that moves where the whole is not known."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    bar = Table.grid(padding=(0, 2))
    size = max(10, min(40, width - 46))
    drawn = ProgressBar(total=1.0, completed=share or 0.0, width=size, pulse=share is None)
    bar.add_row(drawn, text if share is None else f"{text}, {share:.0%}")
    return bar


def _cell(text: str, record: TrialRecord) -> Any:
    from rich.text import Text

    word, style = STATES[record.state]
    return Text(printable(text), style=style if text == word else "", no_wrap=True, overflow="ellipsis")
