"""The live table on a real pseudo-terminal, and plain lines where there is none."""

from __future__ import annotations

import contextlib
import fcntl
import io
import math
import os
import pty
import random
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
from sweeps.report.live import Display
from sweeps.report.overview import overview
from sweeps.report.rows import plain
from sweeps.results.standing import Aim, Board, Standing
from sweeps.results.tally import best_so_far
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


QUICKSTART = Aim("quickstart", 20, 4)


def stood(
    records: list[TrialRecord], *, now: float = 1100.0, rows: int = 20, aim: Aim = QUICKSTART, **more: Any
) -> Standing:
    """How these stand, had all of it been done since the display began 100 s ago."""
    active = Clock()
    board = Board(aim, 1000.0, active=active, **more)
    began = [replace(each, losses={}, state=State.RUNNING, value=None) for each in records]
    board.take(began, "search")
    board.standing(1000.0, rows)
    active.now = now - 1000.0
    board.take(records, "search")
    return board.standing(now, rows)


def drawn(records: list[TrialRecord], width: int, height: int = 40, **more: Any) -> str:
    return "\n".join(line.text for line in overview(stood(records, **more), width, height))


class Moment:
    """Seconds since the epoch, which a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


AT = "1970-01-01 00:16:40Z  "  # at 1,000 s


def said(stream: io.StringIO) -> list[str]:
    """The lines, without their time."""
    lines = stream.getvalue().splitlines()
    assert all(line.startswith(AT) for line in lines)
    return [line.removeprefix(AT) for line in lines]


def displayed(stream: Any, **more: Any) -> Display:
    return Display(QUICKSTART, stream, clock=Moment(), **more)


def test_without_a_terminal_each_finished_trial_is_one_plain_line() -> None:
    stream = io.StringIO()
    with displayed(stream) as display:
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
    assert said(stream) == [
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
    display = displayed(stream, due=lambda records: 5 - len(records))
    display.update([record(0), record(1)], "search")
    ended = [record(0, State.COMPLETE, step=50), record(1, State.COMPLETE, step=50)]
    display.update([*ended, record(2, role=Role.REPLICATE, replicate_of=0)], "finalists")
    done = record(2, State.COMPLETE, step=50, role=Role.REPLICATE, replicate_of=0)
    display.update([*ended, done, record(3, role=Role.REPLICATE, replicate_of=1)], "finalists")
    counts = [line.split()[0] for line in said(stream) if "/" in line.split()[0]]
    assert counts == ["1/5", "2/5", "3/5"]
    board = Board(QUICKSTART, due=lambda records: 5 - len(records), active=Clock())
    board.take([*ended, done], "finalists")
    rung = record(3, role=Role.RUNG, replicate_of=0)
    board.take([*ended, done, rung], "ladder")
    assert board.total == 5
    assert board.standing(0.0, 9).budget_left["trials"] == (18.0, 20.0), "a rung is on top of the budget"


def test_trials_finished_before_a_resume_are_counted_and_not_repeated() -> None:
    stream = io.StringIO()
    display = displayed(stream)
    old = [record(n, State.COMPLETE, step=50) for n in range(3)]
    display.update([*old, record(3)], "search")
    display.update([*old, record(3, State.COMPLETE, step=50)], "search")
    lines = said(stream)
    assert lines[:2] == ["quickstart: 3 of at most 24 trials were finished before", "quickstart: search"]
    assert lines[2].startswith("   4/24  trial   3 complete")
    assert len(lines) == 3


def test_a_reader_that_has_gone_does_not_stop_the_sweep() -> None:
    stream = io.StringIO()
    display = displayed(stream)
    stream.close()
    display.update([record(0)], "search")
    display.note("nobody hears this")


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100, 120, 200])
def test_the_table_fits_the_terminal(width: int) -> None:
    records = [record(n, State.COMPLETE, step=50, tokens=10_000, seconds=2.0) for n in range(30)]
    records += [record(30, step=25), record(31, attempt=2)]
    records += [record(32, State.FAIL, step=8, reason="a long reason " * 20)]
    lines = drawn(records, width).splitlines()
    assert max(map(len, lines)) < width
    (place,) = (at for at, line in enumerate(lines) if line.startswith("trial "))
    shown = lines[place + 1 : -1]
    assert [int(line.split()[0]) for line in shown] == [31, 30, 32, *range(29, 12, -1)]
    assert lines[-1] == "and 13 more"
    header = lines[place].split()
    known = {"role": 80, "step": 40, "expected": 60, "gap": 100, "initial": 120, "tokens/s": 120, "note": 200}
    assert {title for title in known if title in header} == {
        title for title, least in known.items() if width >= least
    }


@pytest.mark.parametrize("count", [5, 5_000])
def test_the_page_is_lower_than_the_terminal_and_does_not_grow_with_the_trials(count: int) -> None:
    records = [record(n, State.COMPLETE, step=50) for n in range(count - 2)]
    board = Board(QUICKSTART, active=Clock())
    board.take([*records, *(record(n, step=10) for n in range(count - 2, count))], "search")
    standing = board.standing(1100.0, 20)
    for height in (3, 6, 8, 10, 16, 24, 50):
        lines = [line.text for line in overview(standing, 80, height)]
        assert len(lines) < min(height, 30)
        assert lines[0].startswith("quickstart")
        if height >= 10:
            assert any(line.split()[:1] == [str(count - 1)] for line in lines), "what runs is in sight"


def test_many_running_trials_leave_room_for_those_that_ended_last() -> None:
    records = [record(n, State.COMPLETE, step=50) for n in range(30)]
    records += [record(n, step=10) for n in range(30, 94)]
    lines = drawn(records, 80, 24).splitlines()
    states = [line.split()[-1] for line in lines if re.match(r" +\d+ ", line)]
    assert (sum("running" in line for line in lines[7:]), states.count("1m49s")) == (10, 0)
    assert sum(" complete" in line for line in lines[7:]) == 5


def test_what_the_page_says() -> None:
    control = record(0, State.COMPLETE, step=50, value=3.6)
    aim = Aim("quickstart", 20, 4, {"tokens": 60_000.0, "wall": 3600.0})
    board = Board(aim, 1000.0, active=Clock())
    board.spend({"tokens": 42_600.0, "wall": 60.0, "flops": 1e9})
    records = [control, record(1, State.COMPLETE, step=50), record(2, step=25), record(3)]
    lines = drawn(records, 132).splitlines()
    assert lines[:5] == [
        "quickstart  search  1m40s",
        "2 of 24 trials ended: 2 running, 2 complete",
        "━━──────────────────────  10%  about 14m20s left (10m28s to 19m38s)",
        "best 3.6235, 0.0235 above the control (3.6000): trial 1, K=4 identity lr 1.2e-03",
        "budget left: 16 of 20 trials",
    ]
    board.take(records, "search")
    assert overview(board.standing(1100.0, 9), 132, 24)[4].text == (
        "budget left: 16 of 20 trials, 17.4k of 60k tokens, 59m00s of 1h00m of search"
    )
    header, *rows = (line.split() for line in lines[6:])
    assert (
        " ".join(header) == "trial role K init lr step loss expected gap initial state ETA took tokens/s note"
    )
    assert rows[0] == ["3", "search", "4", "identity", "1.2e-03", "0/50", "4.1235", "4.1235", "running"]
    assert rows[1][5:] == ["25/50", "3.8735", "4.1235", "running", "1m40s"]
    assert rows[2][:5] == ["1", "baseline", "4", "identity", "1.2e-03"]
    assert rows[2][7:] == ["+0.0235", "4.1235", "complete", "1m21s"]
    assert rows[3][1:5] == ["control", "-", "-", "1.2e-03"]


def test_a_trial_that_was_interrupted_took_what_it_trained_not_what_it_waited() -> None:
    waited = record(2, State.COMPLETE, step=50, attempt=2, seconds=3.1)
    (row,) = (line for line in drawn([waited], 160).splitlines() if "complete" in line and "search" in line)
    assert row.split()[-6:] == ["3s", "attempt", "2,", "took:", "training", "alone"]
    assert plain(waited).endswith(", 3s of training")
    assert plain(replace(waited, attempt=1)).endswith(", 1m22s")
    assert "training" not in plain(replace(waited, seconds=None))


def test_the_best_stands_against_the_control_or_says_that_there_is_none() -> None:
    grown = record(1, State.COMPLETE, step=50, value=3.5)

    def best(*records: TrialRecord) -> str:
        return drawn(list(records), 132).splitlines()[3]

    assert best(record(0), grown).startswith("best 3.5000; no control is complete")
    below = best(record(0, State.COMPLETE, value=3.6), grown)
    assert below.startswith("best 3.5000, 0.1000 below the control (3.6000): trial 1")
    assert best(record(0, State.COMPLETE, value=3.5), grown).startswith("best 3.5000, as good as the control")
    assert best(record(0, State.COMPLETE, value=3.5)) == "control 3.5000; no grown model is complete"


def test_a_running_trial_shows_the_final_loss_that_is_expected_of_it() -> None:
    chance = random.Random(1)

    def curve(number: int, state: State, upto: int) -> TrialRecord:
        level, rate = chance.uniform(0, 0.05), math.exp(chance.uniform(-1, 1)) * 1e-3
        losses = {step: 4.0 + level - 0.01 * step for step in range(0, upto + 1, 10)}
        settings = {"injection": {"method": "tli", "k": 4}, "recipe": {"learning_rate": rate}}
        made = record(number, state, losses=losses, settings=settings)
        return replace(made, value=losses.get(50) if state is State.COMPLETE else None)

    records = [curve(n, State.COMPLETE, 50) for n in range(12)]
    running = curve(12, State.RUNNING, 20)
    standing = stood([*records, running])
    expected = standing.expected[12]
    assert expected.mean == pytest.approx(running.losses[20] - 0.3, abs=2e-3)
    assert 0 < expected.half_width < 0.001, "the least that is shown"
    lines = drawn([*records, running], 100).splitlines()
    (row,) = (line for line in lines if line.split()[:2] == ["12", "search"])
    assert f"{expected.mean:.4f} ±0.001" in row
    assert "±" not in "".join(line for line in lines if "complete" in line), "of running ones alone"
    shown = overview(standing, 100, 30, ascii_only=True)
    assert all(line.text.isascii() for line in shown)
    assert any(" ~0.001" in line.text for line in shown)
    assert all(line.text.isascii() for line in overview(standing, 40, 12, ascii_only=True)), "cut ones, too"


def test_a_look_at_thousands_of_trials_costs_little() -> None:
    count = 5_000
    records = [record(n, State.COMPLETE, step=50) for n in range(count)]
    board = Board(Aim("big", count + 10), active=Clock())
    took = []
    for step in (10, 20, 30, 40, 50):
        now = [*records, record(count, step=step)]
        began = time.process_time()
        board.take(now, "search")
        lines = overview(board.standing(1100.0, 20), 80, 24)
        took.append(time.process_time() - began)
    assert len(lines) < 24
    assert min(took) < 0.05, took


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


def test_time_left_counts_only_what_this_display_saw() -> None:
    active = Clock()
    board = Board(Aim("quickstart", 10), active=active)
    old = [record(n, State.COMPLETE, step=50, started=None) for n in range(4)]

    def left() -> Any:
        return board.standing(0.0, 9).left

    board.take([*old, record(4)], "search")
    active.now = 60.0
    assert left() is None
    board.take([*old, record(4, State.COMPLETE, step=50, started=None), record(5, step=50)], "search")
    found = left()
    assert found.seconds == pytest.approx(60 * 4 / 2)
    assert found.low < found.seconds < found.high
    assert found.low * found.high == pytest.approx(found.seconds**2)
    more = [record(n, State.COMPLETE, step=50) for n in range(12)]
    board.take(more, "finalists")
    assert board.total == 12
    assert left() is None


def test_time_left_of_a_resumed_sweep_is_known_at_once_by_the_trials_before() -> None:
    board = Board(Aim("quickstart", 10), active=Clock())
    old = [record(n, State.COMPLETE, step=50, started=1000.0, finished=1100.0 + n) for n in range(4)]
    board.take([*old, record(4), record(5)], "search")
    found = board.standing(0.0, 9).left
    assert found is not None
    assert found.seconds == pytest.approx(101.5 * 6 / 2)


def test_a_limit_that_is_used_up_first_ends_the_search_earlier() -> None:
    active = Clock()
    seconds = []
    for spent in (0.0, 3_000.0):
        active.now = 0.0
        board = Board(Aim("quickstart", 20, 0, {"tokens": 4_000.0}), active=active)
        board.take([record(n) for n in range(3)], "search")
        active.now = 30.0
        board.spend({"tokens": spent})
        board.take([record(n, State.COMPLETE, step=50) for n in range(3)], "search")
        left = board.standing(0.0, 9).left
        assert left is not None
        seconds.append(left.seconds)
    assert seconds == [pytest.approx(170.0), pytest.approx(10.0)], (
        "17 trials, or what a third more is enough for"
    )


def test_the_range_of_the_time_left_holds_the_end_of_simulated_sweeps() -> None:
    chance = random.Random(3)
    held = 0
    for _ in range(200):
        took = [60 * math.exp(chance.gauss(0, 0.5)) for _ in range(24)]
        active = Clock()
        board = Board(Aim("quickstart", 24), active=active)
        board.take([], "search")
        board.take([record(0)], "search")
        active.now = sum(took[:8])
        ended = [
            record(n, State.COMPLETE, step=50, started=0.001, finished=took[n] + 0.001) for n in range(8)
        ]
        board.take([*ended, record(8)], "search")
        left = board.standing(0.0, 9).left
        assert left is not None
        held += left.low <= sum(took[8:]) <= left.high
    assert 140 <= held <= 190, "80 % of them"


def test_a_trial_that_goes_on_after_a_stop_of_hours_is_foretold_by_its_speed_now() -> None:
    active = Clock()
    board = Board(QUICKSTART, 50_000.0, active=active)
    stopped = replace(record(4, step=10), started=1000.0, attempt=2)

    def seen(step: int, at: float) -> float | None:
        active.now = at
        board.take([replace(stopped, losses={0: 4.0, step: 3.0})], "search")
        return board.standing(at, 9).left_of.get(4)

    assert seen(10, 0.0) is None, "its speed is not known yet"
    assert seen(10, 5.0) is None
    assert seen(20, 10.0) == pytest.approx(30.0)
    assert seen(20, 14.0) == pytest.approx(26.0), "it counts down between measurements"
    assert seen(20, 99.0) == 0.0


def test_another_attempt_begins_anew() -> None:
    active = Clock()
    board = Board(QUICKSTART, active=active)
    for at, attempt, step in ((0.0, 1, 0), (10.0, 1, 10), (40.0, 2, 5), (50.0, 2, 15)):
        active.now = at
        board.take([replace(record(4, step=step), attempt=attempt)], "search")
        standing = board.standing(at, 9)
    assert standing.left_of[4] == pytest.approx(35.0)


def test_until_a_trial_reports_the_page_says_that_workers_start() -> None:
    old = record(0, State.COMPLETE, step=50)
    for begins in (True, False):
        board = Board(QUICKSTART, begins=begins)
        board.take([old, record(1, step=20), record(2)], "search")
        assert board.standing(0.0, 9).starting is begins, "only by whom starts them it is known"
        board.take([old, record(1, step=20), record(2)], "search")
        assert board.standing(0.0, 9).starting is begins
        board.take([old, record(1, step=30), record(2)], "search")
        assert not board.standing(0.0, 9).starting


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
from sweeps.results.standing import Aim
from sweeps.records import Role, State, TrialRecord
def record(n, state=State.RUNNING, step=0):
    value = 3.0 if state is State.COMPLETE else None
    settings = {"injection": {"k": 4, "init": "identity"}, "recipe": {"learning_rate": 1e-3}}
    return TrialRecord(n, Role.SEARCH, state, {}, settings, 0, 50, {0: 4.0, step: 3.0}, value,
                       started=time.time(), finished=time.time() if value else None)
with Display(Aim("quickstart", 5), sys.stdout) as display:
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
    assert "1 of 5 trials ended: 1 running, 1 complete" in plain_text
    assert "\x1b[31m" not in text, "nothing is red that did not fail"
    assert text.rstrip().endswith("\x1b[?25h")  # the cursor is back


RESIZED = """
import fcntl, struct, sys, termios, time
from sweeps.report.live import Display
from sweeps.results.standing import Aim
from sweeps.records import Role, State, TrialRecord
def record(n, state):
    return TrialRecord(n, Role.SEARCH, state, {}, {}, 0, 50, {0: 4.0})
