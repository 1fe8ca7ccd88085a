"""The live table on a real pseudo-terminal, and plain lines where there is none."""

from __future__ import annotations

import fcntl
import io
import math
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from dataclasses import replace
from typing import Any

import pytest

from sweeps.records import Role, State, TrialRecord
from sweeps.report.live import Display, View
from sweeps.report.rows import best_so_far, plain, window
from sweeps.text import duration, loss

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def record(number: int, state: State = State.RUNNING, *, step: int = 0, **more: Any) -> TrialRecord:
    role = {0: Role.CONTROL, 1: Role.BASELINE}.get(number, Role.SEARCH)
    settings = {
        "injection": {"method": "tli", "k": 4, "init": "identity"},
        "recipe": {"learning_rate": 1.2e-3},
    }
    losses = {0: 4.12346, **({step: 4.12346 - step / 100} if step else {})}
    made = TrialRecord(number, role, state, {}, settings, 0, 50, losses, started=1000.0)
    if state.finished:
        made = replace(made, finished=1080.0 + number)
    if state is State.COMPLETE:
        made = replace(made, value=made.loss)
    return replace(made, **more)


class Clock:
    """Seconds in which the driver was not stopped."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def drawn(
    records: list[TrialRecord], width: int, height: int = 40, total: int = 24, now: float = 1100.0
) -> str:
    from rich.console import Console

    active = Clock()
    view = View("quickstart", total, 1000.0, active=active)
    view.take([replace(each, losses={}) for each in records if each.state is State.RUNNING], "search")
    view.look()
    active.now = now - 1000.0
    view._at_first = 0.0  # as before any trial
    view.take(records, "search")
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    console.print(view.render(width, height, now))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_without_a_terminal_each_finished_trial_is_one_plain_line() -> None:
    stream = io.StringIO()
    with Display("quickstart", 24, stream) as display:
        display.note("tokens: 1,000 [cached]")
        running = [record(0), record(1)]
        display.update(running, "search")
        display.update(running, "search")
        ended = [record(0, State.COMPLETE, step=50), record(1, State.PRUNED, step=16, reason="rung 2")]
        failed = record(2, State.FAIL, step=8, reason="diverged: loss is nan\nTraceback")
        display.update([*ended, record(2)], "search")
        display.update([*ended, failed], "search")
        replicate = record(3, State.COMPLETE, step=50, role=Role.REPLICATE, replicate_of=0, finished=None)
        display.update([*ended, failed, replicate], "finalists")
    assert stream.getvalue().splitlines() == [
        "tokens: 1,000 [cached]",
        "quickstart: search",
        "   1/24  trial   0 complete, loss 3.6235, from 4.1235, control, lr 1.2e-03, 1m20s",
        (
            "   2/24  trial   1 stopped at step 16 of 50, loss 3.9635, from 4.1235, baseline, "
            "K=4 identity lr 1.2e-03, 1m21s"
        ),
        (
            "   3/24  trial   2 failed at step 8 of 50, loss 4.0435, from 4.1235, "
            "K=4 identity lr 1.2e-03, 1m22s, diverged: loss is nan"
        ),
        "quickstart: finalists",
        "   4/24  trial   3 complete, loss 3.6235, from 4.1235, replicate of 0, K=4 identity lr 1.2e-03",
    ]


def test_once_the_finalists_are_known_the_trials_are_counted_exactly() -> None:
    stream = io.StringIO()
    display = Display("quickstart", 24, stream, due=lambda records: 5 - len(records))
    display.update([record(0), record(1)], "search")
    ended = [record(0, State.COMPLETE, step=50), record(1, State.COMPLETE, step=50)]
    display.update([*ended, record(2, role=Role.REPLICATE, replicate_of=0)], "finalists")
    done = record(2, State.COMPLETE, step=50, role=Role.REPLICATE, replicate_of=0)
    display.update([*ended, done, record(3, role=Role.REPLICATE, replicate_of=1)], "finalists")
    counts = [line.split()[0] for line in stream.getvalue().splitlines() if "/" in line.split()[0]]
    assert counts == ["1/5", "2/5", "3/5"]


def test_trials_finished_before_a_resume_are_counted_and_not_repeated() -> None:
    stream = io.StringIO()
    display = Display("quickstart", 24, stream)
    old = [record(n, State.COMPLETE, step=50) for n in range(3)]
    display.update([*old, record(3)], "search")
    display.update([*old, record(3, State.COMPLETE, step=50)], "search")
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["quickstart: 3 of 24 trials ended before", "quickstart: search"]
    assert lines[2].startswith("   4/24  trial   3 complete")
    assert len(lines) == 3


def test_a_reader_that_has_gone_does_not_stop_the_sweep() -> None:
    stream = io.StringIO()
    display = Display("quickstart", 24, stream)
    stream.close()
    display.update([record(0)], "search")
    display.note("nobody hears this")


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
def test_the_table_fits_the_terminal(width: int) -> None:
    records = [record(n, State.COMPLETE, step=50, tokens=10_000, seconds=2.0) for n in range(30)]
    records += [record(30, step=25), record(31, attempt=2)]
    records += [record(32, State.FAIL, step=8, reason="a long reason " * 20)]
    lines = drawn(records, width).splitlines()
    assert max(map(len, lines)) <= width
    shown = [line for line in lines if re.match(r" +\d+ ", line)]
    assert [int(line.split()[0]) for line in shown] == [31, 30, 32, *range(29, 12, -1)]
    assert "and 13 more" in lines[-1]
    assert [("initial" in "".join(lines)), ("tokens/s" in "".join(lines))] == [width >= 78, width >= 110]


@pytest.mark.parametrize("height", [8, 10, 16, 24])
def test_the_table_is_no_higher_than_the_terminal(height: int) -> None:
    records = [record(n, State.COMPLETE, step=50) for n in range(30)]
    assert len(drawn(records, 80, height).splitlines()) <= max(height, 10)


def test_what_the_table_says() -> None:
    control = record(0, State.COMPLETE, step=50, value=3.6)
    lines = drawn(
        [control, record(1, State.COMPLETE, step=50), record(2, step=25), record(3)], 120
    ).splitlines()
    assert lines[0] == "quickstart  search  2 running  2 complete"
    assert lines[1].endswith("2 of 24 trials, 1m40s, 14m20s left")
    assert lines[2] == "best 3.6235 (trial 1: K=4 identity lr 1.2e-03); control 3.6000"
    header, *rows = (line.split() for line in lines[4:])
    assert " ".join(header) == "trial role K init lr step loss initial state ETA took tokens/s note"
    assert rows[0] == ["3", "search", "4", "identity", "1.2e-03", "0/50", "4.1235", "4.1235", "running"]
    assert rows[1][5:] == ["25/50", "3.8735", "4.1235", "running", "1m40s"]
    assert rows[2][:5] == ["1", "baseline", "4", "identity", "1.2e-03"]
    assert rows[2][8:] == ["complete", "1m21s"]
    assert rows[3][1:5] == ["control", "-", "-", "1.2e-03"]


def test_the_best_is_never_the_control_and_never_an_unfinished_trial() -> None:
    records = [
        record(0, State.COMPLETE, step=50, value=1.0),
        record(1, State.COMPLETE, step=50, value=3.0),
        record(2, State.COMPLETE, step=50, value=2.0),
        record(3, State.PRUNED, step=49),
        record(4, State.COMPLETE, step=50, value=0.5, role=Role.REPLICATE, replicate_of=2),
    ]
    best = best_so_far(records)
    assert best is not None
    assert best.number == 2
    assert best_so_far([records[0], records[3]]) is None


def test_the_window_holds_running_trials_first_and_waiting_ones_not_at_all() -> None:
    records = [record(n, State.COMPLETE, step=50, finished=2000.0 - n) for n in range(5)]
    records += [record(5), record(6), record(7, State.WAITING)]
    assert [r.number for r in window(records, 4)] == [6, 5, 0, 1]


def test_time_left_counts_only_what_this_display_saw() -> None:
    active = Clock()
    view = View("quickstart", 10, 1000.0, active=active)
    old = [record(n, State.COMPLETE, step=50) for n in range(4)]
    view.take([*old, record(4)], "search")
    active.now = 60.0
    assert view.left() is None
    view.take([*old, record(4, State.COMPLETE, step=50), record(5, step=50)], "search")
    assert view.left() == pytest.approx(60 * 4 / 2)
    more = [record(n, State.COMPLETE, step=50) for n in range(12)]
    view.take(more, "finalists")
    assert view.total == 12
    assert view.left() == 0.0


def test_a_trial_that_goes_on_after_a_stop_of_hours_is_foretold_by_its_speed_now() -> None:
    active = Clock()
    view = View("quickstart", 10, 50_000.0, active=active)
    stopped = replace(record(4, step=10), started=1000.0, attempt=2)

    def seen(step: int, at: float) -> float | None:
        active.now = at
        view.take([replace(stopped, losses={0: 4.0, step: 3.0})], "search")
        view.look()
        return view.left_of(stopped)

    assert seen(10, 0.0) is None, "its speed is not known yet"
    assert seen(10, 5.0) is None
    assert seen(20, 10.0) == pytest.approx(30.0)
    assert seen(20, 14.0) == pytest.approx(26.0), "it counts down between measurements"
    assert seen(20, 99.0) == 0.0


def test_another_attempt_begins_anew() -> None:
    active = Clock()
    view = View("quickstart", 10, 0.0, active=active)
    for at, attempt, step in ((0.0, 1, 0), (10.0, 1, 10), (40.0, 2, 5), (50.0, 2, 15)):
        active.now = at
        now = replace(record(4, step=step), attempt=attempt)
        view.take([now], "search")
        view.look()
    assert view.left_of(now) == pytest.approx(35.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59.4, "59s"),
        (59.6, "1m00s"),
        (80, "1m20s"),
        (3599, "59m59s"),
        (7500, "2h05m"),
        (-3, "0s"),
        (86400 * 3 + 3600 * 4, "3d04h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_losses_have_four_digits() -> None:
    assert [loss(3.45678), loss(None), loss(math.nan), loss(0.0)] == ["3.4568", "-", "nan", "0.0000"]


def test_a_trial_without_settings_is_shown_all_the_same() -> None:
    assert plain(TrialRecord(7, Role.SEARCH, State.FAIL, {}, {}, 0, 50)) == (
        "trial   7 failed at step 0 of 50, loss -, lr -"
    )


SCRIPT = """
import sys, time
from sweeps.report.live import Display
from sweeps.records import Role, State, TrialRecord
def record(n, state=State.RUNNING, step=0):
    value = 3.0 if state is State.COMPLETE else None
    settings = {"injection": {"k": 4, "init": "identity"}, "recipe": {"learning_rate": 1e-3}}
    return TrialRecord(n, Role.SEARCH, state, {}, settings, 0, 50, {0: 4.0, step: 3.0}, value,
                       started=time.time(), finished=time.time() if value else None)
