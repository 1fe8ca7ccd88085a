"""Live progress: a table on a terminal, plain lines with the time elsewhere."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self, TextIO

from sweeps.records import TrialRecord
from sweeps.report.overview import ROWS, overview, summary_text
from sweeps.report.rows import plain
from sweeps.results.standing import Aim, Board, Due
from sweeps.results.tally import ended
from tli.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console, Group
    from rich.live import Live

DRAWN_EVERY = 0.5  # seconds
SUMMARY_EVERY = 60.0  # seconds between two lines of where a sweep stands, where there is no terminal
_KEPT = 20  # notes that are printed again where the terminal gets another size
Clock = Callable[[], float]


class Display:
    """Shows a sweep on `stream` while it is entered; what it shows may be told to it at any time."""

    def __init__(
        self,
        aim: Aim,
        stream: TextIO,
        *,
        due: Due | None = None,
        clock: Clock = time.time,
        begins: bool = True,
    ) -> None:
        """Show nothing yet.

        Args:
            aim: what the sweep is to do.
            stream: a terminal, or anything else.
            due: how many more replicates there will be, once the finalists are known.
            clock: seconds since the epoch.
            begins: whether the sweep's workers begin when this does.
        """
        self._aim, self._stream, self._clock = aim, stream, clock
        self._board = Board(aim, clock(), due=due, begins=begins)
        self._doing: dict[str, str] = {}  # work before the first trial, by what it is
        self._page: _Page | None = None
        self._lines = threading.Lock()
        self._drawing: threading.Thread | None = None
        self._left = threading.Event()
        self._phase = ""
        # Places of records that had not ended at the latest update; None before the first one.
        self._open: list[int] | None = None
        self._seen = 0  # records at the latest update
        self._told_before = False
        self._summary_at = clock()
        self._progress_at: dict[str, float] = {}  # when a line last told of work before the first trial

    def __enter__(self) -> Self:
        if self._stream.isatty():
            from rich.console import Console

            console = Console(file=self._stream, highlight=False)
            if not console.is_dumb_terminal:
                self._page = _Page(console, self._shown)
                self._page.begin()
        self._drawing = threading.Thread(target=self._keep, name="display", daemon=True)
        self._drawing.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._left.set()
        if self._drawing is not None:
            self._drawing.join()
        page, self._page = self._page, None
        if page is not None:
            page.end()

    def update(self, records: Sequence[TrialRecord], phase: str) -> None:
        """Take in how things stand. On a terminal this only remembers: drawing happens twice a second."""
        self._board.take(records, phase)
        self._doing.clear()
        if self._page is None:
            self._print_news(records, phase)

    def spent(self, amounts: Mapping[str, float]) -> None:
        """Take in what the search has spent, by limit."""
        self._board.spend(amounts)

    def note(self, text: str) -> None:
        """Say something once, above the table."""
        if self._page is not None:
            self._page.print(printable(text))
        else:
            self._line(text)

    def before(self, number: int) -> None:
        """Say that so many trials were finished when this run began."""
        self._told_before = True
        if number:
            self.note(f"{self._aim.name}: {number} of at most {self._most} trials were finished before")

    def progress(self, what: str, amount: str, share: float | None) -> None:
        """Show what is done before the first trial, and how far it is; a share of 1 ends it."""
        if share is not None and share >= 1.0:
            self._doing.pop(what, None)
            self._progress_at.pop(what, None)
            return
        text = f"{what}{f': {amount}' if amount else ''}{f', {share:.0%}' if share is not None else ''}"
        self._doing[what] = text
        now = self._clock()
        if self._page is None and now - self._progress_at.get(what, -SUMMARY_EVERY) >= SUMMARY_EVERY:
            self._progress_at[what] = now
            self._line(text)

    def look(self) -> None:
        """Without a terminal: say in a line where the sweep stands, where that was not said for a minute."""
        now = self._clock()
        if self._page is not None or now - self._summary_at < SUMMARY_EVERY:
            return
        self._summary_at = now
        if self._board.count:
            self._line(f"{self._aim.name}: {summary_text(self._board.standing(now, ROWS))}")

    # -- inside ----------------------------------------------------------------------------------------

    @property
    def _most(self) -> int:
        return max(self._board.total, self._aim.trials + self._aim.fresh)

    def _keep(self) -> None:
        while not self._left.wait(DRAWN_EVERY):
            if self._page is not None:
                self._page.draw()
            else:
                self.look()

    def _shown(self, width: int, height: int, *, ascii_only: bool) -> Group:
        standing = self._board.standing(self._clock(), ROWS)
        doing = "; ".join(list(self._doing.values()))
        if standing.starting:
            doing = _starting(len(standing.running))
        from rich.console import Group
        from rich.text import Text

        lines = []
        for line in overview(standing, width, height, doing=doing, ascii_only=ascii_only):
            text = Text(line.text, no_wrap=True, overflow="crop")
            if line.style:
                text.stylize(line.style, 0, len(line.text) if line.wide is None else line.wide)
            lines.append(text)
        return Group(*lines)

    def _print_news(self, records: Sequence[TrialRecord], phase: str) -> None:
        board = self._board
        if self._open is None:
            self._open = [index for index, r in enumerate(records) if r.ours and not r.state.finished]
            if not self._told_before:
                self.before(board.count - len(self._open))
        else:
            self._open += range(self._seen, len(records))
        self._seen = len(records)
        if phase != self._phase:
            self._phase = phase
            self._line(f"{self._aim.name}: {phase}")
        self._open = [index for index in self._open if records[index].ours]
        count = board.count - len(self._open)
        new = [records[index] for index in self._open if records[index].state.finished]
        self._open = [index for index in self._open if not records[index].state.finished]
        for place, record in enumerate(sorted(new, key=ended), count + 1):
            self._line(f"{f'{place}/{board.total}':>7}  {plain(record)}")

    def _line(self, text: str) -> None:
        moment = datetime.fromtimestamp(self._clock(), UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        lines = "".join(f"{moment}  {each}\n" for each in printable(text).splitlines())
        with self._lines, contextlib.suppress(OSError, ValueError):  # the reader of this pipe may have gone
            self._stream.write(lines)
            self._stream.flush()


def _starting(workers: int) -> str:
    return f"starting, and loading the base in {f'{workers} workers' if workers > 1 else 'a worker'}"


class _Page:
    """The part of a terminal that is drawn again and again, below what is printed once."""

    def __init__(self, console: Console, shown: Callable[..., Group]) -> None:
        self._console, self._shown = console, shown
        self._size = console.size
        self._live: Live | None = None
        self._printed: deque[str] = deque(maxlen=_KEPT)

    def begin(self) -> None:
        """Draw it, at once."""
        from rich.live import Live

        self._live = Live(self._now(), console=self._console, auto_refresh=False)
        self._live.start(refresh=True)

    def draw(self) -> None:
        """Draw it as things stand now; on an empty page where the terminal has another size than before."""
        assert self._live is not None
        try:
            other = self._console.size != self._size
            if other:
                self._size = self._console.size
                self._console.clear()  # what was drawn is wrapped anew, and its lines are not where they were
            self._live.update(self._now(), refresh=True)
            for text in self._printed if other else ():
                self._console.print(text, markup=False)
        except Exception:
            logging.getLogger(__name__).debug("not drawn", exc_info=True)

    def end(self) -> None:
        """Draw it for the last time, and let it stand."""
        self.draw()
        assert self._live is not None
        self._live.stop()

    def print(self, text: str) -> None:
        """Print something above it."""
        self._printed.append(text)
        self._console.print(text, markup=False)

    def _now(self) -> Group:
        ascii_only = not self._console.encoding.lower().startswith("utf")
        return self._shown(*self._console.size, ascii_only=ascii_only)
