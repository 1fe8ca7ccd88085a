"""Silence that the pace of the sweep does not explain, in the time in which the driver listened."""

from __future__ import annotations

import threading
import time

import pytest

from sweeps.clock import Awake, awake
from sweeps.driver.on_ray.stall_monitor import StallMonitor


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Watched:
    """A watch over workers, and a driver that comes round to their reports twice a second."""

    def __init__(self, floor: float = 1.0) -> None:
        self.clock = Clock()
        self.killed: list[tuple[str, int]] = []
        self.watch = StallMonitor(floor, lambda node, pid: self.killed.append((node, pid)), clock=self.clock)

    def listen(self, until: float) -> None:
        while self.clock.now < until:
            self.clock.now = min(self.clock.now + 0.5, until)
            self.watch.listens()
            self.watch.look()

    def paced(self, pace: float = 0.5) -> None:
        """Two measurements of one trial, one step apart."""
        self.watch.heard("a", ("node", 7), 0, 1)
        self.listen(self.clock.now + pace)
        self.watch.heard("a", ("node", 7), 1, 2)


def test_a_silent_worker_is_killed_once_and_known_as_hung() -> None:
    it = Watched()
    it.paced()
    it.listen(5.4)  # ten times the pace of half a second is allowed
    assert it.killed == []
    it.listen(7.0)
    assert it.killed == [("node", 7)]
    assert it.watch.hung == {"a"}


def test_a_long_way_to_the_next_measurement_is_no_silence() -> None:
    it = Watched()
    it.watch.heard("a", ("node", 7), 0, 1)
    it.listen(0.5)
    it.watch.heard("a", ("node", 7), 1, 101)
    it.listen(400.0)
    assert it.killed == []


def test_a_model_may_be_written_to_a_slow_disk_before_the_last_measurement() -> None:
    it = Watched()
    it.paced()
    it.watch.heard("a", ("node", 7), 1, 2, writes=True)
    it.listen(9.0)
    assert it.killed == []
    it.listen(12.0)
    assert it.killed == [("node", 7)]


def test_nothing_is_known_before_two_measurements_and_nothing_of_what_has_ended() -> None:
    it = Watched()
    it.watch.heard("a", ("node", 7), 0, 1)
    it.listen(1000.0)
    it.watch.heard("b", ("node", 8), 0, 1)
    it.listen(1000.1)
    it.watch.heard("b", ("node", 8), 1, 2)
    it.watch.forget("a")
    it.watch.forget("b")
    it.listen(3000.0)
    assert it.killed == []


@pytest.mark.parametrize(
    "away", [120.0, 36_000.0], ids=["a database that was away", "a driver that was stopped"]
)
def test_time_in_which_the_driver_did_not_listen_is_no_silence(away: float) -> None:
    it = Watched()
    it.paced()
    it.clock.now += away  # the worker has reported meanwhile, and the report lies there
    it.watch.look()  # of the watch's own thread, which did not wait
    it.watch.listens()
    it.watch.look()
    assert it.killed == []
    it.watch.heard("a", ("node", 7), 2, 3)
    it.listen(it.clock.now + 4.0)
    assert it.killed == []


def test_a_worker_that_stays_silent_after_that_is_killed_all_the_same() -> None:
    it = Watched()
    it.paced()
    it.clock.now += 120.0
    it.listen(it.clock.now + 10.0)
    assert it.killed == [("node", 7)]


def test_what_was_not_listened_to_is_no_pace() -> None:
    """Else one outage would allow every worker a silence of twenty minutes from then on."""
    it = Watched()
    it.watch.heard("a", ("node", 7), 0, 1)
    it.clock.now += 120.0
    it.watch.listens()
    it.watch.heard("a", ("node", 7), 1, 2)
    it.listen(it.clock.now + 30.0)
    assert it.killed == [("node", 7)]


def test_the_thread_looks() -> None:
    it = Watched(floor=0.02)
    it.watch.start()
    it.watch.heard("a", ("node", 7), 0, 1)
    it.clock.now = 0.01
    it.watch.listens()
    it.watch.heard("a", ("node", 7), 1, 2)
    it.clock.now = 1.0
    it.watch.listens()
    deadline = time.monotonic() + 5
    while not it.killed and time.monotonic() < deadline:
        time.sleep(0.01)
    it.watch.stop()
    assert it.killed == [("node", 7)]


def test_a_clock_that_stands_while_the_process_stands() -> None:
    clock = Clock()
    counted = Awake(longest=10.0, clock=clock)
    for now, expected in ((3.0, 3.0), (12.0, 12.0), (36_012.0, 22.0), (36_011.0, 22.0), (36_013.0, 24.0)):
        clock.now = now
        assert counted() == expected
    assert counted.missed() == 35_990.0


def test_the_clock_of_the_process_is_looked_at_by_a_thread_of_its_own() -> None:
    assert awake() is awake()
    before = awake()()
    time.sleep(0.05)
    assert 0.04 < awake()() - before < 1.0
    assert sum(thread.name == "awake" for thread in threading.enumerate()) == 1