with Display("quickstart", 5, sys.stdout) as display:
    display.note("a note in [brackets]")
    began, updates = time.perf_counter(), 0
    while time.perf_counter() - began < 1.5:
        display.update([record(0, State.COMPLETE, 50), record(1, step=updates % 50)], "search")
        updates += 1
    print("printed by a library")
print("updates", updates, file=sys.stderr)
"""


def test_on_a_terminal_the_table_is_drawn_a_few_times_a_second_and_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("NO_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=slave, stdin=slave, stderr=subprocess.PIPE
    )
    os.close(slave)
    output = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            data = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        output += data
    os.close(master)
    assert process.stderr is not None
    errors = process.stderr.read().decode()
    assert process.wait(10) == 0, errors
    updates = int(errors.split()[-1])
    text = output.decode()
    plain_text = ESCAPE.sub("", text)
    lines = [line for piece in plain_text.split("\n") for line in piece.split("\r")]
    assert max(map(len, lines)) <= 80
    frames = sum(line.startswith("trial role") for line in lines)
    assert 3 <= frames <= 8  # the first, two a second, one around each thing printed, the last
    assert updates > 500
    assert "a note in [brackets]" in plain_text
    assert "printed by a library" in plain_text
    assert "1 of 5 trials" in plain_text
    assert text.rstrip().endswith("\x1b[?25h")  # the cursor is back


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    with Display("quickstart", 5, stream) as display:
        display.update([record(0, State.COMPLETE, step=50)], "search")
    assert "\x1b" not in stream.getvalue()
    assert stream.getvalue().splitlines()[-1] == "quickstart: search"


NASTY, ESCAPED = "\x1b]0;owned\x07 \x9b2J\u202e", r"\x1b]0;owned\x07 \x9b2J\u202e"


def test_foreign_text_steers_no_terminal() -> None:
    failed = record(2, State.FAIL, step=8, reason=f"said {NASTY}")
    text = drawn([record(1), failed], 250)
    assert "\x1b" not in text
    assert ESCAPED in text
    stream = io.StringIO()
    with Display("quickstart", 24, stream) as display:
        display.note(NASTY)
        display.update([], "search")
        display.update([failed], "search")
    assert "\x1b" not in stream.getvalue()
    assert stream.getvalue().count(ESCAPED) == 2


def test_work_before_the_first_trial_is_shown_now_and_then() -> None:
    now = [0.0]
    stream = io.StringIO()
    display = Display("quickstart", 24, stream, clock=lambda: now[0])
    for second in range(35):
        now[0] = float(second)
        display.progress("tokenising", f"{second:,}000 tokens", second / 40)
    display.progress("tokenising", "9 tokens", None)
    assert stream.getvalue().splitlines() == [
        "tokenising: 10000 tokens, 25%",
        "tokenising: 20000 tokens, 50%",
        "tokenising: 30000 tokens, 75%",
    ]


@pytest.mark.parametrize(("share", "end"), [(0.25, ", 25%"), (None, "tokens")])
def test_work_before_the_first_trial_is_a_bar_on_a_terminal(share: float | None, end: str) -> None:
    from rich.console import Console

    view = View("quickstart", 24, 0.0)
    view.work = ("tokenising: 1,000 tokens", share)
    for width in (40, 80, 120):
        console = Console(width=width, file=io.StringIO())
        with console.capture() as captured:
            console.print(view.render(width, 24, 1.0))
        lines = captured.get().splitlines()
        assert "quickstart" in lines[0]
        assert max(map(len, lines)) <= width
    assert lines[1].rstrip().endswith(f"1,000 tokens{end.removeprefix('tokens')}")
