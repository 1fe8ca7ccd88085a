"""Silence that the pace of the sweep does not explain."""

from __future__ import annotations

from sweeps.watch import Watch


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def watched(floor: float = 1.0) -> tuple[Watch, Clock, list[tuple[str, int]]]:
    clock, killed = Clock(), []
    return Watch(floor, lambda node, pid: killed.append((node, pid)), clock=clock), clock, killed


def test_a_silent_worker_is_killed_once_and_known_as_hung() -> None:
    watch, clock, killed = watched()
    watch.heard("a", ("node", 7), 0, 1)
    clock.now = 0.5
    watch.heard("a", ("node", 7), 1, 2)
    clock.now = 5.4  # ten times the pace of half a second is allowed
    watch.look()
    assert killed == []
    clock.now = 5.6
    watch.look()
    watch.look()
    assert killed == [("node", 7)]
    assert watch.hung == {"a"}


def test_a_long_way_to_the_next_measurement_is_no_silence() -> None:
    watch, clock, killed = watched()
    watch.heard("a", ("node", 7), 0, 1)
    clock.now = 0.5
    watch.heard("a", ("node", 7), 1, 101)
    clock.now = 400.0
    watch.look()
    assert killed == []


def test_nothing_is_known_before_two_measurements_and_nothing_of_what_has_ended() -> None:
    watch, clock, killed = watched()
    watch.heard("a", ("node", 7), 0, 1)
    clock.now = 1e6
    watch.look()
    watch.heard("b", ("node", 8), 0, 1)
    clock.now += 0.1
    watch.heard("b", ("node", 8), 1, 2)
    watch.forget("a")
    watch.forget("b")
    clock.now += 1e6
    watch.look()
    assert killed == []


def test_the_thread_looks() -> None:
    watch, clock, killed = watched(floor=0.02)
    watch.start()
    watch.heard("a", ("node", 7), 0, 1)
    clock.now = 1.0
    watch.heard("a", ("node", 7), 1, 2)
    clock.now = 100.0
    watch._ended.wait(0.2)
    watch.stop()
    assert killed == [("node", 7)]
