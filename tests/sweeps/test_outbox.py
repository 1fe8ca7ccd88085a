"""The outbox: what is accepted, what is not accepted twice, and what survives a killed driver."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.records import Point
from sweeps.tracking import Tracker
from sweeps.tracking.batches import batches
from sweeps.tracking.outbox import EVENTS, SENT, Outbox, Sent, read_events, read_sent, write_sent


def point(step: int, *train: int, loss: float = 3.0) -> Point:
    return Point(
        step, step * 100, step * 1e9, step * 0.5, loss, tuple((at, loss) for at in train), 1_000.0 + step
    )


def events(folder: Path) -> list[dict]:
    return [event for event, _ in read_events(folder / EVENTS) if event is not None]


def accepted(folder: Path) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(trial, step) of every held-out and every train loss in the file."""
    told = [event for event in events(folder) if event["kind"] == "points"]
    evals = [(event["number"], one["step"]) for event in told for one in event["evals"]]
    return evals, [(event["number"], step) for event in told for step, _, _ in event["train"]]


def test_a_trial_that_repeats_steps_adds_each_of_them_once(tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    assert box.points(7, 1, [point(0), point(2, 1, 2), point(4, 3, 4)])
    assert not box.points(7, 1, [point(4, 3, 4)])
    box.close()

    again = Outbox(tmp_path)  # the driver was started again; the trial goes on from its checkpoint at step 2
    assert not again.points(7, 2, [point(4, 3, 4, loss=2.9)])
    assert again.points(7, 2, [point(4, 3, 4), point(6, 5, 6)])
    assert again.points(8, 1, [point(4, 4)])

    evals, train = accepted(tmp_path)
    assert evals == [(7, 0), (7, 2), (7, 4), (7, 6), (8, 4)]
    assert train == [(7, 1), (7, 2), (7, 3), (7, 4), (7, 5), (7, 6), (8, 4)]
    first = next(e for e in events(tmp_path) if e["kind"] == "points")
    assert [one["eval_loss"] for one in first["evals"]] == [3.0, 3.0, 3.0]


def test_new_train_losses_of_a_known_point_are_kept(tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    box.points(1, 1, [point(4, 4)])
    assert box.points(1, 2, [point(4, 3, 4)])
    assert accepted(tmp_path) == ([(1, 4)], [(1, 4), (1, 3)])


def test_repeats_within_one_call_are_written_once(tmp_path: Path) -> None:
    Outbox(tmp_path).points(1, 1, [point(4, 3, 4), point(4, 4, 3)])
    assert accepted(tmp_path) == ([(1, 4)], [(1, 3), (1, 4)])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.lists(st.integers(0, 9), max_size=4), st.booleans()), max_size=25
    )
)
def test_every_trial_and_step_is_in_the_file_exactly_once(
    tmp_path_factory: pytest.TempPathFactory, told: list[tuple[int, list[int], bool]]
) -> None:
    folder = tmp_path_factory.mktemp("outbox")
    box = Outbox(folder)
    for number, steps, restarted in told:
        if restarted:
            box.close()
            box = Outbox(folder)
        box.points(number, 1, [point(step, step) for step in steps])
    evals, train = accepted(folder)
    expected = {(number, step) for number, steps, _ in told for step in steps}
    assert sorted(evals) == sorted(train) == sorted(expected)
    assert box.size == (folder / EVENTS).stat().st_size