with Display(Aim("quickstart", 5), sys.stdout) as display:
    display.note("a note")
    display.update([record(0, State.RUNNING)], "search")
    time.sleep(0.8)
    fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 40, 0, 0))
    time.sleep(1.2)
"""


def test_a_terminal_that_gets_another_size_is_drawn_anew() -> None:
    given = {name: os.environ[name] for name in os.environ if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    given["TERM"] = "xterm-256color"
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    with subprocess.Popen([sys.executable, "-c", RESIZED], stdout=slave, stdin=slave, env=given) as process:
        os.close(slave)
        output = b""
        with contextlib.suppress(OSError):
            while data := os.read(master, 65536):
                output += data
        os.close(master)
        assert process.wait(20) == 0
    before, _, after = output.decode().partition("\x1b[2J")
    assert "initial" in before
    assert "a note" in after, "what was said once stands there again"
    lines = re.split(r"[\r\n]+", ESCAPE.sub("", after))
    assert max(map(len, lines)) < 40
    assert any(line.startswith("trial") for line in lines)
    assert "\x1b[2J" not in after, "once"


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    with displayed(stream) as display:
        display.update([record(0, State.COMPLETE, step=50)], "search")
    assert "\x1b" not in stream.getvalue()
    assert said(stream)[-1] == "quickstart: search"


NASTY, ESCAPED = "\x1b]0;owned\x07 \x9b2J\u202e", r"\x1b]0;owned\x07 \x9b2J\u202e"


def test_foreign_text_steers_no_terminal() -> None:
    failed = record(2, State.FAIL, step=8, reason=f"said {NASTY}")
    text = drawn([record(1), failed], 250)
    assert "\x1b" not in text
    assert ESCAPED in text
    stream = io.StringIO()
    with displayed(stream) as display:
        display.note(NASTY)
        display.update([], "search")
        display.update([failed], "search")
    assert "\x1b" not in stream.getvalue()
    assert stream.getvalue().count(ESCAPED) == 2


def test_without_a_terminal_work_before_the_first_trial_is_a_line_a_minute_at_most() -> None:
    moment, stream = Moment(), io.StringIO()
    display = Display(QUICKSTART, stream, clock=moment)
    display.progress("starting Ray", "", None)
    for second in range(130):
        moment.now = 1000.0 + second
        display.progress("tokenising", f"{second:,} tokens", second / 200)
    display.progress("tokenising", "200 tokens", 1.0)
    display.progress("starting Ray", "", 1.0)
    lines = [line.partition("  ")[2] for line in stream.getvalue().splitlines()]
    assert lines == [
        "starting Ray",
        "tokenising: 0 tokens, 0%",
        "tokenising: 60 tokens, 30%",
        "tokenising: 120 tokens, 60%",
    ]


def test_without_a_terminal_a_line_a_minute_says_where_the_sweep_stands() -> None:
    moment, stream = Moment(), io.StringIO()
    display = Display(QUICKSTART, stream, clock=moment)
    display.update(
        [record(0, State.COMPLETE, step=50, value=3.6), record(1, State.COMPLETE, step=50)], "search"
    )
    stream.truncate(0)
    for second in range(0, 200, 5):
        moment.now = 1000.0 + second
        display.look()
    lines = stream.getvalue().lstrip("\0").splitlines()
    assert [line[11:20] for line in lines] == ["00:17:40Z", "00:18:40Z", "00:19:40Z"]
    assert "\r" not in stream.getvalue()
    assert lines[0].endswith(
        "quickstart: 2 of 24 trials ended: 2 complete; best 3.6235, 0.0235 above the control (3.6000)"
    )


@pytest.mark.parametrize("share", [0.25, None])
def test_what_is_done_before_the_first_trial_stands_on_the_page(share: float | None) -> None:
    display = displayed(io.StringIO())
    display.progress("starting Ray", "", None)
    display.progress("tokenising", "1,000 tokens", share)
    for width in (40, 80, 120):
        lines = str_of(display._shown(width, 24, ascii_only=False))
        assert lines[0].startswith("quickstart  starting")
        assert max(map(len, lines)) < width
    assert lines[1] == f"starting Ray; tokenising: 1,000 tokens{', 25%' if share else ''}"
    display.progress("starting Ray", "", 1.0)
    assert str_of(display._shown(80, 24, ascii_only=False))[1].startswith("tokenising")


def str_of(group: Any) -> list[str]:
    return [str(each) for each in group.renderables]