def test_the_same_declaration_is_written_once_and_a_changed_one_again(tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    assert box.put("trial", 3, name="0003", params={"a": "1"}, tags={})
    assert not box.put("trial", 3, name="0003", params={"a": "1"}, tags={})
    box.close()
    again = Outbox(tmp_path)
    assert not again.put("trial", 3, tags={}, params={"a": "1"}, name="0003")
    assert again.put("trial", 3, name="0003", params={"a": "1"}, tags={"attempt": "2"})
    assert [event["number"] for event in events(tmp_path)] == [3, 3]


def test_a_finished_sweep_can_be_opened_and_ended_again_with_the_same_words(tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    for _ in range(2):
        assert box.put("sweep", again=True, params={}, tags={})
        assert not box.put("sweep", again=True, params={}, tags={})
        assert box.put("end", None, status="COMPLETE")
        assert not box.put("end", None, status="COMPLETE")
        box.close()
        box = Outbox(tmp_path)
    assert [event["kind"] for event in events(tmp_path)] == ["sweep", "end", "sweep", "end"]


def test_a_resume_that_tells_of_an_ended_trial_again_adds_nothing(tmp_path: Path) -> None:
    told = {"name": "0003", "params": {"a": "1"}, "tags": {}}
    for _ in range(2):
        box = Outbox(tmp_path)
        box.put("trial", 3, when=1.0, **told)
        box.put("end", 3, when=2.0, status="COMPLETE")
        box.close()
    assert [(event["kind"], event["time"]) for event in events(tmp_path)] == [("trial", 1.0), ("end", 2.0)]
    assert Outbox(tmp_path).put("trial", 3, **told | {"params": {"a": "2"}})
    assert Outbox(tmp_path).put("end", 3, status="COMPLETE"), "MLflow would show that it runs"


def test_a_new_file_forgets_what_was_delivered_of_another(tmp_path: Path) -> None:
    """Somebody removed the file: so many bytes of the new one are not the same events."""
    Outbox(tmp_path).put("sweep", params={}, tags={})
    write_sent(tmp_path, Sent(40, "abc", "1", "quickstart"))
    assert read_sent(tmp_path) is not None
    Outbox(tmp_path)
    assert read_sent(tmp_path) is not None
    (tmp_path / EVENTS).unlink()
    Outbox(tmp_path)
    assert read_sent(tmp_path) is None


def test_a_torn_last_line_is_cut_off_wherever_it_is_torn(tmp_path: Path) -> None:
    whole = Outbox(tmp_path / "whole")
    whole.points(1, 1, [point(0)])
    before = whole.size
    whole.points(1, 1, [point(1, 1)])
    data = (tmp_path / "whole" / EVENTS).read_bytes()
    for cut in range(before, len(data)):
        folder = tmp_path / f"cut{cut}"
        folder.mkdir()
        (folder / EVENTS).write_bytes(data[:cut])
        assert accepted(folder) == ([(1, 0)], [])
        box = Outbox(folder)
        assert box.size == before
        assert box.points(1, 1, [point(1, 1)])
        assert accepted(folder) == ([(1, 0), (1, 1)], [(1, 1)])
        box.close()


def test_a_line_that_is_no_event_is_stepped_over(tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    box.put("sweep", params={}, tags={})
    box.close()
    with (tmp_path / EVENTS).open("ab") as file:
        file.write(b"\xff\x00 what is this\n[1, 2]\n")
    box = Outbox(tmp_path)
    box.points(2, 1, [point(5)])
    found = list(read_events(tmp_path / EVENTS))
    assert [event and event["kind"] for event, _ in found] == ["sweep", None, None, "points"]
    assert found[-1][1] == box.size
    assert not Outbox(tmp_path).points(2, 1, [point(5)])


def test_reading_goes_on_from_an_offset_and_stops_at_a_limit(tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    for step in range(10):
        box.points(1, 1, [point(step)])
    offset, steps, rounds = 0, [], 0
    while offset < box.size:
        rounds += 1
        for event, end in read_events(tmp_path / EVENTS, offset, limit=400):
            assert event is not None
            steps.append(event["evals"][0]["step"])
            offset = end
    assert steps == list(range(10))
    assert 3 <= rounds < 10


def test_a_disk_that_is_full_leaves_no_torn_line_and_the_event_can_be_told_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Outbox(tmp_path)
    box.points(1, 1, [point(0)])
    write = os.write

    def half(file: int, data: bytes) -> int:
        return write(file, data[: len(data) // 2])

    def full(file: int, data: bytes) -> int:
        write(file, data[:3])
        raise OSError(errno.ENOSPC, "No space left on device")

    for fault in (half, full):
        monkeypatch.setattr("sweeps.tracking.outbox.os.write", fault)
        with pytest.raises(OSError, match=r"bytes could be written|No space left"):
            box.points(1, 1, [point(1)])
        monkeypatch.setattr("sweeps.tracking.outbox.os.write", write)
        assert (tmp_path / EVENTS).stat().st_size == box.size
    assert box.points(1, 1, [point(1)])
    assert accepted(tmp_path)[0] == [(1, 0), (1, 1)]


def test_losses_that_are_not_finite_pass_through(tmp_path: Path) -> None:
    Outbox(tmp_path).points(1, 1, [point(1, loss=math.nan), point(2, loss=math.inf)])
    first, second = events(tmp_path)[0]["evals"]
    assert math.isnan(first["eval_loss"])
    assert second["eval_loss"] == math.inf


def test_the_sidecar_is_replaced_whole_and_a_broken_one_counts_as_none(tmp_path: Path) -> None:
    assert read_sent(tmp_path) is None
    for offset in (5, 9):
        write_sent(tmp_path, Sent(offset, "abc", "1", "quickstart"))
    assert read_sent(tmp_path) == Sent(9, "abc", "1", "quickstart")
    assert [path.name for path in tmp_path.iterdir()] == [SENT]
    whole = (tmp_path / SENT).read_text()
    for cut in range(len(whole)):
        (tmp_path / SENT).write_text(whole[:cut])
        assert read_sent(tmp_path) is None


def test_killing_the_writer_loses_nothing_it_was_told(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from sweeps.tracking.outbox import Outbox
from sweeps.records import Point
box = Outbox(Path(sys.argv[1]))
for step in range(10**9):
    box.points(1, 1, [Point(step, step, 0.0, 0.0, 1.0, ((step, 1.0),), 1.0)])
    print(step, flush=True)
"""
    writer = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "0\n"
    time.sleep(0.2)
    writer.kill()
    told = [0, *(int(line) for line in writer.stdout.read().splitlines(keepends=True) if line.endswith("\n"))]
    writer.wait()
    box = Outbox(tmp_path)
    steps = [step for _, step in accepted(tmp_path)[0]]
    assert steps[: len(told)] == told == list(range(len(told)))
    assert len(told) > 20
    assert len(steps) - len(told) <= 1
    assert not box.points(1, 2, [point(step, step) for step in told])


def test_events_are_plain_json_lines(tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    box.put("trial", 1, name="größer \u2028 next", params={"text": "line\nbreak"}, tags={})
    lines = (tmp_path / EVENTS).read_bytes().split(b"\n")
    assert len(lines) == 2
    assert json.loads(lines[0])["params"] == {"text": "line\nbreak"}
    assert events(tmp_path)[0]["name"] == "größer \u2028 next"


ODD = [
    b'{"kind":"points"}',
    b'{"kind":"points","number":1,"evals":[{}],"train":[]}',
    b'{"kind":"points","number":1,"evals":[],"train":[[1]]}',
    b'{"kind":"end","number":1}',
    b'{"kind":"end","number":1,"time":1,"status":"KING"}',
    b'{"kind":"trial","number":true,"time":1,"name":"a","params":{},"tags":{}}',
    b'{"kind":"trial","number":1,"time":1e300,"name":"a","params":{},"tags":{}}',
    b'{"kind":"trial","number":1,"time":1,"name":"\\ud800","params":{},"tags":{}}',
    b'{"kind":"rank","numbers":5,"time":1}',
    b'{"kind":"rank","number":[1],"numbers":[1],"time":1}',
    b'{"kind":"end","number":1,"time":1,"status":"FAIL","request":[1]}',
    b'{"kind":["points"]}',
    b'{"kind":"sweep"}',
    b"[" * 100_000,
    b"9" * 5000,
    b"null",
]


@pytest.mark.parametrize("line", ODD)
def test_an_odd_line_is_stepped_over(tmp_path: Path, line: bytes) -> None:
    box = Outbox(tmp_path)
    box.points(1, 1, [point(0)])
    box.close()
    with (tmp_path / "outbox.jsonl").open("ab") as file:
        file.write(line + b"\n")
    again = Outbox(tmp_path)
    assert again.size == (tmp_path / "outbox.jsonl").stat().st_size
    assert not again.points(1, 1, [point(0)])
    assert again.points(1, 1, [point(4)])
    again.close()
    assert [event["kind"] for event in events(tmp_path)] == ["points", "points"]


@pytest.mark.parametrize(
    "text", ["[" * 3000, "5", '{"offset": "1", "target": "a", "experiment_id": "1", "experiment": "a"}',
             '{"offset": -1, "target": "a", "experiment_id": "1", "experiment": "a"}', " " * 5000]
)  # fmt: skip
def test_a_sidecar_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "outbox.sent").write_text(text)
    assert read_sent(tmp_path) is None
    Outbox(tmp_path).close()


def test_whatever_fails_in_tracking_the_sweep_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any, **__: Any) -> bool:
        raise KeyError("anything")

    monkeypatch.setattr(Outbox, "points", failing)
    monkeypatch.setattr(Tracker, "_deliver", lambda _: None)
    tracker = Tracker("sqlite", study="a", folder=tmp_path, artifacts=tmp_path)
    tracker.open_sweep({}, {})
    tracker.points(1, 1, [point(0)])
    assert tracker.problem == "KeyError: 'anything'"


def test_a_number_that_is_given_again_is_another_trials(tmp_path: Path) -> None:
    """The study was restored from a backup that is older than the outbox: its points are told, in a run of its own."""
    for request in ("lost", "new", "new"):
        box = Outbox(tmp_path)
        box.put("trial", 7, when=1.0, name="0007", params={}, tags={"sweeps.request": request})
        box.points(7, 1, [point(0)])
        box.put("end", 7, when=2.0, status="COMPLETE", tags={})
        assert box.has(7, [0], request)
        assert not box.has(7, [0], "another")
        box.close()
    told = events(tmp_path)
    assert [event["kind"] for event in told] == ["trial", "points", "end"] * 2
    assert [event.get("request") for event in told] == [None, "lost", "lost", None, "new", "new"]
    found = {(batch.number, batch.request): len(batch.metrics) for batch in batches(told)}
    assert found.keys() == {(7, "lost"), (7, "new")}
    assert found[7, "lost"] == found[7, "new"] > 0
